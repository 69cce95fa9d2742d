//! Removing a folder with all that is in it.
//!
//! Not the decision to (`trash.rs`, and whoever holds the lock). Every level is opened relative to
//! the one above, and its size is taken in the same walk. Invariants: no link is followed and no
//! mount is entered, also if somebody puts one into the tree meanwhile; what somebody moves out of
//! the tree is not removed at its new place; neither the depth of a tree nor a folder that forbids
//! its owner to write (as Go's module cache has them) keeps it from going. What must stay, as a
//! mount, does not keep the rest from going.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, RenameFlags, Stat};
use rustix::io::Errno;

use super::below::{LISTING_BYTES, open_below};
use super::dir::Dir;
use super::error::{IoError, IoResult};
use super::random_bits;
use super::way_up::{Which, above, which};

/// So many folders are held open at once, from the deepest upwards: far below any limit of open files.
const HELD: usize = 100;
/// So many folders of one folder are remembered before they are gone into.
const FOLDERS_AT_ONCE: usize = 10_000;
/// A message names so many folders of a path.
const SHOWN: usize = 20;
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
pub(in crate::spool) fn mounted(doing: &'static str, path: PathBuf) -> IoError {
    IoError::new(doing, path, std::io::Error::other(Left::Mounted))
}

impl Removed {
    /// The bytes, where nothing was left.
    pub fn whole(self) -> IoResult<u64> {
        self.left.map_or(Ok(self.bytes), Err)
    }
}

/// One removal.
struct Walk<'a> {
    /// The folder in which the tree stands.
    top: &'a Dir,
    /// Where folders go that lie too deep.
    deep_into: &'a Dir,
    /// Those that stand there now.
    deep: Vec<OsString>,
    /// Those that were moved up within the tree, and to which level.
    raised: Vec<(usize, CString)>,
    /// Whether all that stands beside the tree is to be removed as well.
    is_in_trash: bool,
    /// The folder that is being removed, and the one in which it stands.
    root: Which,
    root_in: Which,
    /// Names from `top` to where we are, for messages.
    at: Vec<OsString>,
    has_moved: bool,
    /// Whether this folder was seen below the tree's own since we came to it.
    is_seen_below: bool,
    bytes: u64,
    left: Option<IoError>,
    more: usize,
}

/// Where something is done: an open folder, and how deep it is. 0 is the folder in which the tree
/// stands, 1 the tree's own.
#[derive(Clone, Copy)]
struct Place<'f> {
    folder: BorrowedFd<'f>,
    depth: usize,
}

enum Held<'a> {
    Ours(OwnedFd),
    Given(BorrowedFd<'a>),
    /// It lies too far above: it is opened again on the way back.
    Closed,
}

/// A folder of the tree that we are in, or below.
struct Level<'a> {
    folder: Held<'a>,
    which: Which,
    name: CString,
    bytes: u64,
    /// Its folders that are still to be gone into.
    folders: Vec<CString>,
    is_listed: bool,
    is_empty: bool,
}

impl Level<'_> {
    fn new<'a>(folder: Held<'a>, name: &CStr, stat: &Stat) -> Level<'a> {
        Level {
            folder,
            which: which(stat),
            name: name.to_owned(),
            bytes: bytes_of(stat),
            folders: Vec::new(),
            is_listed: false,
            is_empty: true,
        }
    }

    fn place(&self, depth: usize) -> Result<Place<'_>, Errno> {
        let folder = match &self.folder {
            Held::Ours(folder) => folder.as_fd(),
            Held::Given(folder) => *folder,
            Held::Closed => return Err(Errno::BADF),
        };
        Ok(Place { folder, depth })
    }
}

