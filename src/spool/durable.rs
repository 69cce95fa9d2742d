//! Directory operations that say what they were doing, and the few ways a file comes to be.
//!
//! Not the layout (that is `layout.rs`) and not the protocol. Everything goes through an open
//! directory and one component's name, never through a longer path, so no link planted in between
//! can lead elsewhere. Invariants: a file appears complete or not at all under its final name;
//! with `durability = power` what a caller was told is on the disk before it is told.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// An operation on a path that failed: what, where, why.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing} {}: {source}", path.display())]
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

    /// Whether the thing is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT))
    }

    /// Whether we may not.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM))
    }
}

/// Shorthand of this room.
pub type IoResult<T> = Result<T, IoError>;

/// Which modes new things get, and whether they are made durable.
#[derive(Clone, Copy, Debug)]
pub struct Making {
    /// Mode of files.
    pub file: Mode,
    /// Mode of directories.
    pub dir: Mode,
    /// Whether `fsync` is called at the protocol's points.
    pub sync: bool,
}

/// An open directory, with its path for messages and the way things in it are made.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    making: Making,
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

    /// Where it is, for messages and for the environment of recipes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, for messages.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// The same directory with other modes for what is made in it.
    pub fn with_making(mut self, making: Making) -> Dir {
        self.making = making;
        self
    }

    /// How things in it are made.
    pub fn making(&self) -> Making {
        self.making
    }

    fn failed(&self, doing: &'static str, name: impl AsRef<OsStr>, errno: Errno) -> IoError {
        IoError::new(doing, self.path_of(name), errno)
    }

    /// Opens a directory in this one; a link is refused.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Dir {
                fd,
                path: self.path_of(name),
                making: self.making,
            }),
            Err(errno) => Err(self.failed("open the folder", name, errno)),
        }
    }

    /// Opens a directory in this one only to ask for names in it: needs no right to list it.
    pub fn open_dir_to_ask(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Dir {
                fd,
                path: self.path_of(name),
                making: self.making,
            }),
            Err(errno) => Err(self.failed("open the folder", name, errno)),
        }
    }

    /// Opens a directory in this one, or says that it is not there.
    pub fn find_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        absent_is_none(self.open_dir(name))
    }

    /// Makes a directory; one that is there is an error.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        rustix::fs::mkdirat(&self.fd, name, self.making.dir)
            .map_err(|errno| self.failed("make the folder", name, errno))?;
        self.open_dir(name)
    }

    /// Makes a directory, or opens the one that is there.
    pub fn ensure_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        match rustix::fs::mkdirat(&self.fd, name, self.making.dir) {
            Ok(()) | Err(Errno::EXIST) => self.open_dir(name),
            Err(errno) => Err(self.failed("make the folder", name, errno)),
        }
    }

    /// Sets the mode of a thing in this directory, past the umask.
    pub fn set_mode(&self, name: impl AsRef<OsStr>, mode: Mode) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::chmodat(&self.fd, name, mode, AtFlags::empty())
            .map_err(|errno| self.failed("set the mode of", name, errno))
    }

    /// Gives a thing in this directory to a group.
    pub fn set_group(&self, name: impl AsRef<OsStr>, gid: u32) -> IoResult<()> {
        let name = name.as_ref();
        let gid = rustix::fs::Gid::from_raw(gid);
        rustix::fs::chownat(&self.fd, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("set the group of", name, errno))
    }

    /// Creates a file that must not be there yet.
    pub fn create(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// Creates an empty file, or leaves the one that is there.
    pub fn touch(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Creates or opens a file whose writes always go to its end.
    pub fn append(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
    }

    fn create_with(&self, name: impl AsRef<OsStr>, flags: OFlags) -> IoResult<File> {
        let name = name.as_ref();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, self.making.file)
            .map(File::from)
            .map_err(|errno| self.failed("create", name, errno))
    }

    /// Opens a file for reading; never follows a link, never blocks on a FIFO.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, never creating it.
    pub fn open_writable(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.open_with(name, OFlags::RDWR)
    }

    fn open_with(&self, name: impl AsRef<OsStr>, flags: OFlags) -> IoResult<File> {
        let name = name.as_ref();
        let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags | safe, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.failed("open", name, errno))
    }

    /// Reads a file of at most `cap` bytes; a longer one gives `cap + 1` bytes, so that the caller
    /// sees it. `None` when it is not there.
    pub fn read(&self, name: impl AsRef<OsStr>, cap: usize) -> IoResult<Option<Vec<u8>>> {
        let name = name.as_ref();
        let Some(file) = absent_is_none(self.open_file(name))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(cap as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| IoError::new("read", self.path_of(name), source))?;
        Ok(Some(bytes))
    }

    /// Creates a file with this content; durable when the spool is.
    pub fn write_new(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> IoResult<()> {
        let name = name.as_ref();
        let mut file = self.create(name)?;
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        self.sync_file(&file, name)
    }

    /// Replaces a file's content at once and without `fsync`: for files that can be derived.
    ///
    /// Only the holder of the lock over `name` may call this: the name of the file in between is
    /// fixed, so that a crash leaves at most one of it.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        let between = format!(".{name}.new");
        let mut file = match self.create(&between) {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                self.unlink(&between)?;
                self.create(&between)?
            }
            made => made?,
        };
        let written = file
            .write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))
            .and_then(|()| {
                rustix::fs::renameat(&self.fd, between.as_str(), &self.fd, name)
                    .map_err(|errno| self.failed("replace", name, errno))
            });
        if written.is_err() {
            // The half-written file must not keep the room that is missing.
            let _ = self.unlink(&between);
        }
        written
    }

    /// Replaces a file's content so that it outlives a power cut: for settings.
    pub fn replace_durably(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        let between = format!(".{name}.new");
        let _ = self.unlink(&between);
        let mut file = self.create(&between)?;
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        file.sync_all()
            .map_err(|source| IoError::new("sync", self.path_of(name), source))?;
        rustix::fs::renameat(&self.fd, between.as_str(), &self.fd, name)
            .map_err(|errno| self.failed("replace", name, errno))?;
        rustix::fs::fsync(&self.fd).map_err(|errno| self.failed("sync", "", errno))
    }

    /// `fsync` of a file in this directory, when the spool is to survive power cuts.
    pub fn sync_file(&self, file: &File, name: impl AsRef<OsStr>) -> IoResult<()> {
        if self.making.sync {
            file.sync_all()
                .map_err(|source| IoError::new("sync", self.path_of(name), source))?;
        }
        Ok(())
    }

    /// `fsync` of this directory, when the spool is to survive power cuts.
    pub fn sync(&self) -> IoResult<()> {
        if self.making.sync {
            rustix::fs::fsync(&self.fd)
                .map_err(|errno| self.failed("sync the folder", "", errno))?;
        }
        Ok(())
    }

    /// Renames into another directory; what is there already is an error, never replaced. (A plain
    /// rename silently replaces an empty folder: SPOOL-SAFETY, measured.)
    pub fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Dir,
        new_name: impl AsRef<OsStr>,
    ) -> IoResult<()> {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE)
            .map_err(|errno| to.failed("move into place", new_name, errno))
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, target: &str, name: impl AsRef<OsStr>) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|errno| self.failed("make the link", name, errno))
    }

    /// Replaces a link (or anything) by another one in this directory.
    pub fn rename_over(
        &self,
        name: impl AsRef<OsStr>,
        new_name: impl AsRef<OsStr>,
    ) -> IoResult<()> {
        let new_name = new_name.as_ref();
        rustix::fs::renameat(&self.fd, name.as_ref(), &self.fd, new_name)
            .map_err(|errno| self.failed("replace", new_name, errno))
    }

    /// Where a link leads, as written in it; `None` when there is none.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> IoResult<Option<OsString>> {
        let name = name.as_ref();
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("read the link", name, errno)),
        }
    }

    /// Removes a file; `false` when it was not there.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        self.remove(name.as_ref(), AtFlags::empty())
    }

    /// Removes an empty folder; `false` when it was not there.
    pub fn remove_empty_dir(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        self.remove(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn remove(&self, name: &OsStr, flags: AtFlags) -> IoResult<bool> {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("remove", name, errno)),
        }
    }

    /// What stands under a name, links not followed; `None` when nothing does.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Stat>> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("look at", name, errno)),
        }
    }

    /// Whether anything stands under a name.
    pub fn has(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        Ok(self.stat(name)?.is_some())
    }

    /// The directory's own stat.
    pub fn own_stat(&self) -> IoResult<Stat> {
        rustix::fs::fstat(&self.fd).map_err(|errno| self.failed("look at", "", errno))
    }

    /// All names in it, in no order. An error half way is an error: a part of a listing would say
    /// "absent" of what it did not reach (SPOOL-SAFETY hazard 26).
    pub fn names(&self) -> IoResult<Vec<OsString>> {
        let mut names = Vec::new();
        self.each_name(|name, _| {
            names.push(OsString::from_vec(name.to_vec()));
            true
        })?;
        Ok(names)
    }

    /// Whether anything at all is in it.
    pub fn is_empty(&self) -> IoResult<bool> {
        let mut empty = true;
        self.each_name(|_, _| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// Calls `visit` with each name's bytes and type until it answers `false`.
    pub fn each_name(&self, mut visit: impl FnMut(&[u8], FileType) -> bool) -> IoResult<()> {
        let failed = |errno| self.failed("list the folder", "", errno);
        let mut listing = rustix::fs::Dir::read_from(&self.fd).map_err(failed)?;
        while let Some(entry) = listing.read() {
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

/// Turns "it is not there" into `None`.
pub fn absent_is_none<T>(result: IoResult<T>) -> IoResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
