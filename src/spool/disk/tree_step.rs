//! The single steps of removing a tree: remove a name, open a folder, move a folder up.
//!
//! Not their order (`tree_walk.rs`). Invariants: no link is followed and no mount is entered. A name is
//! removed only from a folder that is still a part of the tree.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::below::{open_below, stat_below};
use super::dir::Dir;
use super::error::IoError;
use super::random::random_bits;
use super::tree_left::Left;
use super::way_up::above;
use super::which::{Which, which};

/// The number of folders that are held open at once, from the deepest upwards: far below any limit of open
/// files.
pub(super) const HELD: usize = 100;
/// The most folders of a path that are shown in a message.
const SHOWN: usize = 20;

/// One removal.
pub(super) struct Walk<'a> {
    /// The folder that the tree is in.
    pub(super) top: &'a Dir,
    /// The folder to which folders are moved that are too deep.
    pub(super) deep_into: &'a Dir,
    /// The names of the folders that were moved there.
    pub(super) deep: Vec<OsString>,
    /// The folders that were moved up within the tree, and to which level.
    pub(super) raised: Vec<(usize, CString)>,
    /// Whether everything next to the tree is to be removed too.
    pub(super) is_in_trash: bool,
    /// Whether a folder stays, with its content, if it belongs to another user or if others can write it:
    /// they may have moved something there that must not be removed.
    pub(super) is_closed_only: bool,
    /// The folder that is being removed, and the folder that it is in.
    pub(super) root: Which,
    pub(super) root_in: Which,
    /// The names from `top` to the current folder, for messages.
    pub(super) at: Vec<OsString>,
    pub(super) has_moved: bool,
    /// Whether the current folder was found below the tree's root folder since it was entered.
    pub(super) is_seen_below: bool,
    pub(super) bytes: u64,
    pub(super) left: Option<IoError>,
    pub(super) more: usize,
}

/// An open folder and its depth: 0 is the folder that the tree is in, 1 is the tree's root folder.
#[derive(Clone, Copy)]
pub(super) struct Place<'f> {
    pub(super) folder: BorrowedFd<'f>,
    pub(super) depth: usize,
}

pub(super) enum Held<'a> {
    Ours(OwnedFd),
    Given(BorrowedFd<'a>),
    /// It is too far above. It is opened again on the way back.
    Closed,
}

/// The current folder of the tree, or a folder above it.
pub(super) struct Level<'a> {
    pub(super) folder: Held<'a>,
    pub(super) which: Which,
    pub(super) name: CString,
    pub(super) bytes: u64,
    /// Its subfolders that are still to be entered.
    pub(super) folders: Vec<CString>,
    pub(super) is_listed: bool,
    pub(super) is_empty: bool,
}

impl Level<'_> {
    pub(super) fn new<'a>(folder: Held<'a>, name: &CStr, stat: &Stat) -> Level<'a> {
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

    pub(super) fn place(&self, depth: usize) -> Result<Place<'_>, Errno> {
        let folder = match &self.folder {
            Held::Ours(folder) => folder.as_fd(),
            Held::Given(folder) => *folder,
            Held::Closed => return Err(Errno::BADF),
        };
        Ok(Place { folder, depth })
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(top: &'a Dir, deep_into: &'a Dir) -> Walk<'a> {
        Walk {
            top,
            deep_into,
            deep: Vec::new(),
            raised: Vec::new(),
            root: (0, 0),
            root_in: (0, 0),
            at: Vec::new(),
            is_in_trash: false,
            is_closed_only: false,
            has_moved: false,
            is_seen_below: false,
            bytes: 0,
            left: None,
            more: 0,
        }
    }

    /// Removes an entry that is not a folder; `false` if it is a folder.
    pub(super) fn remove_file(&mut self, place: Place<'_>, name: &CStr) -> Result<bool, Errno> {
        let stat = self.stat(place, name)?;
        if is_folder(&stat) {
            return Ok(false);
        }
        self.unlink(place, name, AtFlags::empty())?;
        self.bytes += bytes_of(&stat);
        Ok(true)
    }

    pub(super) fn stat(&mut self, place: Place<'_>, name: &CStr) -> Result<Stat, Errno> {
        self.permitted(place, |_| stat_below(place.folder, name))
    }

    /// Removes one name from a folder that is still a part of the tree.
    pub(super) fn unlink(
        &mut self,
        place: Place<'_>,
        name: &CStr,
        how: AtFlags,
    ) -> Result<(), Errno> {
        self.permitted(place, |walk| {
            if !walk.is_in_place(place)? {
                walk.has_moved = true;
                return Err(Errno::NOENT);
            }
            rustix::fs::unlinkat(place.folder, name, how)
        })
    }

    /// Whether a folder is still at the same depth below the tree's root folder, and the root folder at its
    /// place. Another process may move one of them during the removal.
    pub(super) fn is_in_place(&mut self, place: Place<'_>) -> Result<bool, Errno> {
        let Place { folder, depth } = place;
        if depth == 0 {
            return Ok(true);
        }
        if above(folder, depth)? != self.root_in {
            return Ok(false);
        }
        // In trash/ a folder that was moved into another tree is to be removed there too, so the last answer
        // is good enough. The tree's root folder needs no second check.
        if depth == 1 || (self.is_in_trash && self.is_seen_below) {
            return Ok(true);
        }
        self.is_seen_below = above(folder, depth - 1)? == self.root;
        Ok(self.is_seen_below)
    }

    /// Moves a folder that is too deep to `deep_into`, where it is removed as the next tree. If nothing can
    /// be moved out of its part of the tree (a btrfs subvolume), it is moved to the highest open folder of
    /// that part. `false` if it cannot be moved at all, such as out of a lower layer of overlayfs, or on a
    /// disk so full that there is no space for another name.
    pub(super) fn bring_up(
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
                // A folder that its owner may not write cannot be moved to another one.
                Err(Errno::ACCESS) => {
                    let folder = walk.open_shut_or_not(place, name)?;
                    rustix::fs::fchmod(&folder, Mode::RWXU)?;
                    act()
                }
                moved => moved,
            }
        })
    }

    /// Does something in a folder. If it is denied, the owner gets the permission first. The folder that the
    /// tree is in is not part of the tree, so its mode is not changed.
    pub(super) fn permitted<T>(
        &mut self,
        place: Place<'_>,
        mut act: impl FnMut(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match act(self) {
            Err(Errno::ACCESS) if place.depth > 0 => {
                // If a folder cannot be searched, its way up cannot be read either.
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

    pub(super) fn open_shut_or_not(
        &mut self,
        place: Place<'_>,
        name: &CStr,
    ) -> Result<OwnedFd, Errno> {
        match open_below(place.folder, name, OFlags::RDONLY) {
            Err(Errno::ACCESS) if self.is_in_place(place)? => open_after_all(place.folder, name),
            opened => opened,
        }
    }

    /// Records an entry that cannot be removed. The rest is removed.
    pub(super) fn leave(&mut self, errno: Errno) {
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

/// Whether this error means that a folder cannot be moved there now.
fn is_immovable(errno: Errno) -> bool {
    matches!(errno, Errno::XDEV | Errno::NOSPC | Errno::DQUOT)
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The disk space of a file or folder, in bytes.
pub(super) fn bytes_of(stat: &Stat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

/// Opens a folder of ours that its owner may not list. The mode is set through a handle of exactly this
/// folder, because the name could become a link.
fn open_after_all(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let handle = open_below(parent, name, OFlags::PATH)?;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
    open_below(parent, name, OFlags::RDONLY)
}
