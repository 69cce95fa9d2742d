//! The running watchers: one locked file for each, and the lock under which a watcher is started.
//!
//! These are not pid files: a watcher is running exactly as long as the lock on its file is held. The pid in
//! the file is not used for this. Invariant: a file of this folder is locked before it gets its name, so an
//! unlocked one belongs to a watcher that exited, and may be removed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use super::disk::{
    Dir, Flock, IoError, IoResult, LockLevel, absent_is_none, lock_table, random_bits,
};
use super::layout::{
    SMALL_FILE,
    name::{self, LOG, OLD_LOG, START, WATCHER_SUFFIX},
};
use super::open::Spool;
use crate::task::{Timestamp, to_pretty};

/// How long to wait if it is not known whether a watcher is running.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(10);
/// At this size, in bytes, a new watcher log is started. The end of the old one is kept as `log.1`.
const LOG_LIMIT: u64 = 1 << 20;

/// What a watcher writes into its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatcherFile {
    /// Format version.
    pub v: u32,
    /// Its process id, for people. Only the lock shows whether it is running.
    pub pid: i32,
    /// When it was started.
    pub started_at: Timestamp,
    /// The version of its program.
    pub version: String,
    /// Whether a command started it automatically.
    pub autostarted: bool,
    /// The `PATH` in which the programs of its tasks are searched for, if it is text.
    #[serde(default)]
    pub path: Option<String>,
}

/// A watcher's lock on its file. The watcher counts as running until this is dropped.
#[derive(Debug)]
pub struct WatcherLock {
    dir: Dir,
    file_name: String,
    _lock: Flock,
}

/// The right to start a watcher. The new watcher inherits the open file, and the right ends when it exits.
#[derive(Debug)]
pub struct StartLock(Flock);

impl StartLock {
    /// For the stdin of the new watcher: it inherits the file, so the lock is never released before it runs.
    pub fn into_file(self) -> File {
        self.0.into_file()
    }
}

impl Spool {
    /// The running watchers, the one started first comes first.
    pub fn living_watchers(&self) -> IoResult<Vec<WatcherFile>> {
        let dir = self.folder(name::WATCHERS)?;
        let mut living = Vec::new();
        for file_name in watcher_files_in(&dir)? {
            if is_living(&dir, &file_name)? != Some(true) {
                continue;
            }
            // Of a group spool only the owner may read it.
            let bytes = match dir.read(&file_name, SMALL_FILE) {
                Err(error) if error.is_denied() => None,
                read => read?,
            };
            let bytes = bytes.unwrap_or_default();
            living.extend(serde_json::from_slice::<WatcherFile>(&bytes).ok());
        }
        living.sort_by_key(|watcher| watcher.started_at);
        Ok(living)
    }

    /// Whether a watcher is known to run.
    pub fn has_watcher(&self) -> IoResult<bool> {
        Ok(self.sees_watcher()? == Some(true))
    }

    /// Whether any watcher is running. `None` if a user of the group cannot know it, because the kernel's
    /// table of locks is too long.
    pub fn sees_watcher(&self) -> IoResult<Option<bool>> {
        let dir = self.folder(name::WATCHERS)?;
        let mut seen = Some(false);
        for file_name in watcher_files_in(&dir)? {
            match is_living(&dir, &file_name)? {
                Some(true) => return Ok(Some(true)),
                Some(false) => {}
                None => seen = None,
            }
        }
        Ok(seen)
    }

    /// Whether no watcher can be expected to do what was asked for at `since`: no watcher is running, or it
    /// is not known and a running watcher would have done it by now.
    pub fn is_unattended(&self, since: Instant) -> IoResult<bool> {
        Ok(match self.sees_watcher()? {
            Some(is_running) => !is_running,
            None => since.elapsed() > UNSEEN_PATIENCE,
        })
    }

