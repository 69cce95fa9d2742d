//! How a runner is started: the seam between choosing a task and running it.
//!
//! One launcher so far, a pool of local processes. Whether such a runner runs the task itself or
//! hands it to a systemd unit of its own (`runner/unit.rs`) is the setting `launcher`, and nothing a
//! watcher need know. Invariant: whatever a launcher forgets costs time only, because the lock
//! decides who runs a task.

mod local;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

pub(super) use local::LocalPool;

use crate::task::{Answer, TaskId};

/// Starts runners for tasks and hears what became of them.
pub(super) trait Launcher {
    /// Whether one more task can be started when `limit` may be under way.
    fn has_room(&self, limit: usize) -> bool;
    /// Gives a task to a runner.
    fn start(&mut self, id: TaskId) -> io::Result<()>;
    /// Tells a task's runner to look for a marker.
    fn look(&mut self, id: TaskId);
    /// What became of tasks since the last call.
    fn answers(&mut self) -> Vec<(TaskId, Answer)>;
    /// Tasks that are with a runner, and since when.
    fn running(&self) -> impl Iterator<Item = (TaskId, Instant)>;
    /// What becomes readable when there are answers.
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>>;
    /// Lets runners go that have had nothing to do for a while.
    fn dismiss_idle(&mut self);
    /// Tells all runners to stop their tasks and to leave.
    fn stop(&mut self);
    /// Whether a runner is left, with a task or without.
    fn has_runners(&self) -> bool;
}
