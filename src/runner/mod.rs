//! The runner: holds one task's lock and supervises one attempt of it.
//!
//! Not the one who chooses what runs (`watcher/`). `run.rs` tells the story of a task, `execute.rs` that of an attempt.
//! Invariants: nothing runs without the lock held and the start recorded; the lock is kept until the
//! result is on the disk; before the result nothing of the attempt is alive.

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

/// Where it was before there was a room for endings.
pub use crate::ending::finish_cancelled;
