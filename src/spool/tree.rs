//! Removing a folder with all that is in it.
//!
//! Not the decision to (`trash.rs`, and whoever holds the lock). Every level is opened relative to
//! the one above, and its size is taken in the same walk. Invariants: no link is followed, also if
//! somebody puts one into the tree meanwhile; neither the depth of a tree nor a folder that
//! forbids its owner to write (as Go's module cache has them) keeps it from going.

use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use super::durable::{Dir, IoError, IoResult};
use super::layout::random_bits;

/// An open folder a level: far below any limit of open files.
const DEEPEST: usize = 100;
const LISTING_BYTES: usize = 4096;

/// One removal.
struct Walk<'a> {
    /// The folder in which the tree stands.
    top: &'a Dir,
    /// What was too deep and stands in `top` now.
    deep: Vec<OsString>,
    bytes: u64,
}

impl Dir {
    /// Removes what stands under a name, a folder with all below it; the disk it took, in bytes.
    /// Nothing there is nothing to do.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        let mut walk = Walk {
            top: self,
            deep: vec![name.as_ref().to_owned()],
            bytes: 0,
        };
        while let Some(name) = walk.deep.pop() {
            let failed = |errno| IoError::new("remove", self.path_of(&name), errno);
            let entry = std::ffi::CString::new(name.as_encoded_bytes())
                .map_err(|_| failed(Errno::INVAL))?;
            walk.remove(self.as_fd(), &entry, 0).map_err(failed)?;
        }
        Ok(walk.bytes)
    }
}

impl Walk<'_> {
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let how = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if depth == DEEPEST {
                return self.bring_up(parent, name);
            }
            match self.empty(parent, name, depth) {
                // Somebody else removes the same tree: `clear` and a sweep may meet in trash/.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        self.bytes += stat.st_blocks.unsigned_abs() * 512;
        let removed = match rustix::fs::unlinkat(parent, name, how) {
            Err(Errno::ACCESS) if depth > 0 => {
                rustix::fs::fchmod(parent, Mode::RWXU)?;
                rustix::fs::unlinkat(parent, name, how)
            }
            removed => removed,
        };
        match removed {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    fn empty(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
        let folder = match open(parent, name) {
            Err(Errno::ACCESS) => open_after_all(parent, name)?,
            opened => opened?,
        };
        let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(&folder, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.remove(folder.as_fd(), name, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Moves a folder that lies too deep to the top, where it is the next tree to remove.
    fn bring_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let up = OsString::from(format!("deep.{:016x}", random_bits() as u64));
        rustix::fs::renameat_with(parent, name, self.top, &up, RenameFlags::NOREPLACE)?;
        self.deep.push(up);
        Ok(())
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a folder of ours that may not even be listed. Its mode is set through a handle of exactly
/// this folder: a name could be a link by then.
fn open_after_all(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    open(parent, name)
}
