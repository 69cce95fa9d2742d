//! From version 1 of the spool to version 2, by `init`.
//!
//! In version 1 the users of a group could write in most folders of a group spool, rename what was in them,
//! and lock most files; in version 2 they write in the drop box alone. Not the layout itself (`layout.rs`).
//! What is kept of a task is in `task.rs` and `attempt.rs`, where the rest goes in `aside.rs`, who may still be at work in
//! `running.rs`. Invariants: `spool.json` says 2 only once everything else is converted, so a conversion that
//! was cut off is done again; a folder is closed before its content is judged; no task is deleted.

use std::ffi::OsStr;

use self::aside::{Aside, Fate};
use self::running::Workers;
use self::task::Tasks;
use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

use crate::spool::disk::{Dir, Guard, IoResult, LockLevel};
use crate::spool::layout::{
    FOLDERS, GROUP_READS, OURS_ONLY, Sharing, WRITABLE, folder_mode,
    name::{self, START},
};
use crate::spool::open::{OpenError, StoredSettings, read_older_settings, stored_settings};
use crate::spool::watchers::seats_in;
use crate::task::{TaskId, to_pretty};

mod aside;
mod attempt;
mod running;
mod task;

/// Converts a spool of version 1. The caller holds the root's lock.
///
/// # Errors
/// When a watcher runs on it, when a task runs in a group spool, or when the disk refuses. Then it is still
/// of version 1 and can be converted again.
pub(super) fn convert(root: &Dir) -> Result<(), OpenError> {
    let StoredSettings { sharing, settings } = read_older_settings(root)?;
    let workers = Workers::look(root)?;
    let _start = refuse_watchers(root, &workers)?;
    let (file, gid) = match sharing {
        Sharing::Private => (OURS_ONLY.file, None),
        Sharing::Group => {
            if let Some(tasks) = root.find_dir(name::TASKS)?
                && let Some(by) = workers.task(&tasks)?
            {
                return Err(busy(root, by));
            }
            close(root, GROUP_READS.dir)?;
            let aside = Aside::of(root)?;
            group_spool(root, &aside)?;
            aside.finish()?;
            (GROUP_READS.file, Some(root.own_stat()?.st_gid))
        }
    };
    let stored = stored_settings(sharing, &settings);
    root.replace_durably_as(name::SETTINGS, &to_pretty(&stored), file, gid)?;
    Ok(())
}

/// Sees that no watcher runs, and that none starts as long as the answer is held.
fn refuse_watchers(root: &Dir, workers: &Workers) -> Result<Guard, OpenError> {
    let Some(watchers) = root.find_dir(name::WATCHERS)? else {
        return Ok(Guard::not_needed());
    };
    if let Some(by) = workers.watcher(&watchers, START)? {
        return Err(busy(root, by));
    }
    // Anew: others could have the old one open, and so hold it.
    watchers.remove_anything(START)?;
    let start = watchers.create_lock(START)?;
    let lock = watchers.lock_exclusively(LockLevel::Start, start, START)?;
    let by = || busy(root, "a command that starts a watcher".to_owned());
    lock.map(Guard::from).ok_or_else(by)
}

fn busy(root: &Dir, by: String) -> OpenError {
    OpenError::Busy {
        path: root.path().to_owned(),
        by,
    }
}

fn group_spool(root: &Dir, aside: &Aside<'_>) -> IoResult<()> {
    let us = rustix::process::geteuid().as_raw();
    let synced_at_once = root.has_whole_sync()?;
    for folder in FOLDERS {
        let (entry, mode) = (OsStr::new(folder), folder_mode(Sharing::Group, folder));
        if [name::TASKS, name::NAMES, name::REJECTED].contains(&folder) {
            aside.continue_renewal(root, entry, folder, mode)?;
        }
        let Some(dir) = root.find_dir(folder)? else {
            if root.has(folder)? && folder != name::RECIPES {
                aside.put_away(root, entry)?;
            }
            continue;
        };
        // First: from here on nobody else puts anything into it.
        close(&dir, mode)?;
        let is_stuck = match folder {
            name::TASKS => Tasks {
                aside,
                us,
                synced_at_once,
            }
            .all(&dir)?,
            name::NAMES => keep(aside, &dir, |entry, stat| {
                stat.st_uid == us && leads_to_task(&dir, entry)
            })?,
            // Refused drops stay their makers' files.
            name::REJECTED => keep(aside, &dir, |entry, stat| {
                is_file(stat) && !entry.as_encoded_bytes().starts_with(b".")
            })?,
            name::WATCHERS => {
                for seat in seats_in(&dir)? {
                    dir.unlink(&seat)?;
                }
                keep(aside, &dir, |entry, _| entry == START)?
            }
            name::STAGING | name::TRASH | name::SESSIONS | name::OPEN | name::SLOTS => {
                put_away_whole(root, aside, &dir, folder)?;
                false
            }
            _ => false,
        };
        if is_stuck {
            aside.renew(root, entry, folder, mode)?;
        }
    }
    // Others could open it, and so may hold it for as long as they like.
    root.remove_anything(name::SWEEP_LOCK)?;
    root.sync_whole()
}

/// Puts away what is not to be kept in a folder. Whether something has to stay behind.
fn keep(aside: &Aside<'_>, dir: &Dir, keeps: impl Fn(&OsStr, &Stat) -> bool) -> IoResult<bool> {
    let mut is_stuck = false;
    for entry in dir.names()? {
        let kept = dir.stat(&entry)?.is_none_or(|stat| keeps(&entry, &stat));
        is_stuck |= !kept && aside.put_away(dir, &entry)? == Fate::Stuck;
    }
    Ok(is_stuck)
}

/// A link of ours to a task; nobody can change it any more.
fn leads_to_task(names: &Dir, entry: &OsStr) -> bool {
    let target = names.read_link(entry).ok().flatten();
    let target = target.as_ref().and_then(|target| target.to_str());
    let id = target.and_then(|target| target.strip_prefix("../tasks/"));
    id.is_some_and(|id| id.parse::<TaskId>().is_ok())
}

/// Nothing in it is kept: indexes and slots are made anew by who needs them, and others could put something
/// into the rest, however deep.
fn put_away_whole(root: &Dir, aside: &Aside<'_>, dir: &Dir, folder: &str) -> IoResult<()> {
    let are_empty_files = [name::OPEN, name::SLOTS].contains(&folder);
    for entry in dir.names()? {
        if are_empty_files && dir.stat(&entry)?.is_some_and(|stat| is_file(&stat)) {
            dir.unlink(&entry)?;
        }
    }
    if !dir.is_empty()? && aside.put_away(root, OsStr::new(folder))? != Fate::Away {
        aside.empty(dir)?;
    }
    Ok(())
}

/// Takes a folder's access lists away, and sets its mode. One that is read-only and that others cannot write
/// needs neither.
fn close(dir: &Dir, mode: Mode) -> IoResult<()> {
    let stat = dir.own_stat()?;
    let closed = dir.remove_access_lists().and_then(|()| {
        if stat.st_mode & 0o7777 == mode.as_raw_mode() {
            return Ok(());
        }
        dir.set_mode(".", mode)
    });
    match closed {
        Err(error)
            if stat.st_mode & WRITABLE & !mode.as_raw_mode() == 0
                && matches!(error.errno(), Some(Errno::ROFS | Errno::PERM)) =>
        {
            Ok(())
        }
        closed => closed,
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
