//! Gives a task a process that runs it: a runner of the pool, or a systemd unit.
//!
//! Does not choose a task (`watcher/`) or run it (`runner/`). The watcher starts runners from the pool.
//! The setting `launcher` decides whether such a runner runs the task itself or starts a unit for it; the
//! watcher does not need to know. Invariant: state that a launcher loses costs only time, because the
//! lock decides which process runs a task.

mod memory;
mod pool;
mod systemd;

pub(crate) use memory::{kills, outcome};
pub(crate) use pool::LocalPool;
pub(crate) use systemd::{Units, Waiter};
