//! What is kept of a task in a folder in which others could write.
//!
//! Not how it is copied (`copy.rs`). Others could edit files, and rename all files and folders, also the owner's; so the
//! owner's uid proves nothing. Invariants: what is kept is on a list here, stands in its place, is the owner's, and says
//! what a file of its name says; what is wrong with one task or file is wrong with no other.

use std::ffi::OsStr;

use rustix::io::Errno;
use serde_json::Value;

use super::copy::{Copier, Source};
use super::{Trust, WRITABLE, set_rights};
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{GROUP_READS, OURS_ONLY, SMALL_FILE, name};
use crate::spool::tasks::{EnvironmentFile, RunFile};
use crate::task::{MAX_REQUEST_BYTES, Origin, Request, ResultFile, StatusFile, TaskId, to_pretty};

/// Larger than any result of version 1: its output is at most 1 MiB, of which each byte can take six.
const MOST_OF_RESULT: u64 = 16 << 20;
/// A log or an output that is longer is left out.
const MOST_OF_OUTPUT: u64 = 1 << 30;
/// A runner of version 1 made the folder of an attempt like this, and no group user can change it.
const ATTEMPT_MODE: u32 = 0o2750;
/// What is copied of an attempt besides its record. They are whatever they are.
const OF_ATTEMPT: [&str; 3] = [name::STDOUT, name::STDERR, name::OUTPUT];

pub(super) struct Tasks<'a> {
    new: &'a Dir,
    trust: Trust,
    copier: Copier,
}

/// A task's old folder and its new one.
struct Pair<'a> {
    id: TaskId,
    old: &'a Dir,
    new: Dir,
}

