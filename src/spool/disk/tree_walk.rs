//! The walk through a tree that is being removed: into its folders, and back out of them.
//!
//! Not the single steps (`tree_step.rs`), nor the callers (`tree.rs`). Invariants: neither the stack nor the
//! number of open files grows with the depth of the tree. If something cannot be removed, the rest is
//! removed.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::below::LISTING_BYTES;
use super::dir::Dir;
use super::error::{IoError, IoResult};
use super::tree_left::{Left, Removed};
use super::tree_step::{HELD, Held, Level, Place, Walk, bytes_of, is_folder};
use super::which::which;
use crate::spool::layout::WRITABLE;

/// This many subfolders of one folder are remembered before they are entered.
const FOLDERS_AT_ONCE: usize = 10_000;
/// How often a file is removed again that another process creates again.
const LAST_TRIES: u32 = 3;

impl<'a> Walk<'a> {
    /// Removes these names, and the folders that were moved out of them because they were too deep.
    pub(super) fn finish(mut self, names: Vec<OsString>) -> Removed {
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

    /// Removes a tree whose root folder is open.
    pub(super) fn remove_open(
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

    /// Records a failure. An entry that does not exist any more is not a failure: another process may be
    /// removing the same tree, such as `clear` and a sweep in trash/.
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

    /// Removes the entries in `last`, then the folder itself; `true` if it was removed. A process that opens
    /// a task's lock at this moment may create it again, so this is repeated.
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

    /// Removes everything in the first level except the entries in `last`. It is a loop without recursion, so
    /// the stack does not grow with the depth of the tree.
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

    /// Removes the files of a folder, and remembers its subfolders.
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
            // Not every file system returns the type here.
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

    /// Opens a folder that is not empty. An empty folder, or something else that has the name now, is
    /// removed, and the answer is `None`.
    fn go_into(&mut self, place: Place<'_>, name: &CStr) -> Result<Option<Level<'a>>, Errno> {
        let stat = self.stat(place, name)?;
        let how = if is_folder(&stat) {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        // On most file systems a folder with more links has subfolders.
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
        let is_closed =
            || stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & WRITABLE == 0;
        if self.is_closed_only && !is_closed() {
            return Err(Errno::PERM);
        }
        Ok(Some(Level::new(Held::Ours(folder), name, &stat)))
    }

    /// Goes back from a finished folder to the one above, and removes the finished one if it is empty.
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
                // It was moved, so the folders above may not belong to the tree any more.
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
}

/// Closes the folder that is too far above now. A folder that is not fully listed stays open, because it
/// would have to be listed again.
fn close_far_above(levels: &mut [Level<'_>]) {
    if let Some(far) = levels.len().checked_sub(HELD + 1)
        && far > 0
        && let Some(level) = levels.get_mut(far)
        && level.is_listed
    {
        level.folder = Held::Closed;
    }
}

/// Opens a folder again, by the way up from one of its subfolders.
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
