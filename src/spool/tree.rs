//! Removing a folder with all that is in it.
//!
//! Not the decision to (`trash.rs`, and whoever holds the lock). Every level is opened relative to
//! the one above, and its size is taken in the same walk. Invariants: no link is followed and no
//! mount is entered, also if somebody puts one into the tree meanwhile; what somebody moves out of
//! the tree is not removed at its new place; neither the depth of a tree nor a folder that forbids
//! its owner to write (as Go's module cache has them) keeps it from going. What must stay, as a
//! mount, does not keep the rest from going.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;

use super::below::{LISTING_BYTES, open_below};
use super::durable::Dir;
use super::io_error::{IoError, IoResult};
use super::layout::random_bits;

/// An open folder a level: far below any limit of open files.
const DEEPEST: usize = 100;
/// How often the file that a claimer puts back is removed again.
const LAST_TRIES: u32 = 3;

/// Why something of a tree was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error(
        "it is a mount point, and what is mounted there is kept: unmount it (`umount`), and the next sweep removes the rest"
    )]
    Mounted,
    #[error("{first} (and {more} more in the same folder were left)")]
    Several { first: std::io::Error, more: usize },
}

/// What came of removing a tree.
#[derive(Debug)]
pub struct Removed {
    /// The disk that became free, in bytes.
    pub bytes: u64,
    /// What was left, and why.
    pub left: Option<IoError>,
}

/// The error for a mount that stands where something is to be moved away.
pub(super) fn mounted(doing: &'static str, path: PathBuf) -> IoError {
    IoError::new(doing, path, std::io::Error::other(Left::Mounted))
}

impl Removed {
    /// The bytes, where nothing was left.
    pub fn whole(self) -> IoResult<u64> {
        self.left.map_or(Ok(self.bytes), Err)
    }
}

/// Device and inode: a folder whatever its name.
type Which = (u64, u64);

/// One removal.
struct Walk<'a> {
    /// The folder in which the tree stands.
    top: &'a Dir,
    /// Where folders go that lie too deep.
    deep_into: &'a Dir,
    /// Those that stand there now.
    deep: Vec<OsString>,
    /// The folder that is being removed, and the one in which it stands.
    root: Which,
    root_in: Which,
    /// Names from `top` to where we are, for messages.
    at: Vec<OsString>,
    has_moved: bool,
    /// The folder that was last seen below the tree's own.
    seen_below: Cell<Option<i32>>,
    bytes: u64,
    left: Option<IoError>,
    more: usize,
}

/// One open folder of the tree.
struct Level<'a> {
    folder: BorrowedFd<'a>,
    /// 0 is the folder in which the tree stands, 1 the tree's own.
    depth: usize,
    /// The way up to the tree's folder, and to the one in which it stands.
    up: Option<(CString, CString)>,
}

impl<'a> Level<'a> {
    fn top(top: &'a Dir) -> Level<'a> {
        Level {
            folder: top.as_fd(),
            depth: 0,
            up: None,
        }
    }

    fn below(&self, folder: BorrowedFd<'a>) -> Level<'a> {
        let to_root = format!(".{}", "/..".repeat(self.depth));
        let to_top = format!("{to_root}/..");
        let up = CString::new(to_root).ok().zip(CString::new(to_top).ok());
        Level {
            folder,
            depth: self.depth + 1,
            up,
        }
    }
}

impl Dir {
    /// Removes what stands under a name, a folder with all below it; the disk it took, in bytes.
    /// Nothing there is nothing to do.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        Walk::new(self, self)
            .finish(vec![name.as_ref().to_owned()])
            .whole()
    }

    /// The same; a folder that lies too deep is moved into another one, whose owner finds it there
    /// if this is cut off.
    pub fn remove_tree_by(&self, name: impl AsRef<OsStr>, deep_into: &Dir) -> IoResult<u64> {
        Walk::new(self, deep_into)
            .finish(vec![name.as_ref().to_owned()])
            .whole()
    }

    /// The same for a folder that is open and stands under a name in this one.
    pub fn remove_open_tree(&self, name: impl AsRef<OsStr>, folder: &Dir) -> Removed {
        let name = name.as_ref();
        let mut walk = Walk::new(self, self);
        walk.at.push(name.to_owned());
        walk.remove_open(name, folder, &[]);
        walk.at.pop();
        walk.finish(Vec::new())
    }

    /// The same where the folder cannot be moved away first: what is named in `last` goes after all
    /// else, in that order, and only if nothing else is left.
    pub fn remove_in_place(
        &self,
        name: impl AsRef<OsStr>,
        folder: &Dir,
        last: &[&str],
        deep_into: &Dir,
    ) -> Removed {
        let name = name.as_ref();
        let mut walk = Walk::new(self, deep_into);
        walk.at.push(name.to_owned());
        match is_below(self, name, folder) {
            Ok(()) => walk.remove_open(name, folder, last),
            Err(errno) => walk.leave(errno),
        }
        walk.at.pop();
        walk.finish(Vec::new())
    }
}

/// Whether an open folder stands under this name, on the same mount.
fn is_below(parent: &Dir, name: &OsStr, folder: &Dir) -> Result<(), Errno> {
    let entry = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let there = open_below(parent.as_fd(), &entry, OFlags::PATH)?;
    let (there, ours) = (rustix::fs::fstat(&there)?, rustix::fs::fstat(folder)?);
    if which(&there) == which(&ours) {
        Ok(())
    } else {
        Err(Errno::NOENT)
    }
}

impl<'a> Walk<'a> {
    fn new(top: &'a Dir, deep_into: &'a Dir) -> Walk<'a> {
        Walk {
            top,
            deep_into,
            deep: Vec::new(),
            root: (0, 0),
            root_in: (0, 0),
            at: Vec::new(),
            has_moved: false,
            seen_below: Cell::new(None),
            bytes: 0,
            left: None,
            more: 0,
        }
    }

