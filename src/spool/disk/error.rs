//! What is said when the kernel refuses something on a path.
//!
//! Not the operations (`dir.rs`). Invariant: whoever reads it knows what was being done, to what,
//! and why it failed. A path in it is one line that is safe on a terminal, whoever named the file.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::tree_left::Left;
use crate::task::escape_path;

/// An operation on a path that failed: what, where, why.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {}: {source}", escape_path(path))]
pub struct IoError {
    /// A verb with its object, as in "failed to {doing} {path}".
    pub doing: &'static str,
    /// The path as a person would type it.
    pub path: PathBuf,
    /// The kernel's word.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Puts the words to a kernel error.
    pub fn new(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        IoError {
            doing,
            path: path.into(),
            source: source.into(),
        }
    }

    /// The error number, where it came from the kernel.
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// Whether there is no room (blocks, inodes or quota).
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// Whether somebody mounted something there, which stays.
    pub fn is_mounted(&self) -> bool {
        let left = self.source.get_ref().and_then(|it| it.downcast_ref());
        matches!(left, Some(Left::Mounted)) || self.errno() == Some(Errno::BUSY)
    }

    /// Whether the thing is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT))
    }

    /// Whether something else stands there than what should, or shut: the disk is well, and a
    /// person must see to this one thing.
    pub fn is_unusable(&self) -> bool {
        let odd = [Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::NXIO];
        self.is_denied() || self.errno().is_some_and(|errno| odd.contains(&errno))
    }

    /// Whether it can be moved neither away nor anywhere: a folder of a lower layer of overlayfs, or a file that
    /// its owner gave to another project of a project quota.
    pub fn is_immovable(&self) -> bool {
        matches!(self.errno(), Some(Errno::XDEV))
    }

    /// Whether we may not.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM))
    }
}

/// Shorthand of this room.
pub type IoResult<T> = Result<T, IoError>;

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_name_of_somebody_elses_stays_in_its_place() {
        let name = std::ffi::OsStr::from_bytes(b"box/\rforged\n\x1b[2J\xe2\x80\xae\xff \xc3\xa9");
        let error = IoError::new("move", name, Errno::PERM);
        let message = error.to_string();
        assert!(
            message.starts_with(r"failed to move box/\rforged\n\u{1b}[2J\u{202e}\xff é: "),
            "{message}"
        );
    }
}
