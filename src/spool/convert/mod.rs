//! How `init` replaces folders of a group spool in which others could write.
//!
//! In version 1 the users of a group could write in most folders. In version 2 they can do so if modes or
//! access lists were lost. Not the layout itself (`layout.rs`). The folders are found in `exposed.rs`. What
//! is kept of a task is in `task.rs`, how a file is copied in `copy.rs`, how a folder is replaced in
//! `anew.rs`, and which processes may still be running in `running.rs`. Invariants: files to keep are copied
//! out of a folder in which others could write, never moved. The old folder is put away as a whole. Each step
//! can be repeated.

use rustix::fs::{FileType, Mode, Stat};

use self::anew::Anew;
use self::exposed::{ALWAYS, exposed_folders, is_exposed_file};
use self::running::Workers;
use self::task::Tasks;
use crate::spool::disk::{Dir, Guard, IoResult, LockLevel, absent_is_none};
use crate::spool::layout::{
    FOLDERS, GROUP_READS, OURS_ONLY, Sharing, WRITABLE, folder_mode,
    name::{self, CONVERTING, START},
};
use crate::spool::open::{OpenError, StoredSettings, read_older_settings, stored_settings};
use crate::spool::tasks::{TaskDir, ids_in};
use crate::spool::watchers::watcher_files_in;
use crate::task::{Name, TaskId, to_pretty};

mod anew;
mod copy;
mod exposed;
mod running;
mod task;

pub(super) use exposed::is_exposed;

/// The locks in the root.
const ROOT_LOCKS: [&str; 2] = [name::NAMES_LOCK, name::SWEEP_LOCK];

/// Converts a spool of version 1. The caller holds the root's lock.
///
/// # Errors
/// A watcher is running on it, a task is running in a group spool, something is mounted on one of its
/// folders, or a system call fails. Then the spool still has version 1 and can be converted again.
pub(super) fn convert(root: &Dir) -> Result<(), OpenError> {
    let StoredSettings { sharing, settings } = read_older_settings(root)?;
    if sharing == Sharing::Private {
        let _start = refuse_watchers(root, &Workers::read(root)?)?;
        let stored = stored_settings(sharing, &settings);
        root.replace_durably_as(name::SETTINGS, &to_pretty(&stored), OURS_ONLY.file, None)?;
        return Ok(());
    }
    let mut folders = exposed_folders(root)?;
    folders.extend(ALWAYS);
    let trust = Trust::Version1;
    let settings = replace_folders(root, &folders, trust)?.then_some(settings);
    write_settings(root, &settings.unwrap_or_default())
}

/// Replaces what others could write or lock in a group spool of version 2. The caller holds the root's lock.
///
/// # Errors
/// As [`convert`].
pub(super) fn mend_exposed(
    root: &Dir,
    settings: &serde_json::Map<String, serde_json::Value>,
) -> Result<(), OpenError> {
    let folders = exposed_folders(root)?;
    let is_settings_exposed = is_exposed_file(root, name::SETTINGS)?;
    if !folders.is_empty() || is_settings_exposed || root.has(CONVERTING)? {
        if replace_folders(root, &folders, Trust::Version2)? {
            write_settings(root, settings)?;
        } else {
            write_settings(root, &serde_json::Map::new())?;
        }
    }
    renew_locks(root)
}

/// Whether [`mend_exposed`] would have anything to do.
pub(super) fn is_anything_exposed(root: &Dir) -> IoResult<bool> {
    if root.has(CONVERTING)?
        || is_exposed_file(root, name::SETTINGS)?
        || !exposed_folders(root)?.is_empty()
    {
        return Ok(true);
    }
    for lock in ROOT_LOCKS {
        if open_lock(root, lock)? {
            return Ok(true);
        }
    }
    let Some(tasks) = absent_is_none(root.open_dir(name::TASKS))? else {
        return Ok(false);
    };
    let has_open_lock = |id: TaskId| {
        let dir = tasks.find_dir_here(id.to_string()).ok().flatten();
        dir.is_some_and(|dir| open_lock(&dir, name::LOCK).unwrap_or(false))
    };
    Ok(ids_in(&tasks)?.into_iter().any(has_open_lock))
}

/// How far the files of a task are trusted if others could write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Their modes show who could write them: a runner created its folders and results so that others could
    /// not.
    Version1,
    /// All modes may have been changed at once.
    Version2,
}

