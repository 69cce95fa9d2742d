//! What a conversion keeps of a task.
//!
//! Not where the rest goes (`aside.rs`). In version 1 a group user could edit a task's request and status,
//! and rename all files and folders in it, also the owner's; so the owner's uid proves nothing. Invariant:
//! what is kept is on a list here, stands in its place with the mode that version 1 gave it, and belongs to
//! the owner; what others could have open is made anew.

use std::ffi::{OsStr, OsString};

use rustix::fs::{Mode, Stat};

use super::aside::{Aside, Fate, concerns_all};
use super::{WRITABLE, close, is_dir, is_file};
use crate::spool::disk::{Dir, IoResult, Making};
use crate::spool::layout::{GROUP_READS, OURS_ONLY, SMALL_FILE, name};
use crate::spool::tasks::TaskDir;
use crate::task::{ResultFile, TaskId};

/// Larger than any result of version 1: its output is at most 1 MiB, of which each byte can take six.
const RESULT_CAP: usize = 16 << 20;
/// A runner made the folder of an attempt like this, and no group user can change it.
const ATTEMPT_MODE: u32 = 0o2750;
/// The group could read each request.
const GROUP_CAN_READ: u32 = 0o040;

pub(super) struct Tasks<'a> {
    pub aside: &'a Aside<'a>,
    pub us: u32,
    /// Whether one sync at the end makes all new files durable.
    pub synced_at_once: bool,
}

impl Tasks<'_> {
    /// Converts what lies in `tasks/`, which is closed by now. Whether something has to stay behind.
    pub fn all(&self, tasks: &Dir) -> IoResult<bool> {
        let mut is_stuck = false;
        for entry in tasks.names()? {
            let kept = match self.one(tasks, &entry) {
                Err(error) if concerns_all(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!("{error}");
                    false
                }
                Ok(kept) => kept,
            };
            if !kept {
                is_stuck |= self.aside.put_away(tasks, &entry)? == Fate::Stuck;
            }
        }
        Ok(is_stuck)
    }

    /// Closes one task and converts it; `false` where it is none of the owner's.
    fn one(&self, tasks: &Dir, entry: &OsString) -> IoResult<bool> {
        let id: Option<TaskId> = entry.to_str().and_then(|text| text.parse().ok());
        let Some(id) = id else { return Ok(false) };
        let key = id.to_string();
        self.aside
            .continue_renewal(tasks, entry, &key, GROUP_READS.dir)?;
        if !tasks
            .stat(entry)?
            .is_some_and(|stat| self.is_our_dir(&stat))
        {
            return Ok(false);
        }
        // First: from here on nobody else moves anything in it.
        let dir = open_closed(tasks, entry)?;
        let is_request = |stat: &Stat| self.is_our_file(stat) && stat.st_mode & GROUP_CAN_READ != 0;
        if dir
            .stat(name::REQUEST)?
            .is_some_and(|stat| !is_request(&stat))
        {
            return Ok(false);
        }
        let mut is_stuck = false;
        for entry in dir.names()? {
            if !self.keeps(&dir, &entry, id)? {
                is_stuck |= self.remove(&dir, &entry)? == Fate::Stuck;
            }
        }
        let dir = if is_stuck {
            self.aside.renew(tasks, entry, &key, GROUP_READS.dir)?;
            tasks.open_dir(entry)?
        } else {
            dir
        };
        let task = TaskDir { id, dir };
        self.attempts(&task)?;
        self.make_anew(&task.dir)?;
        Ok(true)
    }

    /// Whether an entry of a task's folder is what its name says.
    fn keeps(&self, dir: &Dir, entry: &OsStr, id: TaskId) -> IoResult<bool> {
        let Some(stat) = dir.stat(entry)? else {
            return Ok(true);
        };
        Ok(match entry.to_str() {
            Some(name::REQUEST | name::STATUS | name::LOCK) => self.is_our_file(&stat),
            // Others may leave it.
            Some(name::CANCEL) => is_file(&stat),
            Some(name::RESULT) => self.is_our_file(&stat) && keeps_result(dir, &stat, id)?,
            Some(name::ATTEMPTS) => self.is_our_dir(&stat),
            _ => false,
        })
    }

    /// Whether something that is not kept could be put away.
    pub(super) fn is_away(&self, dir: &Dir, entry: &OsStr) -> IoResult<bool> {
        Ok(self.aside.put_away(dir, entry)? == Fate::Away)
    }

    /// What is not kept: a file in the making is removed, all else is put away.
    fn remove(&self, dir: &Dir, entry: &OsStr) -> IoResult<Fate> {
        let is_hidden = entry.as_encoded_bytes().starts_with(b".");
        let is_ours = dir.stat(entry)?.is_some_and(|stat| self.is_our_file(&stat));
        if is_hidden && is_ours && dir.unlink(entry).is_ok() {
            return Ok(Fate::Away);
        }
        self.aside.put_away(dir, entry)
    }

    /// Keeps the attempts that a runner made for this task.
    fn attempts(&self, task: &TaskDir) -> IoResult<()> {
        let dir = &task.dir;
        let key = format!("{}.{}", task.id, name::ATTEMPTS);
        let entry = OsStr::new(name::ATTEMPTS);
        let mode = GROUP_READS.dir;
        self.aside.continue_renewal(dir, entry, &key, mode)?;
        if !dir.has(entry)? {
            return Ok(());
        }
        let attempts = open_closed(dir, entry)?;
        let mut is_stuck = false;
        for entry in attempts.names()? {
            if !self.keeps_attempt(task, &attempts, &entry)? {
                // Marks of a boot go: without one an attempt counts as started.
                is_stuck |= self.remove(&attempts, &entry)? == Fate::Stuck;
            }
        }
        if is_stuck {
            self.aside.renew(dir, entry, &key, mode)?;
        }
        Ok(())
    }

    fn keeps_attempt(&self, task: &TaskDir, attempts: &Dir, entry: &OsStr) -> IoResult<bool> {
        let number: Option<u32> = entry.to_str().and_then(|text| text.parse().ok());
        let is_made_by_runner =
            |stat: Stat| self.is_our_dir(&stat) && stat.st_mode & 0o7777 == ATTEMPT_MODE;
        let (Some(number), true) = (number, attempts.stat(entry)?.is_some_and(is_made_by_runner))
        else {
            return Ok(false);
        };
        let attempt = attempts.open_dir(entry)?;
        attempt.remove_access_lists()?;
        if !self.close_all_in(&attempt, 0)? {
            return Ok(false);
        }
        // A folder above it may be another task's, renamed.
        let run = task.attempt(number)?.and_then(|attempt| attempt.run());
        Ok(run.is_none_or(|run| run.task_id == task.id && run.attempt == number))
    }

    /// Writes into new files what others could have open, to write or to lock.
    fn make_anew(&self, dir: &Dir) -> IoResult<()> {
        for file in [name::REQUEST, name::STATUS, name::RESULT] {
            let Some(stat) = dir.stat(file)? else {
                continue;
            };
            // A result of a runner's, which nobody else could write.
            if file == name::RESULT && stat.st_mode & WRITABLE == 0 {
                continue;
            }
            match self.copy(dir, file, &stat) {
                // It says nothing that cannot be found out.
                Err(error) if file == name::STATUS && error.is_denied() => {
                    dir.unlink(file)?;
                }
                copied => copied?,
            }
        }
        let again = dir.open_dir(".")?.moved_to(dir.path().to_owned());
        let shared = again.with_making(GROUP_READS);
        if dir.has(name::CANCEL)? {
            shared.replace(name::CANCEL, b"")?;
        }
        let ours = shared.with_making(OURS_ONLY);
        ours.replace(name::LOCK, b"")?;
        // Some backups keep no empty folders.
        let made = ours.with_making(GROUP_READS).ensure_dir(name::ATTEMPTS)?;
        close(&made, GROUP_READS.dir)
    }

    /// Writes a file's content into a new one, which is never readable for more users than the old one was.
    fn copy(&self, dir: &Dir, file: &str, stat: &Stat) -> IoResult<()> {
        let was = Mode::from_raw_mode(stat.st_mode) | OURS_ONLY.file;
        let making = Making {
            file: GROUP_READS.file & was,
            ..GROUP_READS
        };
        let again = dir.open_dir(".")?.moved_to(dir.path().to_owned());
        let dir = again.with_making(making);
        match dir.read(file, SMALL_FILE)? {
            Some(bytes) if bytes.len() <= SMALL_FILE && self.synced_at_once => {
                dir.replace(file, &bytes)
            }
            Some(bytes) if bytes.len() <= SMALL_FILE => dir.replace_durably(file, &bytes),
            // Nothing that is read is as long.
            _ => dir.unlink(file).map(|_| ()),
        }
    }

    fn is_our_file(&self, stat: &Stat) -> bool {
        is_file(stat) && stat.st_uid == self.us
    }

    fn is_our_dir(&self, stat: &Stat) -> bool {
        is_dir(stat) && stat.st_uid == self.us
    }
}

