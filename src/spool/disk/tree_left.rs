//! The result of removing a tree: the disk space that was freed, what was left, and why.
//!
//! Not the removal (`tree.rs`). Invariant: if something was left, it is reported as an error with a path.

use std::path::PathBuf;

use super::error::{IoError, IoResult};

/// Why a part of a tree was left.
#[derive(Debug, thiserror::Error)]
pub(super) enum Left {
    #[error(
        "it is a mount point, and the mounted files are kept: unmount it (`umount`), and the next sweep removes the rest"
    )]
    Mounted,
    #[error("{first} (and {more} more in the same folder were left)")]
    Several { first: std::io::Error, more: usize },
}

/// The result of removing a tree.
#[derive(Debug)]
pub struct Removed {
    /// The disk space that was freed, in bytes.
    pub bytes: u64,
    /// What was left, and why.
    pub left: Option<IoError>,
}

/// The error for a mount point that cannot be moved.
pub(in crate::spool) fn mounted(doing: &'static str, path: PathBuf) -> IoError {
    IoError::new(doing, path, std::io::Error::other(Left::Mounted))
}

impl Removed {
    /// The freed bytes, or the error if something was left.
    pub fn whole(self) -> IoResult<u64> {
        self.left.map_or(Ok(self.bytes), Err)
    }
}
