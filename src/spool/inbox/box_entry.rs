//! How an entry of the drop box is checked, opened and moved, also when it is in its claim or in `rejected/`.
//!
//! Not its content (`drop_read.rs`, `control.rs`). Other users create these entries and may replace them at
//! any time. A mount on an entry moves with the entry. Invariants: such a mount is never entered, not even
//! with a `stat`, because a FUSE mount can block the caller forever; so a mounted entry counts as absent. A
//! folder is never moved out of the box. A file that takes long to free is never removed by the watcher.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::drop_claim::trash_name;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none, mount_by_fdinfo};
use crate::task::MAX_REQUEST_BYTES;

/// The errors that mean that there is nothing to take under a name.
const NOT_THERE: [Errno; 6] = [
    Errno::NOENT,
    Errno::XDEV,
    Errno::BUSY,
    Errno::ACCESS,
    Errno::NOTCONN,
    Errno::STALE,
];

impl Dir {
    /// The `stat` of an entry in the box; `None` if there is none, or if it is a mount or cannot be accessed.
    pub(in crate::spool) fn look(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Stat>> {
        let name = name.as_ref();
        let opened = retry_on_intr(|| open_entry(self.as_fd(), name, OFlags::PATH));
        let seen = opened.and_then(rustix::fs::fstat);
        match seen {
            Ok(stat) => Ok(Some(stat)),
            Err(errno) if NOT_THERE.contains(&errno) => Ok(None),
            Err(errno) => Err(IoError::new("check", self.path_of(name), errno)),
        }
    }

    /// Opens a file of the box for reading. Never follows a link and never blocks on a FIFO or a lease. A
    /// mount counts as absent.
    pub(super) fn open_here(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        let name = name.as_ref();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match retry_on_intr(|| open_entry(self.as_fd(), name, flags)) {
            Ok(opened) => Ok(File::from(opened)),
            Err(Errno::XDEV) => Err(IoError::new("open", self.path_of(name), Errno::NOENT)),
            Err(errno) => Err(IoError::new("open", self.path_of(name), errno)),
        }
    }

    /// Whether there is an entry of this name, including a mount.
    pub(super) fn has_here(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        let name = name.as_ref();
        match retry_on_intr(|| open_entry(self.as_fd(), name, OFlags::PATH)) {
            Err(Errno::NOENT) => Ok(false),
            Err(errno) if !NOT_THERE.contains(&errno) => {
                Err(IoError::new("check", self.path_of(name), errno))
            }
            _ => Ok(true),
        }
    }

    /// Reads a file of the box, as [`Dir::read`] does.
    pub(super) fn read_here(
        &self,
        name: impl AsRef<OsStr>,
        cap: usize,
    ) -> IoResult<Option<Vec<u8>>> {
        let name = name.as_ref();
        let Some(file) = absent_is_none(self.open_here(name))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(cap as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| IoError::new("read", self.path_of(name), source))?;
        Ok(Some(bytes))
    }

    /// Moves an entry of the box into a folder of ours, under a new name; `false` if there is nothing to
    /// move.
    ///
    /// An empty file is created under the new name first. The kernel replaces a file by anything but a folder
    /// (`NOTDIR`), so a folder is never moved, even if the entry was replaced a moment before.
    ///
    /// # Errors
    /// Fails also if the new name exists, or if the entry is a folder.
    pub(super) fn take_file(
        &self,
        name: impl AsRef<OsStr>,
        to: &Dir,
        new_name: impl AsRef<OsStr>,
    ) -> IoResult<bool> {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(to, new_name, flags, Mode::empty()) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(false),
            // A process that was killed between the two steps left it.
            Err(Errno::EXIST) if to.look(new_name)?.is_some_and(|it| is_placeholder(&it)) => {}
            Err(errno) => return Err(IoError::new("create", to.path_of(new_name), errno)),
        }
        let moved = rustix::fs::renameat(self, name, to, new_name);
        // Another watcher may have moved the entry there, so only a placeholder is removed.
        if moved.is_err() && to.look(new_name)?.is_some_and(|it| is_placeholder(&it)) {
            let _ = rustix::fs::unlinkat(to, new_name, AtFlags::empty());
        }
        match moved {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::BUSY) => Ok(false),
            Err(errno) => Err(IoError::new("take", self.path_of(name), errno)),
        }
    }

    /// Removes a file of the box, or leaves it to the sweeper if that may take long. Such a file is refused
    /// before it is taken, but its owner may have put it in the place of another.
    pub(super) fn discard(&self, name: impl AsRef<OsStr>, trash: &Dir) -> IoResult<()> {
        let name = name.as_ref();
        match self.look(name)?.is_some_and(|it| is_slow_to_free(&it)) {
            true => self.take_file(name, trash, trash_name()).map(|_| ()),
            false => self.unlink(name).map(|_| ()),
        }
    }
}

