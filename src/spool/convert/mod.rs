//! How `init` converts a spool of version 1.
//!
//! In version 1 the users of a group could write in most folders. Not the layout itself (`layout.rs`). What
//! is kept of a task is in `task.rs`, how a file is copied in `copy.rs`, how a folder is replaced in
//! `anew.rs`, and which processes may still be running in `running.rs`. Invariants: files to keep are copied
//! out of a folder in which others could write, never moved. The old folder is put away as a whole. Each step
//! can be repeated.

use rustix::fs::{FileType, Mode, Stat};

use self::anew::Anew;
use self::running::Workers;
use self::task::Tasks;
use crate::spool::disk::{Dir, Guard, IoResult, LockLevel};
use crate::spool::layout::{
    GROUP_READS, OURS_ONLY, Sharing, WRITABLE, folder_mode,
    name::{self, START},
};
use crate::spool::open::{OpenError, StoredSettings, read_older_settings, stored_settings};
use crate::spool::watchers::watcher_files_in;
use crate::task::{Name, TaskId, to_pretty};

mod anew;
mod copy;
mod running;
mod task;

/// The folders in which others could write, or lock something, in every group spool of version 1.
pub(super) const OPEN_FOLDERS: [&str; 7] = [
    name::STAGING,
    name::TASKS,
    name::NAMES,
    name::OPEN,
    name::SESSIONS,
    name::SLOTS,
    name::TRASH,
];
/// The locks in the root.
const ROOT_LOCKS: [&str; 3] = [name::ROOT_LOCK, name::NAMES_LOCK, name::SWEEP_LOCK];

/// Converts a spool of version 1. The caller holds the root's lock.
///
/// # Errors
/// A watcher is running on it, a task is running in a group spool, something is mounted on one of its
/// folders, or a system call fails. Then the spool still has version 1 and can be converted again.
pub(super) fn convert(root: &Dir) -> Result<(), OpenError> {
    let StoredSettings { sharing, settings } = read_older_settings(root)?;
    let stored = to_pretty(&stored_settings(sharing, &settings));
    if sharing == Sharing::Private {
        let _start = refuse_watchers(root, &Workers::read(root)?)?;
        root.replace_durably_as(name::SETTINGS, &stored, OURS_ONLY.file, None)?;
        return Ok(());
    }
    replace_folders(root)?;
    // The group that `init --group` set. The root's group may have been changed.
    let gid = root.stat(name::SETTINGS)?.map(|stat| stat.st_gid);
    root.replace_durably_as(name::SETTINGS, &stored, GROUP_READS.file, gid)?;
    Ok(())
}

/// Replaces the folders in which others could write by new ones.
fn replace_folders(root: &Dir) -> Result<(), OpenError> {
    for folder in OPEN_FOLDERS {
        if root.is_mount_point(folder) {
            let path = root.path_of(folder);
            return Err(OpenError::Mounted { path });
        }
    }
    let workers = Workers::read(root)?;
    let _start = refuse_watchers(root, &workers)?;
    if let Some(tasks) = root.find_dir_here(name::TASKS)?
        && let Some(by) = workers.task(&tasks)?
    {
        return Err(busy(root, by));
    }
    let anew = Anew::of(root)?;
    for folder in OPEN_FOLDERS {
        let mode = folder_mode(Sharing::Group, folder);
        anew.replace(folder, mode, |old, new| fill(folder, old, new))?;
    }
    root.sync_whole()?;
    anew.finish()?;
    Ok(())
}

/// Copies what is kept of an old folder into a new one.
fn fill(folder: &str, old: &Dir, new: &Dir) -> IoResult<()> {
    match folder {
        name::TASKS => Tasks::new(new)?.all(old),
        name::NAMES => copy_names(old, new),
        // Everything else is created again when it is needed, or is not trusted.
        _ => Ok(()),
    }
}

fn copy_names(old: &Dir, new: &Dir) -> IoResult<()> {
    for entry in old.names()? {
        let is_name = entry
            .to_str()
            .is_some_and(|text| text.parse::<Name>().is_ok());
        let Some(target) = is_name.then(|| task_of(old, &entry)).flatten() else {
            continue;
        };
        new.symlink(&target, &entry)?;
    }
    Ok(())
}

/// The target of a link in `names/`, if it is a task.
fn task_of(names: &Dir, entry: &std::ffi::OsStr) -> Option<String> {
    let target = names.read_link(entry).ok()??.into_string().ok()?;
    let id = target.strip_prefix("../tasks/")?;
    id.parse::<TaskId>().is_ok().then_some(target)
}

/// Checks that no watcher is running, and keeps any from starting as long as the guard is held.
fn refuse_watchers(root: &Dir, workers: &Workers) -> Result<Guard, OpenError> {
    let Some(watchers) = root.find_dir_here(name::WATCHERS)? else {
        return Ok(Guard::not_needed());
    };
    if let Some(by) = workers.watcher(&watchers, START)? {
        return Err(busy(root, by));
    }
    for file in watcher_files_in(&watchers)? {
        watchers.remove_anything(&file)?;
    }
    // A new file, because others may have the old one open and hold its lock.
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

/// Replaces the lock files of the root that others can open and that no process of ours holds. The caller
/// takes the root's lock afterwards.
pub(super) fn renew_root_locks(root: &Dir) -> IoResult<()> {
    for lock in ROOT_LOCKS {
        if open_lock(root, lock)? && !Workers::read(root)?.hold(root, lock)? {
            let ours = root.open_dir(".")?.moved_to(root.path().to_owned());
            ours.with_making(OURS_ONLY).replace(lock, b"")?;
        }
    }
    Ok(())
}

/// Whether others can open a lock file, so that they may hold it.
fn open_lock(dir: &Dir, lock: &str) -> IoResult<bool> {
    const OTHERS: u32 = 0o077;
    let stat = dir.stat(lock)?;
    Ok(stat.is_some_and(|stat| is_file(&stat) && stat.st_mode & OTHERS != 0))
}

/// Removes a folder's access lists, and sets its mode and group.
fn set_rights(dir: &Dir, gid: u32, mode: Mode) -> IoResult<()> {
    dir.remove_access_lists()?;
    dir.set_group(".", gid)?;
    dir.set_mode(".", mode)
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
