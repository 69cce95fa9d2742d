//! The removal of half-built submissions in `staging/` whose submitter was killed.
//!
//! Not when this is done (`sweeper/`). Invariant: what a process may still be building is left.

use std::ffi::OsString;

use crate::spool::disk::{Dir, Guard, IoResult, LockLevel, absent_is_none, random_bits};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::TaskDir;
use crate::task::{TaskId, Timestamp};

impl Spool {
    /// Names of half-built submissions whose submitter was killed. A folder without a lock file must be an
    /// hour old, because its submitter may be about to create the lock. It is left if the clock cannot be
    /// trusted (`now` is `None`).
    pub fn staging_litter(&self, now: Option<Timestamp>) -> IoResult<Vec<OsString>> {
        const LOCKLESS_PATIENCE_SEC: i64 = 3600;
        let staging = self.own_folder(name::STAGING)?;
        let mut litter = Vec::new();
        for entry in staging.names()? {
            let Some(stat) = staging.stat(&entry)? else {
                continue;
            };
            let is_old =
                now.is_some_and(|now| now.unix_ms() / 1000 - stat.st_mtime > LOCKLESS_PATIENCE_SEC);
            let id = entry.to_str().and_then(|text| text.parse::<TaskId>().ok());
            let Some(dir) = absent_is_none(staging.open_dir(&entry)).ok().flatten() else {
                if is_old {
                    litter.push(entry);
                }
                continue;
            };
            let is_probe = entry
                .as_encoded_bytes()
                .starts_with(name::PROBE_PREFIX.as_bytes());
            let is_abandoned = match id {
                Some(id) => match dir.has(name::LOCK) {
                    // A lock that cannot be tested counts as held.
                    Ok(true) => !TaskDir::of(id, dir).is_held().unwrap_or(true),
                    Ok(false) => is_old,
                    Err(_) => false,
                },
                // A claim with a drop in it is kept, because a watcher will replay it.
                None => is_old && (is_probe || dir.is_empty().unwrap_or(false)),
            };
            if is_abandoned {
                litter.push(entry);
            }
        }
        Ok(litter)
    }

    /// Removes one entry of `staging/` and its index entry; `false` if a process is building there after all.
    ///
    /// The folder is moved to the trash first and then checked again: a watcher that replays a claim builds
    /// again under the same id, and a folder that is being emptied must not become a task.
    pub fn remove_staged(&self, entry: &OsString) -> IoResult<bool> {
        let staging = self.folder(name::STAGING)?;
        let trash = self.folder(name::TRASH)?;
        let id = entry.to_str().and_then(|text| text.parse::<TaskId>().ok());
        // Its name in the trash is not its id, because that would mean that a task of this id was removed.
        let trash_name = format!("staged.{:016x}", random_bits() as u64);
        match staging.rename_new(entry, &trash, &trash_name) {
            Ok(()) => {}
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) if error.is_immovable() || error.is_no_space() => {
                return self.remove_staged_in_place(&staging, &trash, entry);
            }
            Err(error) => return Err(error),
        }
        if let Some(id) = id
            && let Some(dir) = absent_is_none(trash.open_dir(&trash_name)).ok().flatten()
            && TaskDir::of(id, dir).is_held().unwrap_or(false)
        {
            trash.rename_new(&trash_name, &staging, entry)?;
            return Ok(false);
        }
        trash.remove_from_trash(&trash_name)?;
        if let Some(id) = id {
            self.check_open_entry(id)?;
        }
        Ok(true)
    }

    /// Removes an entry in place, if it is in a lower layer of overlayfs and cannot be moved. No process
    /// builds under a name that exists. The lock is held and is removed last, so that no process works in the
    /// folder.
    fn remove_staged_in_place(
        &self,
        staging: &Dir,
        trash: &Dir,
        entry: &OsString,
    ) -> IoResult<bool> {
        let Some(dir) = staging.find_dir(entry)? else {
            return Ok(false);
        };
        let _lock = match absent_is_none(dir.open_writable(name::LOCK))? {
            None => Guard::not_needed(),
            Some(file) => match dir.lock_exclusively(LockLevel::Task, file, name::LOCK)? {
                Some(lock) => lock.into(),
                None => return Ok(false),
            },
        };
        let last = [name::LOCK];
        staging
            .remove_in_place(entry, &dir, &last, trash, &mut || Ok(()))
            .whole()?;
        if let Some(id) = entry.to_str().and_then(|text| text.parse::<TaskId>().ok()) {
            self.check_open_entry(id)?;
        }
        Ok(true)
    }
}
