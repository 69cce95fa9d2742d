//! Finds a task's folder by the text that a user gives.
//!
//! Not the resolving of names (`spool/resolve.rs`). Invariant: a drop that is not admitted yet is not a task
//! here.

use super::open::Client;
use crate::spool::{IoError, ReadError, ResolveError, Target, TaskDir};
use crate::task::{Name, TaskId};

/// Why a task was not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No task matches, several tasks match, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is a drop that is not a task yet.
    #[error("{0} is a drop that no watcher has admitted yet")]
    NotAdmitted(Name),
    /// The task was removed.
    #[error("the task {0} was just removed")]
    Removed(TaskId),
    /// A file of the task cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// The folder of a task, given by id, part of an id, name, or `last`.
    pub(super) fn folder_of(&self, task: &str) -> Result<TaskDir, LookupError> {
        match self.spool().resolve(task)? {
            Target::Task(id) => self.spool().task(id)?.ok_or(LookupError::Removed(id)),
            Target::Drop(name) => Err(LookupError::NotAdmitted(name)),
        }
    }
}
