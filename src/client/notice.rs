//! What a caller should know besides the answer.
//!
//! Not errors: the call did what it was asked. Not words for people: each front door has its own. Invariant: a
//! notice is a value, and the library prints none.

use super::autostart::StartError;
use crate::spool::{IoError, Pause};

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
    /// A watcher was to be started, and was not.
    NotStarted(StartError),
}
