//! The single steps of removing a tree: remove one name, open one folder, move one up.
//!
//! Not the order of them (`tree_walk.rs`). Invariants: no link is followed and no mount is entered; a name is removed
//! only from a folder that is still a part of the tree.

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

/// So many folders are held open at once, from the deepest upwards: far below any limit of open files.
pub(super) const HELD: usize = 100;
/// A message names so many folders of a path.
const SHOWN: usize = 20;

/// One removal.
pub(super) struct Walk<'a> {
    /// The folder in which the tree stands.
    pub(super) top: &'a Dir,
    /// Where folders go that lie too deep.
    pub(super) deep_into: &'a Dir,
    /// Those that stand there now.
    pub(super) deep: Vec<OsString>,
    /// Those that were moved up within the tree, and to which level.
    pub(super) raised: Vec<(usize, CString)>,
    /// Whether all that stands beside the tree is to be removed as well.
    pub(super) is_in_trash: bool,
    /// Whether a folder that is another user's, or that others can write, stays with all in it: they may have moved
    /// something there that is not ours to remove.
    pub(super) is_closed_only: bool,
    /// The folder that is being removed, and the one in which it stands.
    pub(super) root: Which,
    pub(super) root_in: Which,
    /// Names from `top` to where we are, for messages.
    pub(super) at: Vec<OsString>,
    pub(super) has_moved: bool,
    /// Whether this folder was seen below the tree's own since we came to it.
    pub(super) is_seen_below: bool,
    pub(super) bytes: u64,
    pub(super) left: Option<IoError>,
    pub(super) more: usize,
}

/// Where something is done: an open folder, and how deep it is. 0 is the folder in which the tree
/// stands, 1 the tree's own.
#[derive(Clone, Copy)]
pub(super) struct Place<'f> {
    pub(super) folder: BorrowedFd<'f>,
    pub(super) depth: usize,
}

pub(super) enum Held<'a> {
    Ours(OwnedFd),
    Given(BorrowedFd<'a>),
    /// It lies too far above: it is opened again on the way back.
    Closed,
}

/// A folder of the tree that we are in, or below.
pub(super) struct Level<'a> {
    pub(super) folder: Held<'a>,
    pub(super) which: Which,
    pub(super) name: CString,
    pub(super) bytes: u64,
    /// Its folders that are still to be gone into.
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

    /// Removes what is not a folder; `false` when it is one.
    pub(super) fn remove_file(&mut self, place: Place<'_>, name: &CStr) -> Result<bool, Errno> {
        let stat = self.look(place, name)?;
        if is_folder(&stat) {
            return Ok(false);
        }
        self.unlink(place, name, AtFlags::empty())?;
        self.bytes += bytes_of(&stat);
        Ok(true)
    }

    pub(super) fn look(&mut self, place: Place<'_>, name: &CStr) -> Result<Stat, Errno> {
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

    /// Whether a folder is still so many levels below the tree's own folder, and that one where it
    /// was. Somebody may move one of them away while we are in it.
    pub(super) fn is_in_place(&mut self, place: Place<'_>) -> Result<bool, Errno> {
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
    pub(super) fn permitted<T>(
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

    /// Notes what stays; the rest is removed all the same.
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

/// Whether a refused move says that this folder cannot be moved there now.
fn is_immovable(errno: Errno) -> bool {
    matches!(errno, Errno::XDEV | Errno::NOSPC | Errno::DQUOT)
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The disk that something takes.
pub(super) fn bytes_of(stat: &Stat) -> u64 {
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
