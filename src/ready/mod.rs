//! May this task run now? One question, asked for the truth by the runner (`turn`), which takes what it needs, and
//! for the words by `why` and `status` (`reasons`), which take nothing.
//!
//! Not the task's lock, and not the order in which tasks are offered (`watcher/backlog.rs`). Invariant: both ask in
//! one order: pause, session, the recipe's slots, the spool's slots.

mod guards;
mod reasons;

pub(crate) use guards::{MayRun, take_guards};
pub use reasons::reasons;
