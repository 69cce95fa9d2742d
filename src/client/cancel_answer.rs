//! The answer and the errors of a cancellation.
//!
//! Not the cancelling (`cancel.rs`, `ask.rs`). Invariant: an answer has the task's actual result, also if the
//! task ended by itself.

use crate::spool::{IoError, ResolveError, TaskDir};
use crate::task::{Name, ResultFile, Status, TaskId};

/// The answer of a cancellation.
#[derive(Debug)]
pub struct Cancelled {
    /// The task.
    pub id: TaskId,
    /// The outcome.
    pub outcome: CancelOutcome,
    /// The task's status now.
    pub status: Status,
}

impl Cancelled {
    /// The task's result; `None` if there is none or it cannot be read.
    pub fn result(&self) -> Option<&ResultFile> {
        match &self.outcome {
            CancelOutcome::AlreadyOver(result) | CancelOutcome::Ended(result) => result.as_ref(),
            CancelOutcome::Requested | CancelOutcome::Unattended => None,
        }
    }
}

/// The outcome of a cancellation. A result that cannot be read is `None`.
#[derive(Debug)]
pub enum CancelOutcome {
    /// The task had already ended.
    AlreadyOver(Option<ResultFile>),
    /// The cancellation was requested. The call did not wait for the end.
    Requested,
    /// The cancellation was requested, but no watcher is running to end the task.
    Unattended,
    /// The task has ended.
    Ended(Option<ResultFile>),
}

/// Why a task was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No task matches, or several tasks match.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is a drop, and its name is not an id.
    #[error("{0} is a drop that no watcher has admitted yet")]
    NotAdmitted(Name),
    /// It is a drop whose watcher was killed while admitting it.
    #[error("{0} is a drop that no watcher has admitted yet")]
    Abandoned(Name),
    /// The task was removed.
    #[error("the task {0} was just removed")]
    Removed(TaskId),
    /// Another user submitted the task.
    #[error("the task {0} belongs to another user")]
    TaskOfAnotherUser(TaskId),
    /// Another user put the drop into the drop box.
    #[error("the drop {0} belongs to another user")]
    DropOfAnotherUser(TaskId),
    /// The submitter of the task is unknown.
    #[error(
        "the submitter of the task {0} is unknown: other users could have written or moved the dropped file"
    )]
    OfUnknownUser(TaskId),
    /// The watcher refused the cancellation.
    #[error("the cancellation of {id} was refused: {reason}")]
    Refused {
        /// The task.
        id: TaskId,
        /// Why, in one line.
        reason: String,
        /// What to try.
        hint: String,
    },
    /// The caller stopped the call before the drop was decided. It was not cancelled.
    #[error("interrupted; the drop {0} was not cancelled")]
    InterruptedAtDrop(TaskId),
    /// The caller stopped the call. The cancellation continues.
    #[error("interrupted; the cancellation of {0} continues")]
    Interrupted(TaskId),
    /// The cancel marker was written, but the result cannot be written.
    #[error(
        "the cancellation of {id} was requested and no attempt will start, but the task's result cannot be written: {error}"
    )]
    Unwritten {
        /// The task.
        id: TaskId,
        /// The error of the system call.
        error: IoError,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The task's result; `None` if there is none or it cannot be read.
pub(super) fn readable(task: &TaskDir) -> Option<ResultFile> {
    task.result().ok().flatten()
}
