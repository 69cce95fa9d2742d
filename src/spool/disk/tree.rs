//! Removing a folder with all its content.
//!
//! Not the decision to remove it (`trash/`). Every level is opened relative to the one above, and its size is
//! measured in the same walk. Invariants: no link is followed and no mount is entered, also if another
//! process puts one into the tree during the removal. Something that is moved out of the tree is not removed
//! at its new place. A tree of any depth is removed, and so is a folder that its owner may not write (as in
//! Go's module cache). If something cannot be removed, such as a mount, the rest is removed.

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
    /// Removes a file, or a folder with all its content. Returns the freed disk space in bytes. It is not an
    /// error if the name does not exist.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        self.remove_tree_by(name, self)
    }

    /// Like [`Dir::remove_tree`]. A folder that is too deep is moved to `deep_into`, where it is found if the
    /// removal is interrupted.
    pub fn remove_tree_by(&self, name: impl AsRef<OsStr>, deep_into: &Dir) -> IoResult<u64> {
        Walk::new(self, deep_into)
            .finish(vec![name.as_ref().to_owned()])
            .whole()
    }

    /// Like [`Dir::remove_tree_by`]. A folder that others can write stays, with its content.
    pub fn remove_closed_tree_by(&self, name: impl AsRef<OsStr>, deep_into: &Dir) -> IoResult<u64> {
        let mut walk = Walk::new(self, deep_into);
        walk.is_closed_only = true;
        walk.finish(vec![name.as_ref().to_owned()]).whole()
    }

    /// Like [`Dir::remove_tree`], in `trash/`, where everything next to the tree is to be removed too.
    pub fn remove_from_trash(&self, name: impl AsRef<OsStr>) -> IoResult<u64> {
        let mut walk = Walk::new(self, self);
        walk.is_in_trash = true;
        walk.finish(vec![name.as_ref().to_owned()]).whole()
    }

    /// Like [`Dir::remove_from_trash`], for a folder in `trash/` that is open.
    pub fn remove_open_from_trash(&self, name: impl AsRef<OsStr>, folder: &Dir) -> Removed {
        let mut walk = Walk::new(self, self);
        walk.is_in_trash = true;
        walk.remove_open(name.as_ref(), folder, &[], &mut || Ok(()));
        walk.finish(Vec::new())
    }

    /// Removes an open folder that cannot be moved to `trash/` first. The entries in `last` are removed at
    /// the end, in that order, and only if nothing else is left and `before_last` succeeds.
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

/// Checks that an open folder has this name in `parent`, on the same mount.
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