impl Dir {
    /// Removes what stands under a name, a folder with all below it; the disk it took, in bytes.
    /// Nothing there is nothing to do.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        self.remove_tree_by(name, self)
    }

    /// The same; a folder that lies too deep is moved into another one, whose owner finds it there
    /// if this is cut off.
    pub fn remove_tree_by(&self, name: impl AsRef<OsStr>, deep_into: &Dir) -> IoResult<u64> {
        Walk::new(self, deep_into)
            .finish(vec![name.as_ref().to_owned()])
            .whole()
    }

    /// The same in `trash/`, where all that stands beside it is to be removed as well.
    pub fn remove_from_trash(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        let mut walk = Walk::new(self, self);
        walk.is_in_trash = true;
        walk.finish(vec![name.as_ref().to_owned()]).whole()
    }

    /// The same for a folder that is open and stands under a name in `trash/`.
    pub fn remove_open_from_trash(&self, name: impl AsRef<OsStr>, folder: &Dir) -> Removed {
        let mut walk = Walk::new(self, self);
        walk.is_in_trash = true;
        walk.remove_open(name.as_ref(), folder, &[], &mut || Ok(()));
        walk.finish(Vec::new())
    }

    /// The same where the folder cannot be moved away first: what is named in `last` goes after all
    /// else, in that order, and only if nothing else is left and `before_last` succeeds.
    pub fn remove_in_place(
        &self,
        name: impl AsRef<OsStr>,
        folder: &Dir,
        last: &[&str],
        deep_into: &Dir,
        before_last: &mut dyn FnMut() -> IoResult<()>,
    ) -> Removed {
        let name = name.as_ref();
        let mut walk = Walk::new(self, deep_into);
        match is_below(self, name, folder) {
            Ok(()) => walk.remove_open(name, folder, last, before_last),
            Err(errno) => {
                walk.at.push(name.to_owned());
                walk.leave(errno);
            }
        }
        walk.at.clear();
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
            raised: Vec::new(),
            root: (0, 0),
            root_in: (0, 0),
            at: Vec::new(),
            is_in_trash: false,
            has_moved: false,
            is_seen_below: false,
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
        self.at.push(name.to_owned());
        let removed = match CString::new(name.as_bytes()) {
            Ok(entry) => self.remove_entry(&entry),
            Err(_) => Err(Errno::INVAL),
        };
        self.note(removed);
        self.at.pop();
    }

    fn remove_entry(&mut self, entry: &CStr) -> Result<(), Errno> {
        let top: &'a Dir = self.top;
        let place = Place {
            folder: top.as_fd(),
            depth: 0,
        };
        let Some(root) = self.go_into(place, entry)? else {
            return Ok(());
        };
        self.remove_root(root, &[], &mut || Ok(()))
    }

    /// Removes the tree whose own folder is open.
    fn remove_open(
        &mut self,
        name: &OsStr,
        folder: &'a Dir,
        last: &[&str],
        before_last: &mut dyn FnMut() -> IoResult<()>,
    ) {
        self.at.push(name.to_owned());
        let root = CString::new(name.as_bytes())
            .map_err(|_| Errno::INVAL)
            .and_then(|entry| {
                let stat = rustix::fs::fstat(folder)?;
                Ok(Level::new(Held::Given(folder.as_fd()), &entry, &stat))
            });
        let removed = root.and_then(|root| self.remove_root(root, last, before_last));
        self.note(removed);
        self.at.pop();
    }

    /// Somebody else may be removing the same tree, as `clear` and a sweep that meet in trash/: what is
    /// gone is gone.
    fn note(&mut self, removed: Result<(), Errno>) {
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => self.leave(errno),
        }
    }

    fn remove_root(
        &mut self,
        root: Level<'a>,
        last: &[&str],
        before_last: &mut dyn FnMut() -> IoResult<()>,
    ) -> Result<(), Errno> {
        self.root = root.which;
        self.root_in = which(&rustix::fs::fstat(self.top)?);
        let mut levels = vec![root];
        self.empty(&mut levels, last);
        let Some(root) = levels.pop().filter(|root| root.is_empty) else {
            return Ok(());
        };
        if !last.is_empty() {
            if self.left.is_some() {
                return Ok(());
            }
            if let Err(error) = before_last() {
                self.left = Some(error);
                return Ok(());
            }
        }
        if self.remove_last(&root, last)? {
            self.bytes += root.bytes;
        }
        Ok(())
    }

    /// Removes what goes last, and the folder itself; whether it went. Somebody who looks for a task's
    /// lock in this moment may make it anew, so it is removed once more.
    fn remove_last(&mut self, root: &Level<'_>, last: &[&str]) -> Result<bool, Errno> {
        let top: &'a Dir = self.top;
        let above = Place {
            folder: top.as_fd(),
            depth: 0,
        };
        let mut tries = LAST_TRIES;
        loop {
            for name in last {
                let name = CString::new(*name).map_err(|_| Errno::INVAL)?;
                self.at.push(OsStr::from_bytes(name.to_bytes()).to_owned());
                let removed = self.remove_file(root.place(1)?, &name);
                self.note(removed.map(|_| ()));
                self.at.pop();
                if self.left.is_some() {
                    return Ok(false);
                }
            }
            tries -= 1;
            match self.unlink(above, &root.name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if tries > 0 && !last.is_empty() => {}
                removed => return removed.map(|()| true),
            }
        }
    }

    /// Removes everything in the first of these but what is to go last. A loop and no recursion: neither
    /// the stack nor the open files grow with the depth of the tree.
    fn empty(&mut self, levels: &mut Vec<Level<'a>>, last: &[&str]) {
        self.is_seen_below = false;
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else {
                return;
            };
            if self.has_moved && !self.is_still_here(level, depth) {
                level.folders.clear();
                level.is_listed = true;
            }
            if let Some(name) = level.folders.pop() {
                self.enter(levels, &name);
            } else if !level.is_listed {
                let last = if depth == 1 { last } else { &[] };
                if let Err(errno) = self.list(level, depth, last) {
                    level.is_listed = true;
                    level.is_empty = false;
                    self.leave(errno);
                }
            } else if depth == 1 {
                return;
            } else {
                self.go_back(levels);
            }
        }
    }

    fn is_still_here(&mut self, level: &Level<'_>, depth: usize) -> bool {
        let place = level.place(depth);
        place
            .and_then(|place| self.is_in_place(place))
            .unwrap_or(false)
    }

    /// Removes the files of a folder, and remembers its folders.
    fn list(&mut self, level: &mut Level<'_>, depth: usize, last: &[&str]) -> Result<(), Errno> {
        let mut folders = std::mem::take(&mut level.folders);
        let mut is_empty = true;
        let place = level.place(depth)?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(place.folder, &mut buffer);
        let is_listed = loop {
            if folders.len() >= FOLDERS_AT_ONCE && listing.is_buffer_empty() {
                break false;
            }
            let Some(entry) = listing.next() else {
                break true;
            };
            let entry = entry?;
            let name = entry.file_name();
            if name == c"."
                || name == c".."
                || last.iter().any(|it| it.as_bytes() == name.to_bytes())
            {
                continue;
            }
            // What it is not every file system says here.
            if entry.file_type() == FileType::Directory {
                folders.push(name.to_owned());
                continue;
            }
            match self.remove_file(place, name) {
                Ok(true) => {}
                Ok(false) => folders.push(name.to_owned()),
                Err(Errno::NOENT) if !self.has_moved => {}
                Err(Errno::NOENT) if self.is_in_place(place)? => {}
                Err(Errno::NOENT) => break true,
                Err(errno) => {
                    is_empty = false;
                    self.at.push(OsStr::from_bytes(name.to_bytes()).to_owned());
                    self.leave(errno);
                    self.at.pop();
                }
            }
        };
        level.folders = folders;
        level.is_listed = is_listed;
        level.is_empty &= is_empty;
        Ok(())
    }

    /// Removes what is not a folder; `false` when it is one.
    fn remove_file(&mut self, place: Place<'_>, name: &CStr) -> Result<bool, Errno> {
        let stat = self.look(place, name)?;
        if is_folder(&stat) {
            return Ok(false);
        }
        self.unlink(place, name, AtFlags::empty())?;
        self.bytes += bytes_of(&stat);
        Ok(true)
    }

    fn look(&mut self, place: Place<'_>, name: &CStr) -> Result<Stat, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        self.permitted(place, |_| rustix::fs::statat(place.folder, name, flags))
    }

    fn enter(&mut self, levels: &mut Vec<Level<'a>>, name: &CStr) {
        self.at.push(OsStr::from_bytes(name.to_bytes()).to_owned());
        let depth = levels.len();
        let entered = match levels.last() {
            Some(level) => level.place(depth).and_then(|place| {
                if depth.is_multiple_of(HELD) && self.bring_up(levels, place, name)? {
                    return Ok(None);
                }
                self.go_into(place, name)
            }),
            None => Ok(None),
        };
        match entered {
            Ok(Some(level)) => {
                levels.push(level);
                self.is_seen_below = false;
                close_far_above(levels);
            }
            entered => {
                for (highest, up) in self.raised.drain(..) {
                    if let Some(level) = levels.get_mut(highest) {
                        level.folders.push(up);
                    }
                }
                if !matches!(entered, Ok(_) | Err(Errno::NOENT))
                    && let Some(level) = levels.last_mut()
                {
                    level.is_empty = false;
                }
                self.note(entered.map(|_| ()));
                self.at.pop();
            }
        }
    }

    /// Opens a folder that is not empty. One that is, or something else that stands there by now, is
    /// removed.
    fn go_into(&mut self, place: Place<'_>, name: &CStr) -> Result<Option<Level<'a>>, Errno> {
        let stat = self.look(place, name)?;
        let how = if is_folder(&stat) {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        // With more links it has folders in it, on most file systems.
        if !is_folder(&stat) || stat.st_nlink <= 2 {
            match self.unlink(place, name, how) {
                Err(Errno::NOTEMPTY | Errno::EXIST) if is_folder(&stat) => {}
                removed => {
                    removed?;
                    self.bytes += bytes_of(&stat);
                    return Ok(None);
                }
            }
        }
        let folder = self.permitted(place, |walk| walk.open_shut_or_not(place, name))?;
        let stat = rustix::fs::fstat(&folder)?;
        Ok(Some(Level::new(Held::Ours(folder), name, &stat)))
    }

    /// Leaves a folder that is done with for the one above, and removes it.
    fn go_back(&mut self, levels: &mut Vec<Level<'a>>) {
        let Some(done) = levels.pop() else {
            return;
        };
        let depth = levels.len();
        let removed = match levels.last_mut() {
            Some(level) => match reopen(level, &done) {
                Ok(()) if done.is_empty => {
                    let unlinked = level
                        .place(depth)
                        .and_then(|place| self.unlink(place, &done.name, AtFlags::REMOVEDIR));
                    self.bytes += unlinked.map_or(0, |()| done.bytes);
                    unlinked
                }
                // Somebody moved it: nothing above is known to be the tree any more.
                Err(errno) => {
                    level.folders.clear();
                    level.is_listed = true;
                    Err(errno)
                }
                Ok(()) => Ok(()),
            },
            None => Ok(()),
        };
        if let Some(level) = levels.last_mut() {
            level.is_empty &= done.is_empty && matches!(removed, Ok(()) | Err(Errno::NOENT));
        }
        self.note(removed);
        self.at.pop();
    }

    /// Removes one name from a folder that is still a part of the tree.
    fn unlink(&mut self, place: Place<'_>, name: &CStr, how: AtFlags) -> Result<(), Errno> {
        self.permitted(place, |walk| {
            if !walk.is_in_place(place)? {
                walk.has_moved = true;
                return Err(Errno::NOENT);
            }
            rustix::fs::unlinkat(place.folder, name, how)
        })
    }

    /// Whether a folder is still so many levels below the tree's own folder, and that one where it
    /// was. Somebody may move one of them away while we are in it.
    fn is_in_place(&mut self, place: Place<'_>) -> Result<bool, Errno> {
        let Place { folder, depth } = place;
        if depth == 0 {
            return Ok(true);
        }
        if above(folder, depth)? != self.root_in {
            return Ok(false);
        }
        // In trash/ a folder that moves to another tree beside this one is to be removed there as well, so
        // the last answer is good enough. The tree's own folder needs none.
        if depth == 1 || (self.is_in_trash && self.is_seen_below) {
            return Ok(true);
        }
        self.is_seen_below = above(folder, depth - 1)? == self.root;
        Ok(self.is_seen_below)
    }

    /// Moves a folder that lies too deep to where it is the next tree to remove, or, where nothing can be
    /// moved out of the part of the tree in which it stands (a btrfs subvolume), to the highest folder of
    /// that part. `false` where it cannot be moved at all, as out of a lower layer of overlayfs, or on a disk so
    /// full that there is no room for another name.
    fn bring_up(
        &mut self,
        levels: &[Level<'a>],
        place: Place<'_>,
        name: &CStr,
    ) -> Result<bool, Errno> {
        let up = CString::new(format!("deep.{:016x}", random_bits() as u64)).unwrap_or_default();
        let deep_into: &'a Dir = self.deep_into;
        match self.move_up(place, name, deep_into.as_fd(), &up) {
            Ok(()) => {
                self.deep
                    .push(OsString::from(up.to_string_lossy().as_ref()));
                return Ok(true);
            }
            Err(errno) if is_immovable(errno) => {}
            Err(errno) => return Err(errno),
        }
        let here = levels.last().map(|level| level.which.0);
        let is_open = |level: &Level<'_>| !matches!(level.folder, Held::Closed);
        let highest = levels
            .iter()
            .position(|level| Some(level.which.0) == here && is_open(level));
        let Some(highest) = highest.filter(|highest| highest + HELD / 2 < levels.len()) else {
            return Ok(false);
        };
        let target = levels[highest].place(highest + 1)?;
        match self.move_up(place, name, target.folder, &up) {
            Ok(()) => {
                self.raised.push((highest, up));
                Ok(true)
            }
            Err(errno) if is_immovable(errno) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn move_up(
        &mut self,
        place: Place<'_>,
        name: &CStr,
        to: BorrowedFd<'_>,
        up: &CStr,
    ) -> Result<(), Errno> {
        self.permitted(place, |walk| {
            if !walk.is_in_place(place)? {
                walk.has_moved = true;
                return Err(Errno::NOENT);
            }
            let act =
                || rustix::fs::renameat_with(place.folder, name, to, up, RenameFlags::NOREPLACE);
            match act() {
                // A folder that forbids its owner to write cannot be moved to another one.
                Err(Errno::ACCESS) => {
                    let folder = walk.open_shut_or_not(place, name)?;
                    rustix::fs::fchmod(&folder, Mode::RWXU)?;
                    act()
                }
                moved => moved,
            }
        })
    }

    /// Does something in a folder, if need be after giving its owner the right to; the folder in which
    /// a tree stands is not part of it and stays as it is.
    fn permitted<T>(
        &mut self,
        place: Place<'_>,
        mut act: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match act(self) {
            Err(Errno::ACCESS) if place.depth > 0 => {
                // A folder that may not be gone through does not show its way up either.
                if !matches!(self.is_in_place(place), Ok(true) | Err(Errno::ACCESS)) {
                    self.has_moved = true;
                    return Err(Errno::NOENT);
                }
                rustix::fs::fchmod(place.folder, Mode::RWXU)?;
                act(self)
            }
            done => done,
        }
    }

    fn open_shut_or_not(&mut self, place: Place<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        match open_below(place.folder, name, OFlags::RDONLY) {
            Err(Errno::ACCESS) if self.is_in_place(place)? => open_after_all(place.folder, name),
            opened => opened,
        }
    }

    /// Notes what stays; the rest is removed all the same.
    fn leave(&mut self, errno: Errno) {
        if self.left.is_some() {
            self.more += 1;
            return;
        }
        let mut path = self.at.iter().take(SHOWN).collect::<PathBuf>();
        if self.at.len() > SHOWN {
            path.push("…");
        }
        let why = match errno {
            Errno::XDEV | Errno::BUSY => std::io::Error::other(Left::Mounted),
            errno => errno.into(),
        };
        self.left = Some(IoError::new("remove", self.top.path().join(path), why));
    }
}

/// Closes the folder that by now lies too far above; one that is not listed to its end would have to be
/// listed anew.
fn close_far_above(levels: &mut [Level<'_>]) {
    if let Some(far) = levels.len().checked_sub(HELD + 1)
        && far > 0
        && let Some(level) = levels.get_mut(far)
        && level.is_listed
    {
        level.folder = Held::Closed;
    }
}

/// Opens a folder again, by the way up from one that stood in it.
fn reopen(level: &mut Level<'_>, below: &Level<'_>) -> Result<(), Errno> {
    if matches!(level.folder, Held::Closed) {
        let from = below.place(0)?.folder;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(from, c"..", flags, Mode::empty())?;
        if which(&rustix::fs::fstat(&folder)?) != level.which {
            return Err(Errno::NOENT);
        }
        level.folder = Held::Ours(folder);
    }
    Ok(())
}

/// Whether a refused move says that this folder cannot be moved there now.
fn is_immovable(errno: Errno) -> bool {
    matches!(errno, Errno::XDEV | Errno::NOSPC | Errno::DQUOT)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The disk that something takes.
fn bytes_of(stat: &Stat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

/// Opens a folder of ours that may not even be listed. Its mode is set through a handle of exactly
/// this folder: a name could be a link by then.
fn open_after_all(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let handle = open_below(parent, name, OFlags::PATH)?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    open_below(parent, name, OFlags::RDONLY)
}
