//! How a task gets a process that runs it: a runner of the pool, or a unit of systemd's.
//!
//! Not the choice of a task (`watcher/`), nor what a runner does (`runner/`). The watcher starts runners by the pool. Whether
//! such a runner runs the task itself or hands it to a unit is the setting `launcher`, and nothing a watcher need know.
//! Invariant: whatever a launcher forgets costs time only, because the lock decides who runs a task.

mod memory;
mod pool;
mod systemd;

pub(crate) use memory::{kills, outcome};
pub(crate) use pool::LocalPool;
pub(crate) use systemd::{Units, Waiter};