/// Why a task is not kept.
enum Left {
    Odd(&'static str),
    Failed(IoError),
}

impl From<IoError> for Left {
    fn from(error: IoError) -> Left {
        Left::Failed(error)
    }
}

impl<'a> Tasks<'a> {
    pub fn new(new: &'a Dir, trust: Trust) -> IoResult<Tasks<'a>> {
        let copier = Copier {
            us: rustix::process::geteuid().as_raw(),
            gid: new.own_stat()?.st_gid,
            synced_at_once: new.has_whole_sync()?,
        };
        Ok(Tasks { new, trust, copier })
    }

    /// Copies what is kept of all tasks.
    pub fn all(&self, old: &Dir) -> IoResult<()> {
        for entry in old.names()? {
            match self.one(old, &entry) {
                Ok(()) => {}
                Err(Left::Failed(error)) if concerns_all(&error) => return Err(error),
                Err(left) => {
                    let path = old.path_of(&entry);
                    let path = path.display();
                    match left {
                        Left::Odd(why) => tracing::warn!("not kept: {path}: {why}"),
                        Left::Failed(error) => tracing::warn!("not kept: {path}: {error}"),
                    }
                    self.new.remove_tree(&entry)?;
                }
            }
        }
        Ok(())
    }

    fn one(&self, old: &Dir, entry: &OsStr) -> Result<(), Left> {
        let id: Option<TaskId> = entry.to_str().and_then(|text| text.parse().ok());
        let id = id.ok_or(Left::Odd("its name is not an id"))?;
        let old = self
            .our_dir(old, entry)?
            .ok_or(Left::Odd("it is not a folder of the owner's"))?;
        let request = self
            .copier
            .source(&old, name::REQUEST, MAX_REQUEST_BYTES as u64)?;
        let request = request
            .filter(|request| request.is_for_group)
            .ok_or(Left::Odd(
                "it has no request that is the owner's and that the group may read",
            ))?;
        if Request::parse(&request.bytes()?).is_err() {
            return Err(Left::Odd("its request is not one"));
        }
        let new = self.make(self.new, entry)?;
        let pair = Pair { id, old: &old, new };
        self.copier.copy(&request, &pair.new, name::REQUEST)?;
        let result = self.result(&pair)?;
        if result.is_none() {
            self.what_it_waits_with(&pair)?;
        }
        self.copy_if::<StatusFile>(&pair, name::STATUS)?;
        if self.trust == Trust::Version2 {
            self.copy_if::<Origin>(&pair, name::ORIGIN)?;
        }
        self.attempts(&pair, result.flatten())?;
        self.copier
            .write(&pair.new, name::LOCK, b"", OURS_ONLY.file)?;
        Ok(())
    }

    fn make(&self, parent: &Dir, entry: impl AsRef<OsStr>) -> IoResult<Dir> {
        let dir = parent.make_dir(entry)?.with_making(OURS_ONLY);
        set_rights(&dir, self.copier.gid, GROUP_READS.dir)?;
        Ok(dir)
    }

    /// Opens a folder of ours. What is mounted there is none.
    fn our_dir(&self, parent: &Dir, entry: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        let dir = match parent.find_dir_here(entry) {
            Err(error) if concerns_all(&error) => return Err(error),
            found => found.ok().flatten(),
        };
        Ok(dir.filter(|dir| {
            dir.own_stat()
                .is_ok_and(|stat| stat.st_uid == self.copier.us)
        }))
    }

    /// Copies a file, if it can be read as what its name says.
    fn copy_if<T: serde::de::DeserializeOwned>(&self, pair: &Pair<'_>, file: &str) -> IoResult<()> {
        let Some(source) = self.find(pair.old, file, SMALL_FILE as u64)? else {
            return Ok(());
        };
        if source.is_for_group && serde_json::from_slice::<T>(&source.bytes()?).is_ok() {
            self.copier.copy(&source, &pair.new, file)?;
        }
        Ok(())
    }

    /// The same as [`Copier::source`] for files without which a task is one all the same.
    fn find(&self, dir: &Dir, file: &str, most: u64) -> IoResult<Option<Source>> {
        match self.copier.source(dir, file, most) {
            Err(error) if concerns_all(&error) => Err(error),
            Err(error) => {
                tracing::warn!("not kept: {error}");
                Ok(None)
            }
            found => found,
        }
    }

    /// Copies the result, if there is one that counts. The name of the file in the attempt that it names, if it does.
    ///
    /// A runner of version 1 made it so that nobody else could write it; of a task of which nothing ran it could be
    /// written by the group, and counts as long as it says no more than what a cancellation would do. In
    /// version 2 no result is made that others can write: its mode was changed later, and a task that has ended does not
    /// run again for that.
    fn result(&self, pair: &Pair<'_>) -> IoResult<Option<Option<String>>> {
        let Some(source) = self.find(pair.old, name::RESULT, MOST_OF_RESULT)? else {
            return Ok(None);
        };
        let is_closed = source.is_closed();
        let file = match serde_json::from_slice::<ResultFile>(&source.bytes()?) {
            Ok(result) => {
                let gave_nothing =
                    !result.ok && result.output.is_none() && result.output_file.is_none();
                let is_believed = is_closed || gave_nothing || self.trust == Trust::Version2;
                if result.task_id != pair.id || !is_believed {
                    return Ok(None);
                }
                result.output_file
            }
            // Damaged, or of a newer program: it is kept, and the task is not run again.
            Err(_) if is_closed => None,
            Err(_) => return Ok(None),
        };
        self.copier.copy(&source, &pair.new, name::RESULT)?;
        let leaf = |path: String| path.rsplit('/').next().map(str::to_owned);
        Ok(Some(file.and_then(leaf)))
    }

    /// What counts as long as a task has no result.
    fn what_it_waits_with(&self, pair: &Pair<'_>) -> Result<(), Left> {
        // Others may leave it. Of it only the name counts.
        if pair
            .old
            .find_file_here(name::CANCEL)
            .is_ok_and(|file| file.is_some())
        {
            self.copier
                .write(&pair.new, name::CANCEL, b"", GROUP_READS.file)?;
        }
        if self.trust == Trust::Version1 {
            return Ok(());
        }
        if pair.old.has(name::ATTACHMENT).unwrap_or(true) {
            // It is readable for its owner alone, so any private file of his can have become it.
            return Err(Left::Odd("others could have exchanged its attachment"));
        }
        if let Some(source) = self.find(pair.old, name::ENVIRONMENT, SMALL_FILE as u64)?
            && serde_json::from_slice::<EnvironmentFile>(&source.bytes()?).is_ok()
        {
            let bytes = source.bytes()?;
            self.copier
                .write(&pair.new, name::ENVIRONMENT, &bytes, OURS_ONLY.file)?;
        }
        Ok(())
    }

    /// Keeps the attempts that a runner made for this task. Marks of a boot go: without one an attempt counts as
    /// started.
    fn attempts(&self, pair: &Pair<'_>, output: Option<String>) -> IoResult<()> {
        let new = self.make(&pair.new, name::ATTEMPTS)?;
        let Some(old) = self.our_dir(pair.old, name::ATTEMPTS)? else {
            return Ok(());
        };
        for entry in old.names()? {
            let number: Option<u32> = entry.to_str().and_then(|text| text.parse().ok());
            let (Some(number), Some(attempt)) = (number, self.our_dir(&old, &entry)?) else {
                continue;
            };
            if entry == OsStr::new(&number.to_string()) {
                let record = self.record(pair.id, number, &attempt)?;
                if record.is_kept {
                    self.attempt(&attempt, &new, number, &record, output.as_deref())?;
                }
            }
        }
        Ok(())
    }

    fn attempt(
        &self,
        old: &Dir,
        attempts: &Dir,
        number: u32,
        record: &Kept,
        output: Option<&str>,
    ) -> IoResult<()> {
        let new = self.make(attempts, number.to_string())?;
        for (file, bytes) in &record.files {
            self.copier.write(&new, file, bytes, GROUP_READS.file)?;
        }
        let named = output.filter(|name| !OF_ATTEMPT.contains(name) && *name != name::RUN);
        for file in OF_ATTEMPT.into_iter().chain(named) {
            let Some(source) = self.find(old, file, MOST_OF_OUTPUT)? else {
                continue;
            };
            match self.copier.copy(&source, &new, file) {
                Err(error) if concerns_all(&error) && !error.is_no_space() => return Err(error),
                Err(error) => tracing::warn!("not kept: {error}"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// What is said of who ran an attempt. Where others could write it, it names no process: whoever believed it
    /// would end what it names.
    fn record(&self, id: TaskId, number: u32, attempt: &Dir) -> IoResult<Kept> {
        let mode = attempt.own_stat()?.st_mode;
        let is_closed = mode & WRITABLE == 0;
        if self.trust == Trust::Version1 && mode & 0o7777 != ATTEMPT_MODE {
            return Ok(Kept::nothing());
        }
        let run = self.find(attempt, name::RUN, SMALL_FILE as u64)?;
        let is_closed = is_closed && run.as_ref().is_none_or(Source::is_closed);
        let bytes = run.map(|run| run.bytes()).transpose()?;
        let said = bytes
            .as_ref()
            .map(|bytes| serde_json::from_slice::<RunFile>(bytes));
        // A folder above it may be another task's, renamed.
        if let Some(Ok(run)) = &said
            && (run.task_id != id || run.attempt != number)
        {
            return Ok(Kept::nothing());
        }
        let mut files = Vec::new();
        match (said, bytes) {
            (Some(Ok(run)), _) if !is_closed => files.extend(without_processes(&run)),
            (Some(_), Some(bytes)) if is_closed => files.push((name::RUN, bytes)),
            _ => {}
        }
        if is_closed
            && let Some(intent) = self.find(attempt, name::RESULT_PART, SMALL_FILE as u64)?
        {
            files.push((name::RESULT_PART, intent.bytes()?));
        }
        let is_kept = is_closed || !files.is_empty();
        Ok(Kept { is_kept, files })
    }
}

/// What is kept of an attempt's record.
struct Kept {
    is_kept: bool,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Kept {
    fn nothing() -> Kept {
        Kept {
            is_kept: false,
            files: Vec::new(),
        }
    }
}

fn without_processes(run: &RunFile) -> Option<(&'static str, Vec<u8>)> {
    let Ok(Value::Object(mut record)) = serde_json::to_value(run) else {
        return None;
    };
    record.insert("child".to_owned(), Value::Null);
    // No boot has this name.
    record.insert("boot".to_owned(), Value::from("/"));
    record.insert("mark".to_owned(), Value::from(""));
    record.remove("cgroup");
    record.remove("runner_cgroup");
    Some((name::RUN, to_pretty(&record)))
}

/// Whether the next thing would fail for the same reason.
fn concerns_all(error: &IoError) -> bool {
    let all = [Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    error.is_no_space() || error.errno().is_some_and(|errno| all.contains(&errno))
}
