//! Operations on an open directory, with errors that name the operation and the path.
//!
//! Not the layout (that is `layout.rs`), not the protocol, and not how files are created (`write.rs`).
//! Invariant: every call uses an open directory and the name of one entry, never a longer path, so a link
//! that somebody else puts there cannot lead elsewhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::error::{IoError, IoResult};

/// Which modes new files and directories get, and whether they are synced.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Mode of files.
    pub file: Mode,
    /// Mode of directories.
    pub dir: Mode,
    /// Whether `fsync` is called at the protocol's points.
    pub sync: bool,
}

/// The mode of lock files, also in a group spool.
pub(in crate::spool) const LOCK_MODE: Mode = Mode::from_bits_retain(0o600);

/// Access lists (acl(5)): of a folder, and of new files in it.
const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// An open directory, with its path for messages and the modes of new entries.
#[derive(Debug)]
pub struct Dir {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) making: Making,
}

impl Dir {
    /// Opens a directory by path. Only the spool's root is opened this way.
    pub fn open(path: &Path, making: Making) -> IoResult<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Dir {
                fd,
                path: path.to_owned(),
                making,
            }),
            Err(errno) => Err(IoError::new("open the folder", path, errno)),
        }
    }

    /// Its path, for messages and for the environment of recipes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own name in the folder above it.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The open folder as a file, which can be locked.
    pub fn into_file(self) -> File {
        File::from(self.fd)
    }

    /// The path of an entry, for messages.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The same directory with other modes for new entries.
    pub fn with_making(mut self, making: Making) -> Dir {
        self.making = making;
        self
    }

    /// The same directory under the path it was moved to.
    pub fn moved_to(mut self, path: PathBuf) -> Dir {
        self.path = path;
        self
    }

    /// The modes of new entries.
    pub fn making(&self) -> Making {
        self.making
    }

    pub(super) fn failed(
        &self,
        doing: &'static str,
        name: impl AsRef<OsStr>,
        errno: Errno,
    ) -> IoError {
        IoError::new(doing, self.path_of(name), errno)
    }

    /// Opens a directory in this one. A link is refused.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        self.open_dir_by(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens a directory in this one only to check for names in it. The permission to list it is not needed.
    pub fn open_dir_to_ask(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        self.open_dir_by(name.as_ref(), OFlags::PATH)
    }

    fn open_dir_by(&self, name: &OsStr, access: OFlags) -> IoResult<Dir> {
        let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Dir {
                fd,
                path: self.path_of(name),
                making: self.making,
            }),
            Err(errno) => Err(self.failed("open the folder", name, errno)),
        }
    }

    /// Opens a directory in this one. `None` if it does not exist, or if a link or a file has this name.
    pub fn find_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        match self.open_dir(name) {
            Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(None),
            opened => absent_is_none(opened),
        }
    }

    /// Creates a directory. It is an error if the name exists.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        rustix::fs::mkdirat(&self.fd, name, self.making.dir)
            .map_err(|errno| self.failed("create the folder", name, errno))?;
        self.open_dir(name)
    }

    /// Creates a directory that only its owner can use, whatever the mode for new directories is.
    pub fn make_private_dir(&self, name: impl AsRef<OsStr>) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU)
            .map_err(|errno| self.failed("create the folder", name, errno))
    }

    /// Creates a directory, or opens the existing one.
    pub fn ensure_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        match rustix::fs::mkdirat(&self.fd, name, self.making.dir) {
            Ok(()) | Err(Errno::EXIST) => self.open_dir(name),
            Err(errno) => Err(self.failed("create the folder", name, errno)),
        }
    }

    /// Sets the mode of an entry, regardless of the umask.
    pub fn set_mode(&self, name: impl AsRef<OsStr>, mode: Mode) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::chmodat(&self.fd, name, mode, AtFlags::empty())
            .map_err(|errno| self.failed("set the mode of", name, errno))
    }

    /// Gives its owner all permissions, if some are missing. A failure is ignored, because the next operation
    /// reports it.
    pub(in crate::spool) fn give_rights(&self) {
        if let Ok(stat) = rustix::fs::fstat(&self.fd)
            && stat.st_mode & 0o700 != 0o700
        {
            let _ = rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(stat.st_mode) | Mode::RWXU);
        }
    }

    /// Sets the group of an entry.
    pub fn set_group(&self, name: impl AsRef<OsStr>, gid: u32) -> IoResult<()> {
        let name = name.as_ref();
        let gid = rustix::fs::Gid::from_raw(gid);
        rustix::fs::chownat(&self.fd, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("set the group of", name, errno))
    }

    /// Whether an access list gives users or groups permissions in it, or to new entries.
    pub(in crate::spool) fn has_access_list(&self) -> bool {
        let mut lists = ACCESS_LISTS.iter();
        lists.any(|list| rustix::fs::fgetxattr(&self.fd, *list, &mut [0u8; 0][..]).is_ok())
    }

    /// Removes its access lists, and those for new entries.
    pub(in crate::spool) fn remove_access_lists(&self) -> IoResult<()> {
        for list in ACCESS_LISTS {
            // A folder without access lists may be read-only.
            if rustix::fs::fgetxattr(&self.fd, list, &mut [0u8; 0][..]).is_err() {
                continue;
            }
            match rustix::fs::fremovexattr(&self.fd, list) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(self.failed("remove the access list of", "", errno)),
            }
        }
        Ok(())
    }

    /// Opens a file for reading. Never follows a link, never blocks on a FIFO.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens an existing file for reading and writing.
    pub fn open_writable(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.open_with(name, OFlags::RDWR)
    }

    pub(super) fn open_with(&self, name: impl AsRef<OsStr>, flags: OFlags) -> IoResult<File> {
        let name = name.as_ref();
        let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags | safe, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.failed("open", name, errno))
    }

    /// Reads a file, at most `cap + 1` bytes, so that the caller can detect a file that is too long. `None`
    /// if it does not exist.
    pub fn read(&self, name: impl AsRef<OsStr>, cap: usize) -> IoResult<Option<Vec<u8>>> {
        let name = name.as_ref();
        let Some(file) = absent_is_none(self.open_file(name))? else {
            return Ok(None);
        };
        let failed = |source| IoError::new("read", self.path_of(name), source);
        // If the size is known, a small file takes one read instead of six.
        let size = file.metadata().map_err(failed)?.len();
        let size = usize::try_from(size).unwrap_or(cap).min(cap);
        let mut bytes = Vec::with_capacity(size + 1);
        file.take(cap as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Some(bytes))
    }

    /// The target of a link, as written in it. `None` if there is no link with this name.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> IoResult<Option<OsString>> {
        let name = name.as_ref();
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
            // The name does not exist, or is not a link.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.failed("read the link", name, errno)),
        }
    }

    /// The metadata of an entry. A link is not followed. `None` if the name does not exist.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Stat>> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("check", name, errno)),
        }
    }

    /// Whether a name exists.
    pub fn has(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        Ok(self.stat(name)?.is_some())
    }

    /// The directory's own stat.
    pub fn own_stat(&self) -> IoResult<Stat> {
        rustix::fs::fstat(&self.fd).map_err(|errno| self.failed("check", "", errno))
    }

    /// The number of the mount it is on (statx(2), from Linux 5.8 on). The device does not distinguish two
    /// mounts of one file system.
    pub fn mount(&self) -> IoResult<u64> {
        rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .map(|stat| stat.stx_mnt_id)
            .map_err(|errno| self.failed("check", "", errno))
    }

    /// All names in it, in no order. If listing fails half way, no names are returned: in a partial list,
    /// existing names would count as absent (docs/hazards.md, 26).
    pub fn names(&self) -> IoResult<Vec<OsString>> {
        let mut names = Vec::new();
        self.each_name(|name, _| {
            names.push(OsString::from_vec(name.to_vec()));
            true
        })?;
        Ok(names)
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> IoResult<bool> {
        let mut empty = true;
        self.each_name(|_, _| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Calls `visit` with each name's bytes and type until it returns `false`.
    pub fn each_name(&self, mut visit: impl FnMut(&[u8], FileType) -> bool) -> IoResult<()> {
        /// In bytes, as the C library does.
        const AT_ONCE: usize = 32 << 10;
        let failed = |errno| self.failed("list the folder", "", errno);
        // Opened again, because the position of a listing belongs to the open folder.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(failed)?;
        let mut room = [const { MaybeUninit::uninit() }; AT_ONCE];
        let mut listing = rustix::fs::RawDir::new(folder, &mut room);
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !visit(name, entry.file_type()) {
                break;
            }
        }
        Ok(())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Turns the error "does not exist" into `None`.
pub fn absent_is_none<T>(result: IoResult<T>) -> IoResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKING: Making = Making {
        file: Mode::from_bits_retain(0o600),
        dir: Mode::from_bits_retain(0o700),
        sync: false,
    };

    /// A user who may write in the folder above replaces an open folder by a link to another one.
    #[test]
    fn a_tree_is_removed_from_the_folder_that_was_opened() {
        let place = tempfile::tempdir().unwrap();
        let root = Dir::open(place.path(), MAKING).unwrap();
        for folder in ["task", "precious"] {
            root.make_dir(folder).unwrap().make_dir("1").unwrap();
            let inner = root.open_dir(folder).unwrap().open_dir("1").unwrap();
            inner.create("file").unwrap();
        }
        let task = root.open_dir("task").unwrap();
        root.rename_new("task", &root, "moved").unwrap();
        root.symlink("precious", "task").unwrap();
        task.remove_tree("1").unwrap();
        assert!(place.path().join("precious/1/file").exists());
        assert!(!place.path().join("moved/1").exists());
        // A link that is removed itself is not followed either.
        root.remove_tree("task").unwrap();
        assert!(place.path().join("precious/1/file").exists());
    }

    #[test]
    fn a_file_or_a_link_is_not_found_as_a_folder() {
        let place = tempfile::tempdir().unwrap();
        let root = Dir::open(place.path(), MAKING).unwrap();
        root.create("file").unwrap();
        root.symlink(".", "link").unwrap();
        root.symlink("link2", "link2").unwrap();
        for name in ["file", "link", "link2", "nothing"] {
            assert!(root.find_dir(name).unwrap().is_none(), "{name}");
        }
    }
}
