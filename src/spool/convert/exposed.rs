//! Finds the folders and files of a group spool in which others could write.
//!
//! Not what is done about them (`mod.rs`). Invariant: a folder that `init` has closed and not yet replaced
//! has a special mode, which shows this also after `init` was killed.

use rustix::fs::Stat;

use super::{WRITABLE, is_dir, is_file};
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::{CLOSED, FOLDERS, name};
use crate::spool::tasks::ids_in;

/// The folders in which others could write, or lock something, in every spool of version 1.
pub(super) const ALWAYS: [&str; 7] = [
    name::STAGING,
    name::TASKS,
    name::NAMES,
    name::OPEN,
    name::SESSIONS,
    name::SLOTS,
    name::TRASH,
];
/// The folders whose entries may belong to other users.
const OF_ANYBODY: [&str; 2] = [name::REJECTED, name::RECIPES];

/// Whether others can write a folder or file, or could write it until `init` closed it.
pub(in crate::spool) fn is_exposed(stat: &Stat) -> bool {
    stat.st_mode & WRITABLE != 0 || (is_dir(stat) && stat.st_mode & 0o7777 == CLOSED.as_raw_mode())
}

/// Whether others can write a file of the root, or the file has a second name.
pub(super) fn is_exposed_file(root: &Dir, file: &str) -> IoResult<bool> {
    let stat = root.stat(file)?;
    Ok(stat.is_some_and(|stat| !is_file(&stat) || is_exposed(&stat) || stat.st_nlink > 1))
}

/// The folders of the root in which others could write, without the drop box, which is meant for others.
pub(super) fn exposed_folders(root: &Dir) -> IoResult<Vec<&'static str>> {
    let us = rustix::process::geteuid().as_raw();
    let is_root_exposed = is_exposed(&root.own_stat()?);
    let mut exposed = Vec::new();
    for folder in FOLDERS.into_iter().filter(|name| *name != name::INCOMING) {
        let stat = match root.stat(folder) {
            // Only the user who mounted a FUSE file system can read its metadata.
            Err(_) if root.is_mount_point(folder) && folder != name::RECIPES => {
                exposed.push(folder);
                continue;
            }
            stat => stat?,
        };
        let Some(stat) = stat else {
            continue;
        };
        let is_recipes = folder == name::RECIPES;
        // `recipes` may be a link, or belong to another user: each recipe is checked before it is run.
        let is_odd = !is_recipes && (!is_dir(&stat) || stat.st_uid != us);
        let is_open = is_dir(&stat) && stat.st_uid == us && is_exposed(&stat);
        let has_foreign = !is_odd && !is_recipes && has_foreign(root, folder, us);
        if is_odd || is_open || has_foreign || (is_root_exposed && !is_recipes) {
            exposed.push(folder);
        }
    }
    // The entries of each are found by those of the other, so both are replaced.
    for (one, other) in [(name::OPEN, name::SESSIONS), (name::SESSIONS, name::OPEN)] {
        if exposed.contains(&one) && !exposed.contains(&other) && root.has(other)? {
            exposed.push(other);
        }
    }
    Ok(exposed)
}

/// Whether an entry of a folder belongs to another user, or is part of a task and others can write it.
fn has_foreign(root: &Dir, folder: &str, us: u32) -> bool {
    let Ok(Some(dir)) = root.find_dir_here(folder) else {
        return false;
    };
    if folder == name::TASKS {
        return has_open_task(&dir, us);
    }
    let is_foreign = |entry: &std::ffi::OsString| {
        let stat = dir.stat(entry).ok().flatten();
        stat.is_some_and(|stat: Stat| stat.st_uid != us)
    };
    !OF_ANYBODY.contains(&folder) && dir.names().is_ok_and(|names| names.iter().any(is_foreign))
}

fn has_open_task(tasks: &Dir, us: u32) -> bool {
    const FILES: [&str; 4] = [name::REQUEST, name::STATUS, name::RESULT, name::ORIGIN];
    let is_bad = |dir: &Dir, is_folder: bool, entry: &str| {
        let stat = dir.stat(entry).ok().flatten();
        stat.is_some_and(|stat| {
            (stat.st_uid != us || is_exposed(&stat)) && is_folder == is_dir(&stat)
        })
    };
    ids_in(tasks).unwrap_or_default().into_iter().any(|id| {
        let id = id.to_string();
        if is_bad(tasks, true, &id) {
            return true;
        }
        let Ok(Some(task)) = tasks.find_dir_here(id) else {
            return false;
        };
        if is_bad(&task, true, name::ATTEMPTS)
            || FILES.iter().any(|file| is_bad(&task, false, file))
        {
            return true;
        }
        let Ok(Some(attempts)) = task.find_dir_here(name::ATTEMPTS) else {
            return false;
        };
        attempts.names().unwrap_or_default().iter().any(|entry| {
            let attempt = entry.to_str().unwrap_or_default();
            is_bad(&attempts, true, attempt)
        })
    })
}
