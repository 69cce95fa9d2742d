//! Directory operations that say what they were doing, and the few ways a file comes to be.
//!
//! Not the layout (that is `layout.rs`) and not the protocol. Everything goes through an open
//! directory and one component's name, never through a longer path, so no link planted in between
//! can lead elsewhere. Invariants: a file appears complete or not at all under its final name;
//! with `durability = power` what a caller was told is on the disk before it is told.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::io_error::{IoError, IoResult};

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

const EXT4: u32 = 0xef53;
const XFS: u32 = 0x5846_5342;
const BTRFS: u32 = 0x9123_683e;
const BCACHEFS: u32 = 0xca45_1a4e;
const F2FS: u32 = 0xf2f5_2010;

/// Of lock files, whoever shares the spool.
pub(super) const LOCK_MODE: Mode = Mode::from_bits_retain(0o600);

/// Access lists (acl(5)): of a folder, and of what is made in it.
const ACCESS_LISTS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

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

    /// Its own name in the folder above it.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// The open folder as a file, which can be locked.
    pub fn into_file(self) -> File {
        File::from(self.fd)
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

    /// The same directory under the path it was moved to.
    pub fn moved_to(mut self, path: PathBuf) -> Dir {
        self.path = path;
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

    /// Opens a directory in this one, or says that there is none; a link or a file in its place is
    /// none.
    pub fn find_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        match self.open_dir(name) {
            Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(None),
            opened => absent_is_none(opened),
        }
    }

    /// Makes a directory; one that is there is an error.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        rustix::fs::mkdirat(&self.fd, name, self.making.dir)
            .map_err(|errno| self.failed("make the folder", name, errno))?;
        self.open_dir(name)
    }

    /// Makes a directory for its owner alone, whatever the others in this one are.
    pub fn make_private_dir(&self, name: impl AsRef<OsStr>) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::mkdirat(&self.fd, name, Mode::RWXU)
            .map_err(|errno| self.failed("make the folder", name, errno))
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

    /// Gives its owner all rights in it, where they were taken away: best effort, what then follows
    /// tells.
    pub(super) fn give_rights(&self) {
        if let Ok(stat) = rustix::fs::fstat(&self.fd)
            && stat.st_mode & 0o700 != 0o700
        {
            let _ = rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(stat.st_mode) | Mode::RWXU);
        }
    }

    /// Gives a thing in this directory to a group.
    pub fn set_group(&self, name: impl AsRef<OsStr>, gid: u32) -> IoResult<()> {
        let name = name.as_ref();
        let gid = rustix::fs::Gid::from_raw(gid);
        rustix::fs::chownat(&self.fd, name, None, Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("set the group of", name, errno))
    }

    /// Whether named users or groups have a right in it, or to all that is made in it.
    pub(super) fn has_access_list(&self) -> bool {
        let mut lists = ACCESS_LISTS.iter();
        lists.any(|list| rustix::fs::fgetxattr(&self.fd, *list, &mut [0u8; 0][..]).is_ok())
    }

    /// Takes away what gives named users and groups a right in it, or to all that is made in it.
    pub(super) fn remove_access_lists(&self) -> IoResult<()> {
        for list in ACCESS_LISTS {
            // What has none may be read-only.
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

    /// Creates a file that must not be there yet.
    pub fn create(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Creates an empty file, or leaves the one that is there.
    pub fn touch(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens a lock file, and makes it where it is not there. It is its owner's alone, in a group
    /// spool too: who can open a file can lock it.
    pub fn lock_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_as(name, OFlags::RDWR | OFlags::CREATE, LOCK_MODE)
    }

    /// Makes a lock file that must not be there yet.
    pub fn create_lock(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_as(
            name,
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            LOCK_MODE,
        )
    }

    /// Creates or opens a file whose writes always go to its end.
    pub fn append(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
    }

    /// Creates a file that must not be there yet, whose writes always go to its end.
    pub fn create_log(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
        self.create_with(name, flags)
    }

    fn create_with(&self, name: impl AsRef<OsStr>, flags: OFlags) -> IoResult<File> {
        self.create_as(name, flags, self.making.file)
    }

    fn create_as(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> IoResult<File> {
        let name = name.as_ref();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, mode)
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
        let failed = |source| IoError::new("read", self.path_of(name), source);
        // With the size known beforehand a small file takes one read and not six.
        let size = file.metadata().map_err(failed)?.len();
        let size = usize::try_from(size).unwrap_or(cap).min(cap);
        let mut bytes = Vec::with_capacity(size + 1);
        file.take(cap as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Creates a file with this content; durable when the spool is.
    pub fn write_new(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> IoResult<()> {
        let name = name.as_ref();
        let file = self.create_unsynced(name, bytes)?;
        self.sync_file(&file, name)
    }

    /// Creates a file with this content, for what can be derived or is synced later.
    pub fn create_unsynced(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> IoResult<File> {
        let name = name.as_ref();
        let mut file = self.create(name)?;
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        Ok(file)
    }

    /// Replaces a file's content at once and without `fsync`: for files that can be derived.
    ///
    /// Only the holder of the lock over `name` may call this: the name of the file in between is
    /// fixed, so that a crash leaves at most one of it.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.write_between(name, bytes, |between| {
            rustix::fs::renameat(&self.fd, between, &self.fd, name)
        })
    }

    /// The same for a file that is replaced once or twice in its life: what it said before stays
    /// under the name of the file in between until the next time.
    ///
    /// Two things that ext4 does to a rename over a file cost more than all the rest of a short
    /// task (docs/design/0020): the new content is sent to the disk at once, and the old inode,
    /// being deleted, makes each later creation in its group slower for a minute.
    pub fn exchange(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.write_between(name, bytes, |between| {
            let flags = RenameFlags::EXCHANGE;
            match rustix::fs::renameat_with(&self.fd, between, &self.fd, name, flags) {
                // Nothing to exchange it with, or a file system that cannot.
                Err(Errno::NOENT | Errno::INVAL) => {
                    rustix::fs::renameat(&self.fd, between, &self.fd, name)
                }
                done => done,
            }
        })
    }

    /// Writes a file under the name in between, then puts it in its place.
    fn write_between(
        &self,
        name: &str,
        bytes: &[u8],
        place: impl FnOnce(&str) -> Result<(), Errno>,
    ) -> IoResult<()> {
        let between = format!(".{name}.new");
        let mut file = match self.create(&between) {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                self.remove_anything(&between)?;
                self.create(&between)?
            }
            made => made?,
        };
        let written = file
            .write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))
            .and_then(|()| place(&between).map_err(|errno| self.failed("replace", name, errno)));
        if written.is_err() {
            // The half-written file must not keep the room that is missing.
            let _ = self.unlink(&between);
        }
        written
    }

    /// Replaces a file's content so that it outlives a power cut: for settings.
    pub fn replace_durably(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.replace_durably_as(name, bytes, self.making.file, None)
    }

    /// The same with a mode, whatever the umask, and a group: the file has both before it has its name.
    pub(super) fn replace_durably_as(
        &self,
        name: &str,
        bytes: &[u8],
        mode: Mode,
        gid: Option<u32>,
    ) -> IoResult<()> {
        let between = format!(".{name}.new");
        let _ = self.unlink(&between);
        let mut file = self.create(&between)?;
        if let Some(gid) = gid {
            self.set_group(&between, gid)?;
        }
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        rustix::fs::fchmod(&file, mode)
            .map_err(|errno| self.failed("set the mode of", name, errno))?;
        file.sync_all()
            .map_err(|source| IoError::new("sync", self.path_of(name), source))?;
        rustix::fs::renameat(&self.fd, between.as_str(), &self.fd, name)
            .map_err(|errno| self.failed("replace", name, errno))?;
        self.sync_now()
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
            self.sync_now()?;
        }
        Ok(())
    }

    /// `fsync` of this directory. XFS answers 0 to it after it was shut down by an error, when
    /// nothing reaches the disk any more; then it refuses to say anything of the folder.
    pub(super) fn sync_now(&self) -> IoResult<()> {
        rustix::fs::fsync(&self.fd)
            .and_then(|()| rustix::fs::fstat(&self.fd))
            .map(|_| ())
            .map_err(|errno| self.failed("sync the folder", "", errno))
    }

    /// Whether [`Dir::sync_whole`] makes all files of this file system durable: known of the local
    /// ones, and not true of what a program serves (FUSE), which is not told of it.
    pub fn has_whole_sync(&self) -> IoResult<bool> {
        Ok([EXT4, XFS, BTRFS, F2FS].contains(&self.file_system()?))
    }

    /// Whether a file's `fsync` also makes its last rename durable. Measured by power cuts: of ext4
    /// and XFS, which have one log for both; nothing else was tried.
    pub fn keeps_renames_of_synced_files(&self) -> IoResult<bool> {
        Ok([EXT4, XFS].contains(&self.file_system()?))
    }

    /// Whether inode numbers repeat within the file system, as they do in the subvolumes of btrfs.
    pub fn repeats_inodes(&self) -> IoResult<bool> {
        Ok([BTRFS, BCACHEFS].contains(&self.file_system()?))
    }

    /// The file system's magic number, as in statfs(2).
    fn file_system(&self) -> IoResult<u32> {
        let stat = rustix::fs::fstatfs(&self.fd)
            .map_err(|errno| self.failed("look at the file system of", "", errno))?;
        Ok(stat.f_type as u32)
    }

    /// Instead of one `fsync` for each of many files: `syncfs` of all there is, also of what others
    /// wrote. From Linux 5.8 on it tells of what could not be written.
    pub fn sync_whole(&self) -> IoResult<()> {
        if self.making.sync {
            rustix::fs::syncfs(&self.fd)
                .and_then(|()| rustix::fs::fstat(&self.fd))
                .map_err(|errno| self.failed("sync the file system of", "", errno))?;
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
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            Err(Errno::BUSY) => Err(super::tree::mounted("move", self.path_of(name))),
            moved => moved.map_err(|errno| to.failed("move into place", new_name, errno)),
        }
    }

    /// Renames into another directory, over what is there.
    pub fn rename_into(&self, name: &str, to: &Dir, new_name: &str) -> IoResult<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|errno| to.failed("move into place", new_name, errno))
    }

    /// Makes a name that says something by being there, as a link to an empty file of ours: that
    /// takes no inode, and none is deleted when the name goes. Where it cannot be one (another
    /// owner's file, a file system without links) it is an empty file; one that is there is left.
    pub fn mark(&self, name: impl AsRef<OsStr>, from: &Dir, empty: &str) -> IoResult<()> {
        let name = name.as_ref();
        match rustix::fs::linkat(&from.fd, empty, &self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(_) => self.touch(name).map(|_| ()),
        }
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
            // Nothing there, or no link.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(self.failed("read the link", name, errno)),
        }
    }

    /// Removes a file; `false` when it was not there.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        self.remove(name.as_ref(), AtFlags::empty())
    }

    /// Removes what stands under a name of ours, also where somebody put a folder there.
    pub fn remove_anything(&self, name: &str) -> IoResult<()> {
        match self.unlink(name) {
            Err(error) if matches!(error.errno(), Some(Errno::ISDIR | Errno::PERM)) => {
                self.remove_tree(name).map(|_| ())
            }
            removed => removed.map(|_| ()),
        }
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

    /// The number of the mount it lies on (statx(2), from Linux 5.8 on): two mounts of one file system
    /// have the same device.
    pub fn mount(&self) -> IoResult<u64> {
        rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .map(|stat| stat.stx_mnt_id)
            .map_err(|errno| self.failed("look at", "", errno))
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
        /// As much as the C library reads at once.
        const AT_ONCE: usize = 32 << 10;
        let failed = |errno| self.failed("list the folder", "", errno);
        // Anew, because where a listing stands belongs to the open folder.
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

/// Turns "it is not there" into `None`.
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

    /// Somebody who may write above an open folder puts a link to another one in its place.
    #[test]
    fn what_is_removed_is_what_was_opened() {
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
        // Nor does a link in the last place lead anywhere.
        root.remove_tree("task").unwrap();
        assert!(place.path().join("precious/1/file").exists());
    }

    #[test]
    fn what_is_no_folder_is_no_folder() {
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
