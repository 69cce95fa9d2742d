//! From version 1 of the spool to version 2, by `init`.
//!
//! In version 1 the users of a group could write in most folders of a group spool, and lock most files; in
//! version 2 they write in the drop box alone. Not the layout itself (`layout.rs`). Invariants: `spool.json`
//! says 2 only once everything else is converted, so a conversion that was cut off is done again; what others
//! could write or lock is made anew, made again by who needs it, or moved to `rejected/`, and no task is
//! deleted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use fs2::FileExt;
use rustix::fs::{FileType, Mode, Stat};

use super::durable::{Dir, Making};
use super::io_error::IoResult;
use super::layout::{
    DROP_BOX, FOLDERS, GROUP_READS, OURS_ONLY, OpenError, SMALL_FILE, Sharing, name, pretty,
    random_bits,
};
use super::rejected::{Reason, plain_file_name, reason_file};
use super::settings_file::{StoredSettings, read_older_settings, stored_settings};
use super::store::{TaskDir, ids_in};
use super::watchers::{START, is_living, seats_in};
use crate::clock::{self, BootId};
use crate::proc;
use crate::task::{FORMAT_VERSION, TaskId, escape_label};

const HIDDEN_PREFIX: &str = ".rejected.";
/// Files of a task that group users could replace, but not the marker `cancel`, which they may leave.
const WRITTEN: [&str; 3] = [name::REQUEST, name::STATUS, name::RESULT];

/// Converts a spool of version 1. The caller holds the root's lock.
///
/// # Errors
/// When a watcher runs on it, when a task runs in a group spool, or when the disk refuses. Then it is still
/// of version 1 and can be converted again.
pub(super) fn convert(root: &Dir) -> Result<(), OpenError> {
    let StoredSettings { sharing, settings } = read_older_settings(root)?;
    let _start = refuse_watchers(root)?;
    if sharing == Sharing::Group {
        refuse_running_tasks(root)?;
        Conversion::of(root)?.group_spool()?;
    }
    let stored = stored_settings(sharing, &settings);
    root.replace_durably(name::SETTINGS, &pretty(&stored))?;
    if sharing == Sharing::Group {
        root.set_mode(name::SETTINGS, GROUP_READS.file)?;
    }
    Ok(())
}

/// Sees that no watcher runs, and that none starts as long as the answer is held.
fn refuse_watchers(root: &Dir) -> Result<Option<std::fs::File>, OpenError> {
    let watched = || busy(root, "a watcher".to_owned());
    let Some(watchers) = root.find_dir(name::WATCHERS)? else {
        return Ok(None);
    };
    let start = watchers.lock_file(START)?;
    if start.try_lock_exclusive().is_err() {
        return Err(watched());
    }
    for seat in seats_in(&watchers)? {
        if is_living(&watchers, &seat)? {
            return Err(watched());
        }
    }
    Ok(Some(start))
}

/// A runner holds its task's files open, and they are about to become others.
fn refuse_running_tasks(root: &Dir) -> Result<(), OpenError> {
    let Some(tasks) = root.find_dir(name::TASKS)? else {
        return Ok(());
    };
    for id in ids_in(&tasks)? {
        // What others have closed to us, no runner of ours is at work in.
        let opened = tasks.find_dir(id.to_string()).ok().flatten();
        if opened.is_some_and(|dir| is_running(&TaskDir { id, dir })) {
            return Err(busy(root, id.to_string()));
        }
    }
    Ok(())
}

/// Whether a runner lives that the owner's last attempt names.
fn is_running(task: &TaskDir) -> bool {
    let last = task.last_attempt().ok();
    let attempt = last.and_then(|last| task.attempt(last).ok().flatten());
    let is_ours = |stat: Stat| stat.st_uid == rustix::process::geteuid().as_raw();
    attempt
        .filter(|attempt| rustix::fs::fstat(attempt).is_ok_and(is_ours))
        .and_then(|attempt| attempt.run())
        .is_some_and(|run| {
            run.boot == BootId::current() && proc::is_alive(run.runner).unwrap_or(true)
        })
        && !task.has_result().unwrap_or(false)
}

