//! How a new folder takes the place of one of the root's, and where the old one goes.
//!
//! Not what is copied (`task.rs`). Invariants: what is new grows below one folder with mode 0700, and what is old is put
//! away there whole, by one rename; what was cut off is found and continued, because only the owner can write there.

use std::ffi::OsStr;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{is_dir, is_file, set_rights};
use crate::clock;
use crate::spool::disk::{Dir, IoError, IoResult, random_bits};
use crate::spool::inbox::{Reason, reason_file};
use crate::spool::layout::{
    CLOSED, GROUP_READS, OURS_ONLY, SMALL_FILE,
    name::{self, CONVERTING, OF_CONVERSION},
};
use crate::task::{FORMAT_VERSION, TaskId, to_pretty};

const OLD: &str = "old";
const NEW: &str = "new";
/// Folders that lie deeper are not closed: no sweep enters them then.
const DEEPEST: usize = 64;

pub(super) struct Anew<'a> {
    root: &'a Dir,
    gid: u32,
    /// What is put away.
    old: Dir,
    /// What is in the making.
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

    /// Whether an `init` that was cut off has put this folder away.
    pub fn has_begun(&self, folder: &str) -> IoResult<bool> {
        Ok(self.new.has(folder)? && self.old.has(folder)?)
    }

    /// Closes a folder, copies from it into a new one, and exchanges the two.
    pub fn replace(
        &self,
        folder: &'static str,
        mode: Mode,
        fill: impl Fn(&Dir, &Dir) -> IoResult<()>,
    ) -> IoResult<()> {
        if !self.has_begun(folder)? {
            // There is none, or it is the new one.
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
            // Made meanwhile by a command that missed it, or moved in parts and not to the end.
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

    /// Closes one of the root's folders, if it is one of ours. From here on nobody else puts anything into it.
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
            // A folder of another user's cannot be moved, and an empty one be removed.
            Err(error) if error.is_denied() => {
                if self.root.remove_empty_dir(folder).is_err() {
                    return Err(error);
                }
            }
            // Of a lower layer of overlayfs.
            Err(error) if error.is_immovable() => {
                move_part(self.root, OsStr::new(folder), &self.old, OsStr::new(folder))?;
            }
            moved => moved?,
        }
        Ok(())
    }

    /// Keeps a copy of a file of the root that is about to be written anew.
    pub fn keep_copy(&self, file: &str) -> IoResult<()> {
        let bytes = self.root.read(file, SMALL_FILE)?.unwrap_or_default();
        self.old.replace(file, &bytes)
    }

    /// Moves all that was put away to `rejected/`, where the sweeper finds it.
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
                reason: "others could write in it; what is kept of it was copied".to_owned(),
                hint: "submit again what was a task or a drop and is missing".to_owned(),
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
                "made anew what others could write; what it was is in {}",
                root.path_of(name::REJECTED).join(&kept).display()
            );
        }
        place.remove_tree(NEW)?;
        // Something that stays in it is nobody's to reach.
        let _ = place.remove_empty_dir(OLD);
        let _ = root.remove_empty_dir(CONVERTING);
        Ok(())
    }
}

/// Closes our folders below one that is closed: who has one of them open moves nothing more into it. Those that cannot
/// be opened, and what is mounted or another user's, are left.
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

/// Moves a thing to another mount or layer, a folder piece by piece. What cannot be copied is removed.
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
