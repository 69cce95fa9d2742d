//! What is below a folder, on the same mount.
//!
//! How one level is opened, and how the size and age of a tree are measured. Not the removal (`tree.rs`).
//! Invariant: no link is followed and no other mount is entered, not even a bind mount of the same file
//! system, which has the same device number.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Statx, StatxFlags,
};
use rustix::io::Errno;

use super::dir::Dir;
use super::error::{IoError, IoResult};

pub(in crate::spool) const LISTING_BYTES: usize = 4096;
/// A walk holds one open folder for each level. Deeper folders are not counted: tools that use paths cannot
/// reach them either.
const DEEPEST_WALK: usize = 400;

/// Opens a folder in another one. A link is refused with `LOOP` or `NOTDIR`, and a mount with `XDEV`.
pub(in crate::spool) fn open_below(
    parent: BorrowedFd<'_>,
    name: &CStr,
    access: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_in(parent, name, flags)
}

/// Opens a file in a folder, by the rules of [`open_below`].
fn open_file_below(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open_in(parent, name, OFlags::RDWR | safe)
}

fn open_in(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // The kernel is old, or the system call filter of a container does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_and_compare(parent, name, flags),
        opened => opened,
    }
}

/// The metadata of an entry. A link is not followed. A mount is refused with `XDEV`, without a request to its
/// file system: a FUSE mount can block a process for any time.
pub(in crate::spool) fn stat_below(parent: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(handle) => rustix::fs::fstat(handle),
        // Opening this handle makes no request to the mounted file system.
        Err(Errno::NOSYS | Errno::PERM) => {
            let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            if mount_by_fdinfo(handle.as_raw_fd())? != mount_by_fdinfo(parent.as_raw_fd())? {
                return Err(Errno::XDEV);
            }
            rustix::fs::fstat(handle)
        }
        Err(errno) => Err(errno),
    }
}

fn open_and_compare(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    if mount_of(opened.as_fd())? == mount_of(parent)? {
        Ok(opened)
    } else {
        Err(Errno::XDEV)
    }
}

/// The number of the mount through which a folder was opened.
fn mount_of(folder: BorrowedFd<'_>) -> Result<u64, Errno> {
    let about = rustix::fs::statx(folder, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    if let Ok(about) = about
        && let Some(mount) = mount_in(&about)
    {
        return Ok(mount);
    }
    // Before Linux 5.8 the number is only in this file.
    mount_by_fdinfo(folder.as_raw_fd())
}

/// The mount number of an open file or folder, without a request to its file system.
pub(in crate::spool) fn mount_by_fdinfo(open: RawFd) -> Result<u64, Errno> {
    let info = crate::proc::read_text(format!("/proc/self/fdinfo/{open}"));
    let info = info.ok_or(Errno::NOSYS)?;
    let line = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or(Errno::NOSYS)
}

fn mount_in(about: &Statx) -> Option<u64> {
    let mask = StatxFlags::from_bits_retain(about.stx_mask);
    mask.contains(StatxFlags::MNT_ID)
        .then_some(about.stx_mnt_id)
}

/// Opens a file or folder of this user. If its owner may not open it, its mode is fixed first, through a
/// handle of exactly this file or folder.
fn open_ours(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let denied = match open_in(parent, name, flags) {
        Err(Errno::ACCESS) => Errno::ACCESS,
        opened => return opened,
    };
    let handle = open_in(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
    )?;
    let stat = rustix::fs::fstat(&handle)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(denied);
    }
    let rights = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Mode::RWXU,
        FileType::RegularFile => Mode::RUSR | Mode::WUSR,
        _ => return Err(denied),
    };
    let mode = Mode::from_raw_mode(stat.st_mode) | rights;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?;
    open_in(parent, name, flags)
}

impl Dir {
    /// Opens a folder in this one. A mount point is an error. `None` if it does not exist or is not a folder.
    pub(in crate::spool) fn find_dir_here(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        let name = name.as_ref();
        match self.open_ours_here(name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => Ok(Some(Dir {
                fd,
                path: self.path_of(name),
                making: self.making,
            })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.failed("open the folder", name, errno)),
        }
    }

    /// Opens a file in this folder, to read it. A mount point is an error. `None` if it does not exist, or is
    /// not a file that can be opened.
    pub(in crate::spool) fn find_file_here(
        &self,
        name: impl AsRef<OsStr>,
    ) -> IoResult<Option<File>> {
        let name = name.as_ref();
        match self.open_ours_here(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(errno) => Err(self.failed("open", name, errno)),
        }
    }

    fn open_ours_here(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        let entry = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_ours(self.as_fd(), &entry, flags)
    }

    /// Whether something is mounted on the entry with this name. No request is made to its file system,
    /// because one that does not answer would block us.
    pub(in crate::spool) fn is_mount_point(&self, name: &str) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = CString::new(name).map_err(|_| Errno::INVAL);
        let opened = entry.and_then(|entry| open_in(self.as_fd(), &entry, flags));
        matches!(opened, Err(Errno::XDEV))
    }

    /// Opens a file to shorten it. A mounted file is an error.
    pub(in crate::spool) fn open_to_cut(&self, name: &str) -> IoResult<File> {
        let entry = CString::new(name).map_err(|_| Errno::INVAL);
        entry
            .and_then(|entry| open_file_below(self.as_fd(), &entry))
            .map(File::from)
            .map_err(|errno| IoError::new("open", self.path_of(name), errno))
    }

    /// The disk space that this folder takes with all its content, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        let mut bytes = 0;
        self.each_below(&mut |about| bytes += about.stx_blocks * 512);
        bytes
    }

    /// The time of the last change in this folder or below it, in seconds since the epoch.
    pub fn newest_change(&self) -> i64 {
        let mut newest = 0;
        self.each_below(&mut |about| newest = newest.max(about.stx_mtime.tv_sec));
        newest
    }

    /// Visits this folder and everything below it. What cannot be read is skipped.
    fn each_below(&self, visit: &mut dyn FnMut(&Statx)) {
        let Ok(own) = about(self.as_fd(), c"") else {
            return;
        };
        visit(&own);
        if let Ok(folder) = open_below(self.as_fd(), c".", OFlags::RDONLY) {
            walk(folder.as_fd(), mount_in(&own), DEEPEST_WALK, visit);
        }
    }
}

fn about(folder: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(folder, name, flags, wanted)
}

fn walk(folder: BorrowedFd<'_>, mount: Option<u64>, levels: usize, visit: &mut dyn FnMut(&Statx)) {
    let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
    let mut listing = RawDir::new(folder, &mut buffer);
    while let Some(Ok(entry)) = listing.next() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(about) = about(folder, name) else {
            continue;
        };
        if mount_in(&about) != mount {
            continue;
        }
        visit(&about);
        let kind = FileType::from_raw_mode(about.stx_mode.into());
        if kind == FileType::Directory
            && levels > 0
            && let Ok(inner) = open_below(folder, name, OFlags::RDONLY)
        {
            walk(inner.as_fd(), mount, levels - 1, visit);
        }
    }
}
