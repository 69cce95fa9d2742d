//! The runner: holds one task's lock and supervises one attempt of it.
//!
//! Does not choose what runs (`watcher/`). `run.rs` has the steps of a task, `execute.rs` those of an
//! attempt. Invariants: nothing runs unless the lock is held and the start is recorded; the lock is held
//! until the result is on the disk; before the result is written, no process of the attempt is alive.

mod command;
mod control;
mod execute;
mod group;
mod growth;
mod loss;
mod nimble;
mod progress;
mod result;
mod run;
mod signals;
mod spawn;
mod start;
mod state;
mod supervise;

pub use control::{Control, ControlError};
pub use state::{Runner, RunnerError, Surroundings};

/// Kept here for callers that used it before `ending` existed.
pub use crate::ending::finish_cancelled;