/// Why a file that [`is_slow_to_free`] is refused.
pub(super) const TOO_MANY_BLOCKS: &str = "it has more than 2 MiB on the disk";

/// Whether the kernel may need long to free a file. It does this in the call that removes the file, or that
/// closes it if it was removed. A user can give a short file any number of single blocks beyond its end: 400,000
/// of them took up to 23 s on ext4.
pub(super) fn is_slow_to_free(stat: &Stat) -> bool {
    const BYTES_OF_A_BLOCK: u64 = 512;
    stat.st_blocks.unsigned_abs() * BYTES_OF_A_BLOCK > 2 * MAX_REQUEST_BYTES as u64
}

/// Whether this is the empty file that [`Dir::take_file`] creates first.
pub(super) fn is_placeholder(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o7777 == 0
        && stat.st_size == 0
        && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn open_entry(parent: BorrowedFd<'_>, name: &OsStr, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // openat2(2) is missing: an old kernel, or a container whose filter refuses it. Opening a handle
        // sends no request to a file system that is mounted there.
        Err(Errno::NOSYS | Errno::PERM) => {
            let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(parent, name, handle, Mode::empty())?;
            if mount_by_fdinfo(handle.as_raw_fd())? != mount_by_fdinfo(parent.as_raw_fd())? {
                return Err(Errno::XDEV);
            }
            match access.contains(OFlags::PATH) {
                true => Ok(handle),
                false => rustix::fs::openat(parent, name, flags, Mode::empty()),
            }
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::layout::OURS_ONLY;

    /// Holds even if the entry is replaced after a check: the kernel refuses to replace a file by a folder.
    #[test]
    fn a_folder_is_never_moved_out_of_the_box() {
        let place = tempfile::tempdir().unwrap();
        let root = Dir::open(place.path(), OURS_ONLY).unwrap();
        let (box_, ours) = (
            root.make_dir("box").unwrap(),
            root.make_dir("ours").unwrap(),
        );
        box_.make_dir("folder").unwrap().create("precious").unwrap();
        box_.make_dir("empty").unwrap();
        box_.create("file").unwrap();
        box_.symlink("/etc/passwd", "link").unwrap();
        for folder in ["folder", "empty"] {
            let error = box_.take_file(folder, &ours, folder).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::NOTDIR), "{folder}");
        }
        assert!(!box_.take_file("nothing", &ours, "nothing").unwrap());
        assert!(ours.is_empty().unwrap());
        assert!(place.path().join("box/folder/precious").exists());
        assert!(box_.take_file("file", &ours, "file").unwrap());
        assert!(box_.take_file("link", &ours, "link").unwrap());
        // An existing file is not replaced.
        box_.create("file").unwrap();
        let error = box_.take_file("file", &ours, "file").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EXIST));
    }

    #[test]
    fn a_file_with_many_blocks_is_not_removed_here() {
        let place = tempfile::tempdir().unwrap();
        let root = Dir::open(place.path(), OURS_ONLY).unwrap();
        let trash = root.make_dir("trash").unwrap();
        let keep_size = rustix::fs::FallocateFlags::KEEP_SIZE;
        for (length, left) in [(4096, 0), (8 << 20, 1)] {
            let file = root.create("file").unwrap();
            rustix::fs::fallocate(&file, keep_size, 0, length).unwrap();
            root.discard("file", &trash).unwrap();
            assert!(root.look("file").unwrap().is_none());
            assert_eq!(trash.names().unwrap().len(), left);
        }
    }
}
