//! The index of a spool: where to look for tasks that are not over, for names, and for sessions.
//!
//! `open` (tasks that are not over) · `names` · `sessions` (whose task is next, and their state) · `reconcile` (after a boot).
//! Not what is true of a task (`tasks/`). Invariant: all of it can be made again from `tasks/`.

mod names;
mod open;
mod reconcile;
mod sessions;

pub use open::OpenEntry;
pub(in crate::spool) use sessions::unused_state;
pub use sessions::{SessionOrder, SessionState};
