//! Decides whether a task may run now. The runner asks with `guards`, which takes what the task needs.
//! `why` and `status` ask with `reasons`, which takes nothing.
//!
//! Does not take the task's lock, and does not order the offers (`watcher/backlog.rs`). Invariant: both
//! check in the same order: pause, session, the recipe's slots, the spool's slots.

mod guards;
mod reasons;

pub(crate) use guards::{MayRun, take_guards};
pub use reasons::reasons;
