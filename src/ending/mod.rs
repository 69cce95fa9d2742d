//! Ends a task under its lock, from its runner or from a command that cancels it.
//!
//! Does not end a recipe that is running (`runner/group.rs`). Invariant: a result is written under the
//! task's lock, when no process of the task is alive.

mod finish;
mod lost;
mod recover;
mod report;
mod search;
mod tag;
mod temp_link;

pub use finish::finish_cancelled;
pub(crate) use finish::{finish, unstarted};
pub(crate) use lost::recover_all;
pub(crate) use report::{report_foreign_result, report_stuck};
pub(crate) use tag::{TAG_VARIABLE, tag_of};
pub(crate) use temp_link::TempLink;
