//! Removing a folder with all that is in it.
//!
//! Not the decision to (`trash/`, and whoever holds the lock). Every level is opened relative to
//! the one above, and its size is taken in the same walk. Invariants: no link is followed and no
//! mount is entered, also if somebody puts one into the tree meanwhile; what somebody moves out of
//! the tree is not removed at its new place; neither the depth of a tree nor a folder that forbids
//! its owner to write (as Go's module cache has them) keeps it from going. What must stay, as a
//! mount, does not keep the rest from going.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::below::open_below;
use super::dir::Dir;
use super::error::IoResult;
use super::tree_left::Removed;
use super::tree_step::Walk;
use super::which::which;

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

    /// The same; a folder that others could put something into stays, with all in it.
    pub fn remove_closed_tree_by(&self, name: impl AsRef<OsStr>, deep_into: &Dir) -> IoResult<u64> {
        let mut walk = Walk::new(self, deep_into);
        walk.is_closed_only = true;
        walk.finish(vec![name.as_ref().to_owned()]).whole()
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
