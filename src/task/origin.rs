//! Who submitted a task of a group spool through the drop box.
//!
//! Not how that is found out (`spool/inbox/incoming.rs`). Invariant: only what the kernel says of a file stands
//! here, never what somebody wrote into it.

use serde::{Deserialize, Serialize};

use super::SPOOL_VERSION;

/// `origin.json`. A task of a group spool without it was submitted by the spool's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Format version, [`SPOOL_VERSION`].
    pub v: u32,
    /// The user whose file the drop was. `None` where others could have written or placed the file:
    /// then only the spool's owner controls the task.
    pub uid: Option<u32>,
    /// Which file the drop was: its inode, and when it was last changed before it was claimed, in
    /// milliseconds since the epoch. A watcher that finishes another one's work knows the drop by it.
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
