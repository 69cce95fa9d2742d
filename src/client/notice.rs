//! Notes for a caller, in addition to the answer.
//!
//! Not errors: the call succeeded. Not texts for people: each front end has its own. Invariant: a notice is a
//! value, and the library does not print it.

use std::io;

use serde_json::Value;

use crate::spool::{IoError, Pause};
use crate::task::{Reason, TaskId};

/// A note in addition to the answer.
#[derive(Debug)]
pub enum Notice {
    /// The task was accepted, but its name does not lead to it.
    NameNotLinked(IoError),
    /// The spool is paused: no task starts.
    Paused(Pause),
    /// No watcher is running, and this client may not start one.
    NoWatcher {
        /// Whether this user could start one by hand.
        is_owner: bool,
    },
    /// This command was given a setting that affects only a watcher.
    SettingOfWatcher {
        /// The setting.
        key: String,
        /// Whether the setting was given by a flag; otherwise by a variable.
        is_flag: bool,
        /// The value that was given.
        value: Value,
    },
    /// Something in the recipe that may fail.
    Recipe(String),
    /// The caller runs in a task, and waits for a task that may need the caller's task to end first.
    WaitsInTask {
        /// The task in which the caller runs.
        own: TaskId,
        /// The task that is waited for.
        awaited: TaskId,
        /// What the awaited task waits for; `None` if it is the caller's own task.
        reason: Option<Reason>,
    },
    /// A watcher was started. It and its tasks end with the systemd service in which this process runs.
    EndsWith(String),
    /// This user cannot determine whether a watcher is running.
    WatcherUnseen,
    /// A watcher could not be started.
    NotStarted(StartError),
}

/// Why a watcher was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another command holds the start lock.
    #[error("failed to start a watcher: another command has held the start lock for too long")]
    Busy,
    /// The program could not be started.
    #[error("failed to start a watcher: {0}")]
    Spawn(#[source] io::Error),
    /// The started process has no stdout to report on.
    #[error("failed to start a watcher: it has no stdout")]
    Mute,
    /// The watcher was started but did not report that it is ready.
    #[error("failed to start a watcher: it was not ready within 5 s")]
    Late,
    /// The watcher was started but exited.
    #[error("failed to start a watcher: it exited at once; see watchers/log in the spool")]
    Ended,
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}