    /// Creates and locks the file of this watcher. Files of watchers that exited are removed.
    pub fn lock_watcher_file(&self, watcher: &WatcherFile) -> IoResult<WatcherLock> {
        let dir = self.folder(name::WATCHERS)?;
        for file_name in watcher_files_in(&dir)? {
            if let Some(file) = absent_is_none(dir.open_file(&file_name))?
                && dir
                    .lock_exclusively(LockLevel::Watcher, file, &file_name)?
                    .is_some()
            {
                dir.unlink(&file_name)?;
            }
        }
        let file_name = format!("{:032x}{WATCHER_SUFFIX}", random_bits());
        let between = format!(".{file_name}");
        let mut file = dir.create_lock(&between)?;
        let failed = |error| IoError::new("write", dir.path_of(&file_name), error);
        file.write_all(&to_pretty(watcher)).map_err(failed)?;
        // No other process knows its name yet.
        let busy = || {
            IoError::new(
                "lock",
                dir.path_of(&between),
                std::io::ErrorKind::WouldBlock,
            )
        };
        let lock = dir
            .lock_exclusively(LockLevel::Watcher, file, &between)?
            .ok_or_else(busy)?;
        dir.rename_new(&between, &dir, &file_name)?;
        Ok(WatcherLock {
            dir,
            file_name,
            _lock: lock,
        })
    }

    /// Waits for the right to start a watcher, at most for `patience`.
    pub fn start_lock(&self, patience: Duration) -> IoResult<Option<StartLock>> {
        let lock = self
            .folder(name::WATCHERS)?
            .lock_within(LockLevel::Start, START, patience)?;
        Ok(lock.map(StartLock))
    }

    /// The log of autostarted watchers, for appending.
    pub fn watcher_log(&self) -> IoResult<File> {
        self.bound_watcher_log()?;
        self.folder(name::WATCHERS)?.append(LOG)
    }

    /// Empties the log of autostarted watchers, if it is long, and keeps its end as `log.1`. Returns the size
    /// of the log, in bytes.
    ///
    /// The file is not replaced: a watcher, its runners and its sweepers have it open, and each of their
    /// writes is appended at its current end. A line that is written between the copy and the cut is lost.
    pub fn bound_watcher_log(&self) -> IoResult<u64> {
        let dir = self.folder(name::WATCHERS)?;
        let is_file = |stat: &Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
        };
        let Some(stat) = dir.stat(LOG)?.filter(is_file) else {
            return Ok(0);
        };
        let size = stat.st_size.unsigned_abs();
        if size <= LOG_LIMIT {
            return Ok(size);
        }
        let Some(lock) = dir.lock_exclusively(LockLevel::Moment, dir.open_writable(LOG)?, LOG)?
        else {
            // Another process is shortening it.
            return Ok(size);
        };
        let log = lock.file();
        let failed = |source| IoError::new("shorten", dir.path_of(LOG), source);
        let size = log.metadata().map_err(failed)?.len();
        let mut end = Vec::new();
        let mut from = log;
        from.seek(SeekFrom::Start(size.saturating_sub(LOG_LIMIT)))
            .map_err(failed)?;
        from.take(2 * LOG_LIMIT)
            .read_to_end(&mut end)
            .map_err(failed)?;
        let first = end.iter().position(|byte| *byte == b'\n');
        let whole_lines = first.map_or(&end[..], |first| &end[first + 1..]);
        let kept = dir.replace(OLD_LOG, whole_lines);
        // On a full disk the old lines are lost. To let the log grow further would be worse.
        log.set_len(0).map_err(failed)?;
        kept.map(|()| 0)
    }
}

impl Drop for WatcherLock {
    fn drop(&mut self) {
        // The file is removed before the lock is released: a running watcher's file is never seen unlocked.
        let _ = self.dir.unlink(&self.file_name);
    }
}

/// Whether the watcher of a file is running: then, and only then, taking a shared lock fails. A user of the
/// group may not open the file, and reads the kernel's table of locks instead. `None` if that table is too
/// long. Any user can make it too long, and a watcher that was killed leaves its file, so neither answer is
/// safe then.
pub(super) fn is_living(dir: &Dir, file_name: &str) -> IoResult<Option<bool>> {
    match absent_is_none(dir.open_file(file_name)) {
        Ok(None) => Ok(Some(false)),
        Ok(Some(file)) => dir.is_locked(file, file_name).map(Some),
        Err(error) if error.is_denied() => lock_table::is_locked(dir, file_name),
        Err(error) => Err(error),
    }
}

pub(super) fn watcher_files_in(dir: &Dir) -> IoResult<Vec<String>> {
    let mut files = Vec::new();
    dir.each_name(|name, _| {
        if let Ok(name) = std::str::from_utf8(name)
            && name.ends_with(WATCHER_SUFFIX)
            && !name.starts_with('.')
        {
            files.push(name.to_owned());
        }
        true
    })?;
    Ok(files)
}
