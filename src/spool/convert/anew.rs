//! How a folder of the root is replaced by a new one, and where the old one is put.
//!
//! Not what is copied (`task.rs`). Invariants: the new folder is built in a folder with mode 0700, and the
//! old folder is moved there as a whole, by one rename. An interrupted replacement is found and continued:
//! only the owner can write there, so what is found can be trusted.

use std::ffi::OsStr;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{is_dir, is_file, set_rights};
use crate::clock;
use crate::spool::disk::{Dir, IoError, IoResult, random_bits};
use crate::spool::inbox::{Reason, reason_file};
use crate::spool::layout::{
    CLOSED, GROUP_READS, OURS_ONLY,
    name::{self, CONVERTING, OF_CONVERSION},
};
use crate::task::{FORMAT_VERSION, TaskId, to_pretty};

const OLD: &str = "old";
const NEW: &str = "new";
/// Deeper folders are not closed. Sweeps do not enter folders that are not closed.
const DEEPEST: usize = 64;

pub(super) struct Anew<'a> {
    root: &'a Dir,
    gid: u32,
    /// The folder for the old folders.
    old: Dir,
    /// The folder for the new folders, until they are complete.
    new: Dir,
}

impl<'a> Anew<'a> {
    pub fn of(root: &'a Dir) -> IoResult<Anew<'a>> {
        let stat = root.stat(name::SETTINGS)?;
        let gid = stat.map_or_else(
            || root.own_stat().map(|stat| stat.st_gid),
            |stat| Ok(stat.st_gid),
        )?;
        let place = root.ensure_dir(CONVERTING)?.with_making(OURS_ONLY);
        place.set_mode(".", OURS_ONLY.dir)?;
        let (old, new) = (place.ensure_dir(OLD)?, place.ensure_dir(NEW)?);
        Ok(Anew {
            root,
            gid,
            old,
            new,
        })
    }

    /// Whether an `init` that was interrupted has put this folder away.
    fn has_started(&self, folder: &str) -> IoResult<bool> {
        Ok(self.new.has(folder)? && self.old.has(folder)?)
    }

    /// Closes a folder, copies the files to keep into a new folder, and exchanges the two.
    pub fn replace(
        &self,
        folder: &'static str,
        mode: Mode,
        fill: impl Fn(&Dir, &Dir) -> IoResult<()>,
    ) -> IoResult<()> {
        if !self.has_started(folder)? {
            // The folder does not exist, or it is the new one already.
            if !self.root.has(folder)? || self.old.has(folder)? {
                return Ok(());
            }
            self.new.remove_tree(folder)?;
            let new = self.new.make_dir(folder)?;
            set_rights(&new, self.gid, mode)?;
            if let Some(old) = self.close(folder)? {
                fill(&old, &new)?;
                close_below(&old, DEEPEST);
            }
            self.put_away(folder)?;
        }
        match self.new.rename_new(folder, self.root, folder) {
            // Another command has created it, or it was moved in parts and that was interrupted.
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                if self.root.remove_empty_dir(folder).is_err() {
                    let folder = OsStr::new(folder);
                    move_part(self.root, folder, &self.old, folder)?;
                }
                self.new.rename_new(folder, self.root, folder)
            }
            placed => placed,
        }
    }

    /// Closes a folder of the root, if it is ours. Afterwards nobody else can put anything into it.
    fn close(&self, folder: &str) -> IoResult<Option<Dir>> {
        let us = rustix::process::geteuid().as_raw();
        let Some(old) = self.root.find_dir_here(folder)? else {
            return Ok(None);
        };
        if old.own_stat()?.st_uid != us {
            return Ok(None);
        }
        old.set_mode(".", CLOSED)?;
        old.remove_access_lists()?;
        Ok(Some(old))
    }

