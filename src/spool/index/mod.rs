//! The index of a spool: it finds unfinished tasks, names and sessions without a scan of all tasks.
//!
//! `open` (unfinished tasks) · `names` · `sessions` (the order of their tasks, and their state) · `reconcile`
//! (after a boot). Not the state of a task (`tasks/`). Invariant: the index can be rebuilt from `tasks/`.

mod names;
mod open;
mod reconcile;
mod sessions;

pub use open::OpenEntry;
pub(in crate::spool) use sessions::unused_state;
pub use sessions::{SessionOrder, SessionState};