fn busy(root: &Dir, by: String) -> OpenError {
    OpenError::Busy {
        path: root.path().to_owned(),
        by,
    }
}

/// One conversion of a group spool.
struct Conversion<'a> {
    root: &'a Dir,
    rejected: Dir,
    us: u32,
}

impl<'a> Conversion<'a> {
    fn of(root: &'a Dir) -> IoResult<Conversion<'a>> {
        let rejected = root.ensure_dir(name::REJECTED)?.with_making(GROUP_READS);
        let us = rustix::process::geteuid().as_raw();
        Ok(Conversion { root, rejected, us })
    }

    fn group_spool(&self) -> IoResult<()> {
        for folder in FOLDERS {
            let Some(dir) = self.root.find_dir(folder)? else {
                continue;
            };
            let mode = match folder {
                name::INCOMING => DROP_BOX,
                name::SLOTS | name::SESSIONS => OURS_ONLY.dir,
                _ => GROUP_READS.dir,
            };
            // First: from here on nobody else puts anything into it.
            close(&dir, mode)?;
            match folder {
                name::TASKS => self.tasks(&dir)?,
                name::NAMES => self.names(&dir)?,
                // What a crash left half made or half removed, and what the tasks of a session share: others
                // could put something into it, however deep.
                name::STAGING | name::TRASH | name::SESSIONS => self.evict_all(&dir)?,
                // Others could lock what is in it.
                name::WATCHERS => {
                    dir.unlink(START)?;
                    self.evict_all(&dir)?;
                }
                name::OPEN | name::SLOTS => self.empty(&dir)?,
                _ => {}
            }
        }
        // Others could open it, and so may hold it for as long as they like.
        self.root.unlink(name::SWEEP_LOCK)?;
        close(self.root, GROUP_READS.dir)
    }

    /// A task that the owner made is closed; every other one is moved to `rejected/`.
    fn tasks(&self, tasks: &Dir) -> IoResult<()> {
        for entry in self.strange(tasks)? {
            self.evict(tasks, &entry)?;
        }
        for task in tasks.names()? {
            if is_hidden(&task) {
                continue;
            }
            let Some(mut dir) = tasks.find_dir(&task)? else {
                continue;
            };
            close(&dir, GROUP_READS.dir)?;
            if self.is_strange_task(&dir)? {
                self.evict(tasks, &task)?;
                continue;
            }
            for file in WRITTEN {
                dir = make_anew(dir, file, GROUP_READS)?;
            }
            // Its other names are marks of attempts, which others are not to write either.
            let lock = dir.stat(name::LOCK)?;
            if lock.is_some_and(|stat| file_type(&stat) == FileType::RegularFile) {
                dir.set_mode(name::LOCK, OURS_ONLY.file)?;
            }
            // It says nothing: it is there to be locked.
            dir.with_making(OURS_ONLY).replace(name::LOCK, b"")?;
        }
        Ok(())
    }

    /// Whether others had a hand in a task. They could leave the marker `cancel`, and nothing else. The
    /// folder is closed by now.
    fn is_strange_task(&self, task: &Dir) -> IoResult<bool> {
        if self.strange(task)?.iter().any(|it| it != name::CANCEL) {
            return Ok(true);
        }
        for file in WRITTEN {
            if task.stat(file)?.is_some_and(|stat| !is_plain(&stat)) {
                return Ok(true);
            }
        }
        let Some(attempts) = task.find_dir(name::ATTEMPTS)? else {
            return Ok(true);
        };
        close(&attempts, GROUP_READS.dir)?;
        self.has_open_attempt(&attempts)
    }

    /// Whether something in `attempts/` is another user's, or a folder that others could write.
    fn has_open_attempt(&self, attempts: &Dir) -> IoResult<bool> {
        for attempt in attempts.names()? {
            let Some(stat) = attempts.stat(&attempt)? else {
                continue;
            };
            let is_folder = file_type(&stat) == FileType::Directory;
            if stat.st_uid != self.us || (is_folder && stat.st_mode & 0o022 != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A name that leads to a task is a link, which nobody can change any more.
    fn names(&self, names: &Dir) -> IoResult<()> {
        for entry in self.strange(names)? {
            let stat = names.stat(&entry)?;
            if stat.is_some_and(|stat| file_type(&stat) != FileType::Symlink) {
                self.evict(names, &entry)?;
            }
        }
        Ok(())
    }

    fn evict_all(&self, dir: &Dir) -> IoResult<()> {
        for entry in dir.names()? {
            if !is_hidden(&entry) {
                self.evict(dir, &entry)?;
            }
        }
        Ok(())
    }

    /// What is in it is made again by who needs it: indexes by the next watcher, slots by runners.
    fn empty(&self, dir: &Dir) -> IoResult<()> {
        for entry in dir.names()? {
            if !is_hidden(&entry) && dir.unlink(&entry).is_err() {
                self.evict(dir, &entry)?;
            }
        }
        Ok(())
    }

    /// What others made in a folder, and what is not yet moved aside.
    fn strange(&self, dir: &Dir) -> IoResult<Vec<OsString>> {
        let mut strange = Vec::new();
        for entry in dir.names()? {
            let stat = dir.stat(&entry)?;
            if stat.is_some_and(|stat| stat.st_uid != self.us) && !is_hidden(&entry) {
                strange.push(entry);
            }
        }
        Ok(strange)
    }

    /// Moves something to `rejected/`, with the reason. A folder that its owner has closed to us can only
    /// be renamed where it is: there it gets a hidden name.
    fn evict(&self, dir: &Dir, entry: &OsStr) -> IoResult<()> {
        let now = clock::wall();
        let id = TaskId::from_parts(now.unix_ms().unsigned_abs(), random_bits());
        let kept = format!("{id}-{}", plain_file_name(entry.as_bytes()));
        let reason = Reason {
            v: FORMAT_VERSION,
            name: escape_label(entry.as_bytes()),
            reason: format!(
                "it was in {} of a spool of version 1, where others could write or lock it",
                dir.name().display()
            ),
            hint: "if it was a task, submit it again".to_owned(),
            rejected_at: now,
        };
        self.rejected
            .replace(&reason_file(&kept), &pretty(&reason))?;
        let place = match dir.rename_new(entry, &self.rejected, &kept) {
            Err(error) if error.is_denied() => {
                let hidden = format!("{HIDDEN_PREFIX}{kept}");
                dir.rename_new(entry, dir, &hidden)?;
                dir.path_of(hidden)
            }
            moved => moved.map(|()| self.rejected.path_of(&kept))?,
        };
        tracing::warn!("moved to {}: {}", place.display(), reason.reason);
        Ok(())
    }
}

/// What was moved aside where it is, in a conversion before or in this one.
fn is_hidden(entry: &OsStr) -> bool {
    entry.as_bytes().starts_with(HIDDEN_PREFIX.as_bytes())
}

fn file_type(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A file that nobody has under another name, and that is not longer than we read.
fn is_plain(stat: &Stat) -> bool {
    file_type(stat) == FileType::RegularFile
        && stat.st_nlink == 1
        && stat.st_size.unsigned_abs() <= SMALL_FILE as u64
}

/// Writes a file's content into a new one: others may have the old one open, to write or to lock. The new
/// one is never readable for more users than the old one was.
fn make_anew(dir: Dir, file: &str, making: Making) -> IoResult<Dir> {
    let Some(stat) = dir.stat(file)? else {
        return Ok(dir);
    };
    let was = Mode::from_raw_mode(stat.st_mode) | OURS_ONLY.file;
    let dir = dir.with_making(Making {
        file: making.file & was,
        ..making
    });
    if let Some(bytes) = dir.read(file, SMALL_FILE)? {
        dir.replace_durably(file, &bytes)?;
    }
    Ok(dir)
}

/// Takes a folder's access lists away, and sets its mode.
fn close(dir: &Dir, mode: Mode) -> IoResult<()> {
    dir.remove_access_lists()?;
    dir.set_mode(".", mode)
}
