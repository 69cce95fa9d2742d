//! What a caller should know besides the answer.
//!
//! Not errors: the call did what it was asked. Not words for people: each front door has its own. Invariant: a
//! notice is a value, and the library prints none.

use std::io;

use serde_json::Value;

use crate::spool::{IoError, Pause};
use crate::task::{Reason, TaskId};

/// Something to know besides the answer.
#[derive(Debug)]
pub enum Notice {
    /// The task is accepted, and its name does not lead to it.
    NameNotLinked(IoError),
    /// The spool is paused: no task starts.
    Paused(Pause),
    /// No watcher runs, and none may be started from here.
    NoWatcher {
        /// Whether this user could start one by hand.
        is_owner: bool,
    },
    /// Settings were given to this command that only a watcher goes by.
    SettingOfWatcher {
        /// Which.
        key: String,
        /// Whether by a flag, else by a variable.
        is_flag: bool,
        /// The value that was given.
        value: Value,
    },
    /// Something about the recipe that may go wrong.
    Recipe(String),
    /// The caller is part of a task, and waits for what may need this task to end first.
    WaitsInTask {
        /// The task that the caller is a part of.
        own: TaskId,
        /// The task that is waited for.
        awaited: TaskId,
        /// What that one waits for; `None` where it is the same task.
        reason: Option<Reason>,
    },
    /// A watcher was started, and will end with the service of systemd that this process belongs to, with its tasks.
    EndsWith(String),
    /// Whether a watcher runs cannot be seen by this user now.
    WatcherUnseen,
    /// A watcher was to be started, and was not.
    NotStarted(StartError),
}

/// Why no watcher was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another command holds the start lock.
    #[error("failed to start a watcher: another command has been starting one for too long")]
    Busy,
    /// The program could not be started.
    #[error("failed to start a watcher: {0}")]
    Spawn(#[source] io::Error),
    /// Nothing can be heard of it.
    #[error("failed to start a watcher: it has no stdout")]
    Mute,
    /// It was started and is still not seen.
    #[error("failed to start a watcher: it was not ready within 5 s")]
    Late,
    /// It was started and is gone.
    #[error("failed to start a watcher: it ended at once; see watchers/log in the spool")]
    Ended,
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}
