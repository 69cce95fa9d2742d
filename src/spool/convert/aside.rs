//! Where a conversion puts what it does not keep.
//!
//! Not what that is (`mod.rs`, `task.rs`). Invariants: it lies below one folder with mode 0700, which group
//! users cannot enter; nothing is entered that is mounted; what was cut off is found and continued, because
//! only the owner can write where it lies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{is_dir, is_file};
use crate::clock;
use crate::spool::disk::{Dir, IoError, IoResult, random_bits};
use crate::spool::inbox::{Reason, plain_file_name, reason_file};
use crate::spool::layout::{
    GROUP_READS, OURS_ONLY,
    name::{self, CONVERTING, OF_CONVERSION},
};
use crate::task::{FORMAT_VERSION, TaskId, to_pretty};

const OLD: &str = "old";
const NEW: &str = "new";

/// What came of putting something away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Away,
    /// A folder of another user's: only the folder that it stands in can be moved.
    Stuck,
    /// It stays where it is, as a mount does.
    Left,
}

pub(super) struct Aside<'a> {
    root: &'a Dir,
    /// What is not kept.
    old: Dir,
    /// Folders that are made anew, for as long as that takes.
    new: Dir,
}

impl<'a> Aside<'a> {
    pub fn of(root: &'a Dir) -> IoResult<Aside<'a>> {
        let place = root.ensure_dir(CONVERTING)?.with_making(OURS_ONLY);
        place.set_mode(".", OURS_ONLY.dir)?;
        let (old, new) = (place.ensure_dir(OLD)?, place.ensure_dir(NEW)?);
        Ok(Aside { root, old, new })
    }

    /// Moves something away, whatever it is.
    pub fn put_away(&self, dir: &Dir, entry: &OsStr) -> IoResult<Fate> {
        let kept = kept_name(dir, entry);
        let mut moved = dir.rename_new(entry, &self.old, &kept);
        if moved.as_ref().is_err_and(IoError::is_denied) && self.open_own(dir, entry)? {
            moved = dir.rename_new(entry, &self.old, &kept);
        }
        let fate = match moved {
            Ok(()) => Fate::Away,
            Err(error) if error.is_absent() => return Ok(Fate::Away),
            Err(error) if error.is_immovable() => match self.move_parts(dir, entry, &kept)? {
                true => Fate::Away,
                false => Fate::Left,
            },
            // Of another user's folder an empty one can be removed.
            Err(error) if error.is_denied() => match dir.remove_empty_dir(entry) {
                Ok(_) => Fate::Away,
                Err(_) => Fate::Stuck,
            },
            Err(error) if concerns_all(&error) => return Err(error),
            Err(error) => {
                tracing::warn!("left where it is: {error}");
                return Ok(Fate::Left);
            }
        };
        let path = dir.path_of(entry);
        match fate {
            Fate::Away => tracing::warn!(
                "not kept, because others could write it: {}",
                path.display()
            ),
            Fate::Left => tracing::warn!("cannot be moved away, and stays: {}", path.display()),
            Fate::Stuck => {}
        }
        Ok(fate)
    }

    /// Makes a folder anew with all in it that can be moved; what cannot goes away with the old folder.
    pub fn renew(&self, parent: &Dir, entry: &OsStr, key: &str, mode: Mode) -> IoResult<()> {
        let new = self.new.ensure_dir(key)?;
        if let Some(old) = parent.find_dir(entry)? {
            let moved = self.move_all(&old, &new)?;
            if !moved || self.put_away(parent, entry)? != Fate::Away {
                self.move_all(&new, &old)?;
                self.new.remove_empty_dir(key)?;
                let path = parent.path_of(entry);
                tracing::warn!("something of another user's stays in {}", path.display());
                return Ok(());
            }
        }
        new.remove_access_lists()?;
        self.new.set_group(key, self.root.own_stat()?.st_gid)?;
        self.new.set_mode(key, mode)?;
        self.new.rename_new(key, parent, entry)
    }

    /// Goes on where the same was cut off.
    pub fn continue_renewal(
        &self,
        parent: &Dir,
        entry: &OsStr,
        key: &str,
        mode: Mode,
    ) -> IoResult<()> {
        if self.new.has(key)? {
            self.renew(parent, entry, key, mode)?;
        }
        Ok(())
    }

    /// Moves what can be moved; `false` where something of our own cannot.
    fn move_all(&self, from: &Dir, to: &Dir) -> IoResult<bool> {
        for entry in from.names()? {
            match from.rename_new(&entry, to, &entry) {
                Ok(()) => {}
                Err(error) if error.is_absent() || error.is_denied() => {}
                Err(error) if concerns_all(&error) => return Err(error),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Gives us the right to move a folder of our own.
    fn open_own(&self, dir: &Dir, entry: &OsStr) -> IoResult<bool> {
        let us = rustix::process::geteuid().as_raw();
        let is_own = dir
            .stat(entry)?
            .is_some_and(|stat| is_dir(&stat) && stat.st_uid == us);
        if is_own {
            dir.set_mode(entry, OURS_ONLY.dir)?;
        }
        Ok(is_own)
    }

    /// Moves the content of a folder that cannot be moved itself: of a lower layer of overlayfs, or a mount.
    pub fn empty(&self, dir: &Dir) -> IoResult<()> {
        for entry in dir.names()? {
            self.put_away(dir, &entry)?;
        }
        Ok(())
    }

    fn move_parts(&self, dir: &Dir, entry: &OsStr, kept: &str) -> IoResult<bool> {
        match move_part(dir, entry, &self.old, OsStr::new(kept)) {
            Err(error) if concerns_all(&error) => Err(error),
            moved => Ok(moved.unwrap_or(false)),
        }
    }

    /// Moves all of it to `rejected/`, where the sweeper finds it.
    pub fn finish(self) -> IoResult<()> {
        let Aside { root, old, .. } = self;
        let place = root.open_dir(CONVERTING)?;
        if !old.is_empty()? {
            let rejected = root.ensure_dir(name::REJECTED)?.with_making(GROUP_READS);
            let now = clock::wall();
            let id = TaskId::from_parts(now.unix_ms().unsigned_abs(), random_bits());
            let kept = format!("{id}-{OF_CONVERSION}");
            let reason = Reason {
                v: FORMAT_VERSION,
                name: OF_CONVERSION.to_owned(),
                reason: "in a spool of version 1 others could write or lock it".to_owned(),
                hint: "submit again what was a task or a drop".to_owned(),
                rejected_at: now,
            };
            rejected.replace(&reason_file(&kept), &to_pretty(&reason))?;
            match place.rename_new(OLD, &rejected, &kept) {
                Err(error) if error.is_immovable() => {
                    move_part(
                        &place,
                        OsStr::new(OLD),
                        &rejected.with_making(OURS_ONLY),
                        OsStr::new(&kept),
                    )?;
                }
                moved => moved?,
            }
        }
        place.remove_tree(NEW)?;
        // Something that stays in it is nobody's to reach.
        let _ = place.remove_empty_dir(OLD);
        let _ = root.remove_empty_dir(CONVERTING);
        Ok(())
    }
}

/// Whether the next thing would fail for the same reason.
pub(super) fn concerns_all(error: &IoError) -> bool {
    let all = [
        Errno::ROFS,
        Errno::IO,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
    ];
    error.is_no_space() || error.errno().is_some_and(|errno| all.contains(&errno))
}

/// What something is called that is put away: where it was, and digits that make the name unique.
fn kept_name(dir: &Dir, entry: &OsStr) -> String {
    let place = plain_file_name(dir.name().as_bytes());
    let digits = random_bits() as u32;
    format!("{place}.{}.{digits:08x}", plain_file_name(entry.as_bytes()))
}

/// Moves a thing to another mount or layer, a folder piece by piece. What cannot be copied is removed.
fn move_part(from: &Dir, entry: &OsStr, to: &Dir, kept: &OsStr) -> IoResult<bool> {
    let Some(stat) = from.stat(entry)? else {
        return Ok(true);
    };
    if is_dir(&stat) {
        let dir = from.open_dir(entry)?;
        if dir.mount()? != from.mount()? {
            return Ok(false);
        }
        let into = to.ensure_dir(kept)?;
        let mut is_whole = true;
        for name in dir.names()? {
            is_whole &= move_part(&dir, &name, &into, &name)?;
        }
        return Ok(is_whole && from.remove_empty_dir(entry).is_ok());
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
            from.unlink(entry)?;
            Ok(true)
        }
        moved => moved.map(|()| true),
    }
}