    fn put_away(&self, folder: &str) -> IoResult<()> {
        match self.root.rename_new(folder, &self.old, folder) {
            // A folder of another user cannot be moved, but an empty one can be removed.
            Err(error) if error.is_denied() => {
                if self.root.remove_empty_dir(folder).is_err() {
                    return Err(error);
                }
            }
            // The folder is in a lower layer of overlayfs.
            Err(error) if error.is_immovable() => {
                move_part(self.root, OsStr::new(folder), &self.old, OsStr::new(folder))?;
            }
            moved => moved?,
        }
        Ok(())
    }

    /// Moves everything that was put away to `rejected/`, where the sweeper finds it.
    pub fn finish(self) -> IoResult<()> {
        let Anew { root, old, .. } = self;
        let place = root.open_dir(CONVERTING)?;
        if !old.is_empty()? {
            let rejected = root.ensure_dir(name::REJECTED)?.with_making(GROUP_READS);
            let now = clock::wall();
            let id = TaskId::from_parts(now.unix_ms().unsigned_abs(), random_bits());
            let kept = format!("{id}-{OF_CONVERSION}");
            let reason = Reason {
                v: FORMAT_VERSION,
                name: OF_CONVERSION.to_owned(),
                reason:
                    "other users could write in these folders, so they were replaced by new ones"
                        .to_owned(),
                hint: "submit the missing tasks and drops again".to_owned(),
                rejected_at: now,
            };
            rejected.replace(&reason_file(&kept), &to_pretty(&reason))?;
            match place.rename_new(OLD, &rejected, &kept) {
                Err(error) if error.is_immovable() => {
                    let rejected = rejected.with_making(OURS_ONLY);
                    move_part(&place, OsStr::new(OLD), &rejected, OsStr::new(&kept))?;
                }
                moved => moved?,
            }
            tracing::warn!(
                "replaced the folders in which other users could write; the old ones are in {}",
                root.path_of(name::REJECTED).join(&kept).display()
            );
        }
        place.remove_tree(NEW)?;
        // If something is left in them, only the owner can reach it.
        let _ = place.remove_empty_dir(OLD);
        let _ = root.remove_empty_dir(CONVERTING);
        Ok(())
    }
}

/// Closes our folders below a closed one, because a process may still have one of them open and move files
/// into it. Folders that cannot be opened, mounts, and folders of other users are left.
fn close_below(dir: &Dir, levels: usize) {
    let us = rustix::process::geteuid().as_raw();
    if levels == 0 {
        return;
    }
    for entry in dir.names().unwrap_or_default() {
        let Ok(Some(within)) = dir.find_dir_here(&entry) else {
            continue;
        };
        if within.own_stat().is_ok_and(|stat| stat.st_uid == us) {
            let _ = within.set_mode(".", OURS_ONLY.dir);
            let _ = within.remove_access_lists();
            close_below(&within, levels - 1);
        }
    }
}

/// Moves a file or folder to another mount or layer, entry by entry. What cannot be copied is removed.
fn move_part(from: &Dir, entry: &OsStr, to: &Dir, kept: &OsStr) -> IoResult<()> {
    let Some(stat) = from.stat(entry)? else {
        return Ok(());
    };
    if is_dir(&stat) {
        let Some(dir) = from.find_dir_here(entry)? else {
            return Ok(());
        };
        let into = to.ensure_dir(kept)?;
        for name in dir.names()? {
            move_part(&dir, &name, &into, &name)?;
        }
        return from.remove_empty_dir(entry).map(|_| ());
    }
    match from.rename_new(entry, to, kept) {
        Err(error) if error.is_immovable() => {
            if is_file(&stat)
                && let Ok(mut file) = from.open_file(entry)
            {
                let mut copy = to.create(kept)?;
                std::io::copy(&mut file, &mut copy)
                    .map_err(|source| IoError::new("copy", from.path_of(entry), source))?;
            }
            from.unlink(entry).map(|_| ())
        }
        moved => moved,
    }
}
