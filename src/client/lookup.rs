//! From what a person calls a task to its folder.
//!
//! Not the resolving of names (`spool/resolve.rs`). Invariant: a drop that is not admitted yet is no task here.

use super::open::Client;
use crate::spool::{IoError, ReadError, ResolveError, Target, TaskDir};
use crate::task::{Name, TaskId};

/// Why there is no such task to look at.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Nothing is called so, several tasks are, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It is a drop that is not a task yet.
    #[error("{0} is a drop that no watcher has admitted yet")]
    NotAdmitted(Name),
    /// It is gone.
    #[error("the task {0} was just removed")]
    Removed(TaskId),
    /// A file of the task cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// The folder of the task that is called so.
    pub(super) fn folder_of(&self, task: &str) -> Result<TaskDir, LookupError> {
        match self.spool().resolve(task)? {
            Target::Task(id) => self.spool().task(id)?.ok_or(LookupError::Removed(id)),
            Target::Drop(name) => Err(LookupError::NotAdmitted(name)),
        }
    }
}
