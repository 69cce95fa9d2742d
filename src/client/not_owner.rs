//! The check for operations that only the owner of a spool may do.
//!
//! Not what a user of the group may do to a task (`cancel.rs`). Invariant: the check comes before any change.

use std::path::PathBuf;

use super::open::Client;

/// This user is not the owner of the spool.
#[derive(Debug, thiserror::Error)]
#[error("only the owner of the spool {} may {action}", path.display())]
pub struct NotOwner {
    /// The spool.
    pub path: PathBuf,
    /// The requested operation, for example "sweep it".
    pub action: &'static str,
}

impl Client {
    pub(super) fn check_owner(&self, action: &'static str) -> Result<(), NotOwner> {
        if self.spool().is_owner() {
            return Ok(());
        }
        let path = self.path().to_owned();
        Err(NotOwner { path, action })
    }
}
