//! Reports about a task while it ends, in the log and in its status.
//!
//! Does not report the end itself, which has an event (`finish.rs`). Invariant: an error here never stops
//! the end of a task.

use crate::spool::TaskLock;
use crate::task::{Condition, TaskId};

/// Records in the task's status that it is stuck, and logs the reason.
pub(crate) fn report_stuck(lock: &TaskLock, why: &str) {
    tracing::error!(task = %lock.task().id(), "stuck: {why}");
    if let Some(mut status) = lock.task().status_file() {
        status.condition = Some(Condition::Stuck);
        // Best effort: the lock that is held shows it too.
        let _ = lock.write_status(&status);
    }
}

/// Reports that a result was found that the recipe wrote. Called once for each task.
pub(crate) fn report_foreign_result(id: TaskId) {
    tracing::warn!(
        task = %id,
        "a result.json that no runner wrote was moved to foreign-result in the attempt's folder"
    );
}
