//! Removing a folder with all that is in it.
//!
//! Not the decision to (`trash.rs`, and whoever holds the lock). Every level is opened relative to
//! the one above, and its size is taken in the same walk. Invariants: no link is followed, also if
//! somebody puts one into the tree meanwhile; neither the depth of a tree nor a folder that
//! forbids its owner to write (as Go's module cache has them) keeps it from going.

use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;

use super::durable::Dir;
use super::io_error::{IoError, IoResult};
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
        let walk = Walk::new(self);
        walk.finish(vec![name.as_ref().to_owned()])
    }

    /// The same for a folder that is open and stands under a name in this one.
    pub fn remove_open_tree(&self, name: impl AsRef<OsStr>, folder: &Dir) -> IoResult<u64> {
        let name = name.as_ref();
        let failed = |errno| IoError::new("remove", self.path_of(name), errno);
        let mut walk = Walk::new(self);
        let stat = rustix::fs::fstat(folder).map_err(failed)?;
        let emptied = walk.empty(folder.as_fd(), 0);
        match emptied.and_then(|()| rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)) {
            Ok(()) => walk.bytes += bytes_of(&stat),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let deep = std::mem::take(&mut walk.deep);
        walk.finish(deep)
    }
}

impl<'a> Walk<'a> {
    fn new(top: &'a Dir) -> Walk<'a> {
        Walk {
            top,
            deep: Vec::new(),
            bytes: 0,
        }
    }

    /// Removes these and whatever is found too deep in them.
    fn finish(mut self, names: Vec<OsString>) -> IoResult<u64> {
        self.deep = names;
        while let Some(name) = self.deep.pop() {
            let top = self.top;
            let failed = |errno| IoError::new("remove", top.path_of(&name), errno);
            let entry = std::ffi::CString::new(name.as_encoded_bytes())
                .map_err(|_| failed(Errno::INVAL))?;
            self.remove(top.as_fd(), &entry, FileType::Unknown, 0)
                .map_err(failed)?;
        }
        Ok(self.bytes)
    }

    /// Removes one thing. Somebody else may be removing the same tree, as `clear` and a sweep that
    /// meet in trash/: what is gone is gone.
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<(), Errno> {
        match self.remove_what_is_there(parent, name, kind, depth) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        }
    }

    /// `kind` is what the listing says, which not every file system does.
    fn remove_what_is_there(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        depth: usize,
    ) -> Result<(), Errno> {
        let look = || rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = match kind {
            FileType::Directory => None,
            _ => Some(permitted(parent, depth, look)?),
        };
        let is_folder = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (bytes, how) = if stat.is_none_or(is_folder) {
            if depth == DEEPEST {
                return self.bring_up(parent, name);
            }
            let folder = permitted(parent, depth, || open_shut_or_not(parent, name))?;
            let stat = rustix::fs::fstat(&folder)?;
            match self.empty(folder.as_fd(), depth) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            (bytes_of(&stat), AtFlags::REMOVEDIR)
        } else {
            (stat.as_ref().map_or(0, bytes_of), AtFlags::empty())
        };
        permitted(parent, depth, || rustix::fs::unlinkat(parent, name, how))?;
        self.bytes += bytes;
        Ok(())
    }

    fn empty(&mut self, folder: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(folder, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.remove(folder, name, entry.file_type(), depth + 1)?;
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

/// The disk that something takes.
fn bytes_of(stat: &Stat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

/// Does something in a folder, if need be after giving its owner the right to; the folder in which a
/// tree stands is not part of it and stays as it is.
fn permitted<T>(
    folder: BorrowedFd<'_>,
    depth: usize,
    act: impl Fn() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match act() {
        Err(Errno::ACCESS) if depth > 0 => {
            rustix::fs::fchmod(folder, Mode::RWXU)?;
            act()
        }
        done => done,
    }
}

fn open_shut_or_not(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match open(parent, name) {
        Err(Errno::ACCESS) => open_after_all(parent, name),
        opened => opened,
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