    /// Removes these and whatever was found too deep in them.
    fn finish(mut self, names: Vec<OsString>) -> Removed {
        for name in names {
            self.remove_named(&name);
        }
        self.top = self.deep_into;
        while let Some(name) = self.deep.pop() {
            self.remove_named(&name);
        }
        let (more, bytes) = (self.more, self.bytes);
        let left = self.left.map(|first| match more {
            0 => first,
            more => {
                let IoError {
                    doing,
                    path,
                    source: first,
                } = first;
                IoError::new(
                    doing,
                    path,
                    std::io::Error::other(Left::Several { first, more }),
                )
            }
        });
        Removed { bytes, left }
    }

    fn remove_named(&mut self, name: &OsStr) {
        let top = self.top;
        match CString::new(name.as_bytes()) {
            Ok(entry) => {
                self.remove(&Level::top(top), &entry, FileType::Unknown);
            }
            Err(_) => self.leave(Errno::INVAL),
        }
    }

    /// Removes the tree whose own folder is open.
    fn remove_open(&mut self, name: &OsStr, folder: &Dir, last: &[&str]) {
        let (top, Ok(entry)) = (self.top, CString::new(name.as_bytes())) else {
            return self.leave(Errno::INVAL);
        };
        let stat = match rustix::fs::fstat(folder) {
            Ok(stat) => stat,
            Err(errno) => return self.leave(errno),
        };
        self.root = which(&stat);
        self.root_in = match rustix::fs::fstat(top) {
            Ok(stat) => which(&stat),
            Err(errno) => return self.leave(errno),
        };
        let (above, level) = (Level::top(top), Level::top(top).below(folder.as_fd()));
        let removed = self
            .empty(&level, last)
            .and_then(|is_empty| match is_empty {
                true => self.remove_last(&above, &entry, &level, last),
                false => Ok(()),
            });
        match removed {
            Ok(()) if self.left.is_none() => self.bytes += bytes_of(&stat),
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => self.leave(errno),
        }
    }

    /// Removes what goes last, and the folder itself. Somebody who looks for a task's lock in this
    /// moment may make it anew, so it is removed once more.
    fn remove_last(
        &mut self,
        above: &Level<'_>,
        entry: &CStr,
        level: &Level<'_>,
        last: &[&str],
    ) -> Result<(), Errno> {
        let mut tries = LAST_TRIES;
        loop {
            for name in last {
                let name = CString::new(*name).map_err(|_| Errno::INVAL)?;
                self.remove(level, &name, FileType::Unknown);
                if self.left.is_some() {
                    return Ok(());
                }
            }
            tries -= 1;
            match self.unlink(above, entry, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if tries > 0 && !last.is_empty() => {}
                removed => return removed,
            }
        }
    }

    /// Removes one thing; whether it is gone. Somebody else may be removing the same tree, as
    /// `clear` and a sweep that meet in trash/: what is gone is gone.
    fn remove(&mut self, level: &Level<'_>, name: &CStr, kind: FileType) -> bool {
        self.at.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        let is_gone = match self.remove_what_is_there(level, name, kind) {
            Ok(is_gone) => is_gone,
            Err(Errno::NOENT) => true,
            Err(errno) => {
                self.leave(errno);
                false
            }
        };
        self.at.pop();
        is_gone
    }

