//! The error for an operation on a path that failed.
//!
//! Not the operations (`dir.rs`). Invariant: the message has the operation, the path, and the reason. The
//! path is printed as one line that is safe on a terminal, even if another user chose the file's name.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::tree_left::Left;
use crate::task::escape_path;

/// An operation on a path that failed: the operation, the path and the reason.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {}: {source}", escape_path(path))]
pub struct IoError {
    /// A verb with its object, as in "failed to {doing} {path}".
    pub doing: &'static str,
    /// The path, for the message.
    pub path: PathBuf,
    /// The error of the kernel.
    #[source]
    pub source: io::Error,
}

impl IoError {
    /// Adds the operation and the path to an error of the kernel.
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

    /// The error number, if the error came from the kernel.
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// Whether there is no space (blocks, inodes or quota).
    pub fn is_no_space(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// Whether something is mounted there.
    pub fn is_mounted(&self) -> bool {
        let left = self.source.get_ref().and_then(|it| it.downcast_ref());
        matches!(left, Some(Left::Mounted)) || self.errno() == Some(Errno::BUSY)
    }

    /// Whether the file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT))
    }

    /// Whether the file is of the wrong kind or may not be opened. The disk works, and a person must fix this
    /// one file.
    pub fn is_unusable(&self) -> bool {
        let odd = [Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::NXIO];
        self.is_denied() || self.errno().is_some_and(|errno| odd.contains(&errno))
    }

    /// Whether it cannot be moved: it is a folder of a lower layer of overlayfs, or a file of another project
    /// of a project quota.
    pub fn is_immovable(&self) -> bool {
        matches!(self.errno(), Some(Errno::XDEV))
    }

    /// Whether permission was denied.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM))
    }
}

/// The result type of this module.
pub type IoResult<T> = Result<T, IoError>;

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_name_cannot_forge_the_rest_of_the_message() {
        let name = std::ffi::OsStr::from_bytes(b"box/\rforged\n\x1b[2J\xe2\x80\xae\xff \xc3\xa9");
        let error = IoError::new("move", name, Errno::PERM);
        let message = error.to_string();
        assert!(
            message.starts_with(r"failed to move box/\rforged\n\u{1b}[2J\u{202e}\xff é: "),
            "{message}"
        );
    }
}