/// Whether a result can be believed. A runner made it so that nobody else could write it; one of another
/// task was moved here. A task of which nothing ran has one that the group could write: it counts as long
/// as it says no more than what a cancellation would do.
fn keeps_result(dir: &Dir, stat: &Stat, id: TaskId) -> IoResult<bool> {
    let is_closed = stat.st_mode & WRITABLE == 0;
    if is_closed && stat.st_mode & 0o600 != 0o600 && stat.st_nlink == 1 {
        dir.set_mode(name::RESULT, OURS_ONLY.file)?;
    }
    let bytes = dir.read(name::RESULT, RESULT_CAP)?.unwrap_or_default();
    if bytes.len() > RESULT_CAP {
        return Ok(false);
    }
    Ok(match serde_json::from_slice::<ResultFile>(&bytes) {
        Ok(result) => {
            let gave_nothing =
                !result.ok && result.output.is_none() && result.output_file.is_none();
            result.task_id == id && (is_closed || gave_nothing)
        }
        // Damaged, or of a newer program: it is kept, and the task is not run again.
        Err(_) => is_closed,
    })
}

/// Opens a folder of ours in a closed one, also where it is shut, and closes it to others.
fn open_closed(parent: &Dir, entry: &OsStr) -> IoResult<Dir> {
    parent.set_mode(entry, GROUP_READS.dir)?;
    let dir = parent.open_dir(entry)?;
    close(&dir, GROUP_READS.dir)?;
    Ok(dir)
}
