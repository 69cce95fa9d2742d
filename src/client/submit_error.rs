//! Why a submission was refused or failed.
//!
//! Not what to do about it in a front door's own words. Invariant: an error of a single submission means that
//! nothing is accepted; a batch says beside it what was ([`Unaccepted`]).

use std::path::PathBuf;

use crate::recipe::FindError;
use crate::spool::{self, IoError, ResolveError};
use crate::task::{Name, RequestError, TaskId};

/// Why a task is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] FindError),
    /// The request breaks a rule.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// This is no name of a variable.
    #[error("{0:?} is no name of a variable")]
    VariableName(String),
    /// Variables are given in a spool whose group can read them.
    #[error("variables are not taken in a group spool, where the group can read requests")]
    VariablesInGroup,
    /// The recipe does not list this variable.
    #[error("the recipe {recipe} does not accept the variable {name}")]
    VariableNotAccepted {
        /// The recipe.
        recipe: Name,
        /// The variable.
        name: String,
    },
    /// A file is attached by a user who is not the spool's owner.
    #[error(
        "a file can be attached only by the spool's owner: users of the group submit by a file in the drop box, which cannot carry another one"
    )]
    AttachmentOfGroupUser,
    /// The request lies in the drop box, and a power cut could lose it.
    #[error(
        "{id} lies in the drop box and is not accepted yet: no watcher runs on {}, and on this file system a power cut could lose the drop",
        spool.display()
    )]
    NotAdmitted {
        /// The id of the task to be.
        id: TaskId,
        /// The spool.
        spool: PathBuf,
    },
    /// The request was refused, or cannot be found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The caller gave up while its request lay in the drop box, where it stays.
    #[error("interrupted; the drop {0} goes on")]
    Interrupted(TaskId),
    /// The spool did not take it.
    #[error(transparent)]
    Store(#[from] spool::SubmitError),
    /// The spool took nothing.
    #[error("nothing was accepted")]
    Nothing,
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why not all requests of a batch were accepted.
#[derive(Debug)]
pub struct Unaccepted {
    /// What was wrong with the first that was not.
    pub error: SubmitError,
    /// More that lie in the drop box. Whether they are accepted is not known.
    pub in_the_box: Vec<TaskId>,
}
