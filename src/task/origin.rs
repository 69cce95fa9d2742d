//! The user who submitted a task of a group spool through the drop box.
//!
//! Not how the user is found (`spool/inbox/incoming.rs`). Invariant: only facts from the kernel about the
//! dropped file are here, never its content.

use serde::{Deserialize, Serialize};

use super::SPOOL_VERSION;

/// `origin.json`. A task of a group spool without it was submitted by the spool's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Format version, [`SPOOL_VERSION`].
    pub v: u32,
    /// The user whose file the drop was. `None` if others could have written or placed the file. Then
    /// only the spool's owner controls the task.
    pub uid: Option<u32>,
    /// The dropped file: its inode, and when it was last changed before the claim, in milliseconds since the
    /// epoch. A watcher that finishes the work of another watcher recognizes the drop by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<(u64, i64)>,
}

impl Origin {
    /// The origin of a drop.
    pub fn new(uid: Option<u32>, file: Option<(u64, i64)>) -> Origin {
        Origin {
            v: SPOOL_VERSION,
            uid,
            file,
        }
    }
}
