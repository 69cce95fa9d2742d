//! What is said of a task while it ends, in the log and in its status.
//!
//! Not its end itself, which has an event of its own (`finish.rs`). Invariant: nothing here stops an ending.

use crate::spool::TaskLock;
use crate::task::{Condition, TaskId};

/// Says in the task's status that it cannot go on, and in the log why.
pub(crate) fn report_stuck(lock: &TaskLock, why: &str) {
    tracing::error!(task = %lock.task().id(), "stuck: {why}");
    if let Some(mut status) = lock.task().status_file() {
        status.condition = Some(Condition::Stuck);
        // Best effort: the held lock says the same to everybody who counts.
        let _ = lock.write_status(&status);
    }
}

/// Says that a result was found that the recipe wrote. Once a task.
pub(crate) fn report_foreign_result(id: TaskId) {
    tracing::warn!(
        task = %id,
        "a result.json that no runner wrote was moved to foreign-result in the attempt's folder"
    );
}