    /// `kind` is what the listing says, which not every file system does. `false` when something in
    /// it was left.
    fn remove_what_is_there(
        &mut self,
        level: &Level<'_>,
        name: &CStr,
        kind: FileType,
    ) -> Result<bool, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let look = || rustix::fs::statat(level.folder, name, flags);
        let stat = match kind {
            FileType::Directory => None,
            _ => Some(permitted(level, look)?),
        };
        let is_folder = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.is_none_or(is_folder) {
            match self.remove_folder(level, name) {
                // Something else took its place in between.
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                removed => return removed,
            }
        }
        self.unlink(level, name, AtFlags::empty())?;
        self.bytes += stat.as_ref().map_or(0, bytes_of);
        Ok(true)
    }

    fn remove_folder(&mut self, level: &Level<'_>, name: &CStr) -> Result<bool, Errno> {
        if level.depth == DEEPEST {
            match self.bring_up(level, name) {
                // overlayfs moves no folder of a lower layer: only the way down is left.
                Err(Errno::XDEV) => {}
                brought => return brought.map(|()| true),
            }
        }
        let folder = permitted(level, || open_shut_or_not(level.folder, name))?;
        let stat = rustix::fs::fstat(&folder)?;
        if level.depth == 0 {
            self.root = which(&stat);
            self.root_in = which(&rustix::fs::fstat(level.folder)?);
        }
        match self.empty(&level.below(folder.as_fd()), &[]) {
            Ok(true) | Err(Errno::NOENT) => {}
            Ok(false) => return Ok(false),
            Err(errno) => return Err(errno),
        }
        self.unlink(level, name, AtFlags::REMOVEDIR)?;
        self.bytes += bytes_of(&stat);
        Ok(true)
    }

    /// Removes everything but what is to go last; whether nothing else is left.
    fn empty(&mut self, level: &Level<'_>, last: &[&str]) -> Result<bool, Errno> {
        // Numbers of open files are used again.
        self.seen_below.set(None);
        let mut is_empty = true;
        let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(level.folder, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            let is_last = last.iter().any(|last| last.as_bytes() == name.to_bytes());
            if name != c"." && name != c".." && !is_last {
                is_empty &= self.remove(level, name, entry.file_type());
            }
            if self.has_moved && !self.is_in_place(level)? {
                break;
            }
        }
        Ok(is_empty)
    }

    /// Removes one name from a folder that is still a part of the tree.
    fn unlink(&mut self, level: &Level<'_>, name: &CStr, how: AtFlags) -> Result<(), Errno> {
        let mut is_in_place = true;
        let removed = permitted(level, || {
            is_in_place = self.is_in_place(level)?;
            if !is_in_place {
                return Err(Errno::NOENT);
            }
            rustix::fs::unlinkat(level.folder, name, how)
        });
        self.has_moved |= !is_in_place;
        removed
    }

    /// Whether a folder is still so many levels below the tree's own folder, and that one where it
    /// was. Somebody may move one of them away while we are in it.
    fn is_in_place(&self, level: &Level<'_>) -> Result<bool, Errno> {
        let Some((to_root, to_top)) = &level.up else {
            return Ok(true);
        };
        let above = |way: &CString| {
            rustix::fs::statat(level.folder, way, AtFlags::empty()).map(|stat| which(&stat))
        };
        if above(to_top)? != self.root_in {
            return Ok(false);
        }
        // Nearly always the last answer holds: only a folder that moves to another tree beside this one,
        // at the same depth, would be seen by nothing but this.
        let folder = level.folder.as_raw_fd();
        if self.seen_below.get() == Some(folder) {
            return Ok(true);
        }
        self.seen_below.set(Some(folder));
        Ok(above(to_root)? == self.root)
    }

    /// Moves a folder that lies too deep to where it is the next tree to remove.
    fn bring_up(&mut self, level: &Level<'_>, name: &CStr) -> Result<(), Errno> {
        if !self.is_in_place(level)? {
            self.has_moved = true;
            return Err(Errno::NOENT);
        }
        let up = OsString::from(format!("deep.{:016x}", random_bits() as u64));
        let (from, to) = (level.folder, self.deep_into);
        rustix::fs::renameat_with(from, name, to, &up, RenameFlags::NOREPLACE)?;
        self.deep.push(up);
        Ok(())
    }

    /// Notes what stays; the rest is removed all the same.
    fn leave(&mut self, errno: Errno) {
        if self.left.is_some() {
            self.more += 1;
            return;
        }
        let path = self.at.iter().collect::<PathBuf>();
        let why = match errno {
            Errno::XDEV | Errno::BUSY => std::io::Error::other(Left::Mounted),
            errno => errno.into(),
        };
        self.left = Some(IoError::new("remove", self.top.path().join(path), why));
    }
}

fn which(stat: &Stat) -> Which {
    (stat.st_dev, stat.st_ino)
}

/// The disk that something takes.
fn bytes_of(stat: &Stat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

/// Does something in a folder, if need be after giving its owner the right to; the folder in which a
/// tree stands is not part of it and stays as it is.
fn permitted<T>(level: &Level<'_>, mut act: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match act() {
        Err(Errno::ACCESS) if level.depth > 0 => {
            rustix::fs::fchmod(level.folder, Mode::RWXU)?;
            act()
        }
        done => done,
    }
}

fn open_shut_or_not(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match open_below(parent, name, OFlags::RDONLY) {
        Err(Errno::ACCESS) => open_after_all(parent, name),
        opened => opened,
    }
}

/// Opens a folder of ours that may not even be listed. Its mode is set through a handle of exactly
/// this folder: a name could be a link by then.
fn open_after_all(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let handle = open_below(parent, name, OFlags::PATH)?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    open_below(parent, name, OFlags::RDONLY)
}
