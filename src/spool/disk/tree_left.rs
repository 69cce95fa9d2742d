//! What came of removing a tree: the disk that became free, and what was left and why.
//!
//! Not the removal (`tree.rs`). Invariant: what was left is an error with a path, never silence.

use std::path::PathBuf;

use super::error::{IoError, IoResult};

/// Why something of a tree was left.
#[derive(Debug, thiserror::Error)]
pub(super) enum Left {
    #[error(
        "it is a mount point, and what is mounted there is kept: unmount it (`umount`), and the next sweep removes the rest"
    )]
    Mounted,
    #[error("{first} (and {more} more in the same folder were left)")]
    Several { first: std::io::Error, more: usize },
}

/// What came of removing a tree.
#[derive(Debug)]
pub struct Removed {
    /// The disk that became free, in bytes.
    pub bytes: u64,
    /// What was left, and why.
    pub left: Option<IoError>,
}

/// The error for a mount that stands where something is to be moved away.
pub(in crate::spool) fn mounted(doing: &'static str, path: PathBuf) -> IoError {
    IoError::new(doing, path, std::io::Error::other(Left::Mounted))
}

impl Removed {
    /// The bytes, where nothing was left.
    pub fn whole(self) -> IoResult<u64> {
        self.left.map_or(Ok(self.bytes), Err)
    }
}
