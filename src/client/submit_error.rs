//! Why a submission was refused or failed.
//!
//! Not the hints, which each front end has. Invariant: an error of a single submission means that no task was
//! accepted. For a batch, [`Unaccepted`] accompanies the list of accepted tasks.

use std::path::PathBuf;

use crate::recipe::FindError;
use crate::spool::{self, IoError, ResolveError};
use crate::task::{Name, RequestError, TaskId};

/// Why a task was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] FindError),
    /// The request is invalid.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The text is not a valid variable name.
    #[error("{0:?} is not a valid variable name")]
    VariableName(String),
    /// Variables were given in a group spool, where the group could read them.
    #[error("variables are not accepted in a group spool: the whole group can read requests")]
    VariablesInGroup,
    /// The recipe does not list this variable.
    #[error("the recipe {recipe} does not accept the variable {name}")]
    VariableNotAccepted {
        /// The recipe.
        recipe: Name,
        /// The variable.
        name: String,
    },
    /// A user who is not the spool's owner attached a file.
    #[error(
        "only the spool's owner can attach a file: group users submit with one file in the drop box, and it cannot carry an attachment"
    )]
    AttachmentOfGroupUser,
    /// The request is in the drop box, where a power cut could lose it.
    #[error(
        "{id} is in the drop box and is not accepted yet: no watcher is running on {}, and on this file system a power cut could lose the drop",
        spool.display()
    )]
    NotAdmitted {
        /// The id of the future task.
        id: TaskId,
        /// The spool.
        spool: PathBuf,
    },
    /// The request was refused, or it cannot be found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The caller stopped the call. The request stays in the drop box.
    #[error("interrupted; the drop {0} stays in the drop box")]
    Interrupted(TaskId),
    /// The request could not be written to the spool.
    #[error(transparent)]
    Store(#[from] spool::SubmitError),
    /// No task was accepted.
    #[error("no task was accepted")]
    Nothing,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why not all requests of a batch were accepted.
#[derive(Debug)]
pub struct Unaccepted {
    /// The error of the first request that was not accepted.
    pub error: SubmitError,
    /// Further requests in the drop box. It is not known whether they are accepted.
    pub in_the_box: Vec<TaskId>,
}