/// Replaces these folders by new ones; `false` if the settings are not trusted.
fn replace_folders(root: &Dir, folders: &[&'static str], trust: Trust) -> Result<bool, OpenError> {
    for folder in folders {
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
    let was_exposed = is_exposed(&root.own_stat()?);
    let anew = Anew::of(root)?;
    // The watchers' folder is last: our lock in it keeps a watcher from starting.
    let is_last = |folder: &str| folder == name::WATCHERS;
    let in_order = FOLDERS.into_iter().filter(|folder| !is_last(folder));
    for folder in in_order.chain([name::WATCHERS]) {
        let mode = folder_mode(Sharing::Group, folder);
        if folders.contains(&folder) || anew.has_started(folder)? {
            anew.replace(folder, mode, |old, new| fill(folder, old, new, trust))?;
        }
    }
    let is_trusted = !is_exposed_file(root, name::SETTINGS)?;
    if !is_trusted {
        anew.keep_copy(name::SETTINGS)?;
        tracing::warn!(
            "the settings were reset to the defaults, because others could write {}",
            root.path_of(name::SETTINGS).display()
        );
    }
    // Others could open it, so they may hold it for any time.
    if trust == Trust::Version1 {
        root.remove_anything(name::SWEEP_LOCK)?;
    }
    root.sync_whole()?;
    anew.finish()?;
    if was_exposed {
        root.set_mode(".", OURS_ONLY.dir)?;
    }
    // An exposed root counts as a spool by its identity, so the identity is removed after the root is fixed.
    for file in [name::IDENTITY, name::SWEEP] {
        if was_exposed || is_exposed_file(root, file)? {
            root.remove_anything(file)?;
        }
    }
    Ok(is_trusted)
}

/// Copies what is kept of an old folder into a new one.
fn fill(folder: &str, old: &Dir, new: &Dir, trust: Trust) -> IoResult<()> {
    match folder {
        name::TASKS => Tasks::new(new, trust)?.all(old),
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

fn write_settings(
    root: &Dir,
    settings: &serde_json::Map<String, serde_json::Value>,
) -> Result<(), OpenError> {
    let stored = to_pretty(&stored_settings(Sharing::Group, settings));
    // The group that `init --group` set. The root's group may have been changed.
    let gid = root.stat(name::SETTINGS)?.map(|stat| stat.st_gid);
    root.replace_durably_as(name::SETTINGS, &stored, GROUP_READS.file, gid)?;
    Ok(())
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

/// Replaces the root's lock file if others can open it and no process of ours holds it. The caller takes the
/// lock afterwards.
pub(super) fn renew_root_lock(root: &Dir) -> IoResult<()> {
    match open_lock(root, name::ROOT_LOCK)? {
        true => renew_lock(root, name::ROOT_LOCK, &Workers::read(root)?),
        false => Ok(()),
    }
}

/// Replaces the other lock files of the root, and those of the tasks, in the same cases.
fn renew_locks(root: &Dir) -> Result<(), OpenError> {
    let mut workers = None;
    for lock in ROOT_LOCKS {
        if open_lock(root, lock)? {
            let workers = known(&mut workers, root)?;
            renew_lock(root, lock, workers)?;
        }
    }
    let Some(tasks) = absent_is_none(root.open_dir(name::TASKS))? else {
        return Ok(());
    };
    for id in ids_in(&tasks)? {
        let Ok(Some(dir)) = tasks.find_dir_here(id.to_string()) else {
            continue;
        };
        if !open_lock(&dir, name::LOCK).unwrap_or(false) {
            continue;
        }
        let task = TaskDir::of(id, dir);
        if known(&mut workers, root)?.who_runs(&task)?.is_none() {
            renew_lock(&task.dir, name::LOCK, known(&mut workers, root)?)?;
        }
    }
    Ok(())
}

fn known<'a>(workers: &'a mut Option<Workers>, root: &Dir) -> IoResult<&'a Workers> {
    if workers.is_none() {
        *workers = Some(Workers::read(root)?);
    }
    Ok(workers.get_or_insert_with(Workers::none))
}

/// Whether others can open a lock file, so that they may hold it.
fn open_lock(dir: &Dir, lock: &str) -> IoResult<bool> {
    const OTHERS: u32 = 0o077;
    let stat = dir.stat(lock)?;
    Ok(stat.is_some_and(|stat| is_file(&stat) && stat.st_mode & OTHERS != 0))
}

fn renew_lock(dir: &Dir, lock: &str, workers: &Workers) -> IoResult<()> {
    if workers.hold(dir, lock)? {
        return Ok(());
    }
    let ours = dir.open_dir(".")?.moved_to(dir.path().to_owned());
    ours.with_making(OURS_ONLY).replace(lock, b"")
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
