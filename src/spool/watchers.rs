//! Who watches: one locked file per living watcher, and the lock under which one is started.
//!
//! No pid files: a watcher lives exactly as long as the lock on its file is held, whatever number
//! stands in it. Invariant: a file of this folder appears locked, so an unlocked one is a dead
//! watcher's and may be removed.

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

/// How long something is waited for where it is not seen whether a watcher lives.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(10);
/// A watcher's log is begun anew at this size; its end stays as `log.1`.
const LOG_LIMIT: u64 = 1 << 20;

/// What a watcher says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatcherFile {
    /// Format version.
    pub v: u32,
    /// Its process, for people; whether it lives is told by the lock alone.
    pub pid: i32,
    /// Since when.
    pub started_at: Timestamp,
    /// Which program.
    pub version: String,
    /// Whether a command started it by itself.
    pub autostarted: bool,
    /// The `PATH` by which the programs of its tasks are found, where it is text.
    #[serde(default)]
    pub path: Option<String>,
}

/// A watcher's place among the living, until it is dropped.
#[derive(Debug)]
pub struct WatcherLock {
    dir: Dir,
    file_name: String,
    _lock: Flock,
}

/// The right to start a watcher; handed to it open, so that it ends with the one that holds it.
#[derive(Debug)]
pub struct StartLock(Flock);

impl StartLock {
    /// As the stdin of the watcher to be: inherited, so the lock has no gap.
    pub fn into_file(self) -> File {
        self.0.into_file()
    }
}

impl Spool {
    /// The watchers that live, longest first.
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

    /// Whether any watcher is seen to live.
    pub fn has_watcher(&self) -> IoResult<bool> {
        Ok(self.sees_watcher()? == Some(true))
    }

    /// Whether any watcher lives; `None` where that cannot be seen, because the table of locks is too long for a user of
    /// the group.
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

    /// Whether nobody can be expected to do what was asked for `since` then: no watcher lives, or none was seen for so
    /// long that a living one would have done it.
    pub fn is_unattended(&self, since: Instant) -> IoResult<bool> {
        Ok(match self.sees_watcher()? {
            Some(is_living) => !is_living,
            None => since.elapsed() > UNSEEN_PATIENCE,
        })
    }

    /// Sits down among the living; what dead watchers left is removed.
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
        // Nobody else knows its name yet.
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

    /// Waits for the right to start a watcher, at most so long.
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

    /// Begins the log of autostarted watchers anew, if it is long: its end becomes `log.1`. Returns
    /// its size.
    ///
    /// The file stays the same one. A watcher, its runners and its sweeps have it open, and each
    /// write of theirs goes to its end, wherever that is by then. A line that is written between
    /// the copy and the cut is lost.
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
            // Another process is at it.
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
        // On a full disk the old lines are lost; a log that goes on growing would not help.
        log.set_len(0).map_err(failed)?;
        kept.map(|()| 0)
    }
}

impl Drop for WatcherLock {
    fn drop(&mut self) {
        // The file first, the lock with it: nobody sees an unlocked file of a living watcher.
        let _ = self.dir.unlink(&self.file_name);
    }
}

/// Whether the watcher of a file lives: a shared lock, gone at once, fails exactly then. A user of the
/// group may not open the file, and asks the kernel's table; where that one is too long, `None`: each user can make
/// it so, and a watcher that was killed leaves its file.
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
