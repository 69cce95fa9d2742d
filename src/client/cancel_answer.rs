//! What a cancellation answers, and why it fails.
//!
//! Not the cancelling (`cancel.rs`, `ask.rs`). Invariant: an answer names the result that stands, also where the
//! task ended by itself.

use crate::spool::{IoError, ResolveError, TaskDir};
use crate::task::{Name, ResultFile, Status, TaskId};

/// What came of a cancellation.
#[derive(Debug)]
pub struct Cancelled {
    /// The task.
    pub id: TaskId,
    /// How it went.
    pub outcome: CancelOutcome,
    /// Where the task stands now.
    pub status: Status,
}

impl Cancelled {
    /// The result that stands; `None` as well where it cannot be read.
    pub fn result(&self) -> Option<&ResultFile> {
        match &self.outcome {
            CancelOutcome::AlreadyOver(result) | CancelOutcome::Ended(result) => result.as_ref(),
            CancelOutcome::Requested | CancelOutcome::Unattended => None,
        }
    }
}

/// How a cancellation went. A result that stands and cannot be read is `None`.
#[derive(Debug)]
pub enum CancelOutcome {
    /// The task was over before.
    AlreadyOver(Option<ResultFile>),
    /// It is requested; the end was not waited for.
    Requested,
    /// It is requested, and no watcher runs that could end the task.
    Unattended,
    /// The task is over now.
    Ended(Option<ResultFile>),
}

/// Why a task is not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// Nothing is called so, or several tasks are.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is a drop whose name is no id yet.
    #[error("{0} is a drop that no watcher has admitted yet")]
    NotAdmitted(Name),
    /// It is a drop at which a watcher died.
    #[error("{0} is a drop that no watcher has admitted yet")]
    Abandoned(Name),
    /// It is gone.
    #[error("the task {0} was just removed")]
    Removed(TaskId),
    /// Another user submitted the task.
    #[error("the task {0} is another user's")]
    TaskOfAnotherUser(TaskId),
    /// Another user put the drop into the box.
    #[error("the drop {0} is another user's")]
    DropOfAnotherUser(TaskId),
    /// Nobody can say who submitted the task.
    #[error(
        "nobody knows who submitted the task {0}: others could have written or moved the file that was dropped"
    )]
    OfUnknownUser(TaskId),
    /// The watcher refused it.
    #[error("the cancellation of {id} was refused: {reason}")]
    Refused {
        /// The task.
        id: TaskId,
        /// Why, in one line.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The caller gave up while the drop was waited for.
    #[error("interrupted; the cancellation of {0}")]
    InterruptedAtDrop(TaskId),
    /// The caller gave up; the cancellation goes on.
    #[error("interrupted; the cancellation of {0} goes on")]
    Interrupted(TaskId),
    /// The marker stands, and the disk refuses the result.
    #[error(
        "the cancellation of {id} is noted and nothing of it will be started, but its end cannot be written: {error}"
    )]
    Unwritten {
        /// The task.
        id: TaskId,
        /// The kernel's word.
        error: IoError,
    },
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The result that stands; `None` as well where it cannot be read.
pub(super) fn readable(task: &TaskDir) -> Option<ResultFile> {
    task.result().ok().flatten()
}
