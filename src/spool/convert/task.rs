//! What is kept of a task in a folder in which others could write.
//!
//! Not how it is copied (`copy.rs`). Others could edit files, and rename all files and folders, also those of
//! the owner. So the owner's uid proves nothing. Invariants: a file is kept only if it is on a list here, is
//! in its place, belongs to the owner, and has the format that its name requires. A fault in one task or file
//! does not affect others.

use std::ffi::OsStr;

use rustix::io::Errno;
use serde_json::Value;

use super::copy::{Copier, Source};
use super::{Trust, WRITABLE, set_rights};
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{GROUP_READS, OURS_ONLY, SMALL_FILE, name};
use crate::spool::tasks::{EnvironmentFile, RunFile};
use crate::task::{MAX_REQUEST_BYTES, Origin, Request, ResultFile, StatusFile, TaskId, to_pretty};

/// In bytes. A result of version 1 is smaller: its output is at most 1 MiB, and a byte can take six bytes in
/// JSON.
const MOST_OF_RESULT: u64 = 16 << 20;
/// In bytes. A longer log or output is not kept.
const MOST_OF_OUTPUT: u64 = 1 << 30;
/// The mode of an attempt's folder that a runner of version 1 created. A group user cannot change it.
const ATTEMPT_MODE: u32 = 0o2750;
/// The files of an attempt that are copied, besides its record. Their content is not checked.
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
    Refused(&'static str),
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

    /// Copies all tasks.
    pub fn all(&self, old: &Dir) -> IoResult<()> {
        for entry in old.names()? {
            match self.one(old, &entry) {
                Ok(()) => {}
                Err(Left::Failed(error)) if concerns_all(&error) => return Err(error),
                Err(left) => {
                    let path = old.path_of(&entry);
                    let path = path.display();
                    match left {
                        Left::Refused(why) => tracing::warn!("not kept: {path}: {why}"),
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
        let id = id.ok_or(Left::Refused("its name is not an id"))?;
        let old = self
            .our_dir(old, entry)?
            .ok_or(Left::Refused("it is not a folder of the spool's owner"))?;
        let request = self
            .copier
            .source(&old, name::REQUEST, MAX_REQUEST_BYTES as u64)?;
        let request = request
            .filter(|request| request.is_for_group)
            .ok_or(Left::Refused(
                "it has no request that belongs to the spool's owner and that the group may read",
            ))?;
        if Request::parse(&request.bytes()?).is_err() {
            return Err(Left::Refused("its request is not valid"));
        }
        let new = self.make(self.new, entry)?;
        let pair = Pair { id, old: &old, new };
        self.copier.copy(&request, &pair.new, name::REQUEST)?;
        let result = self.result(&pair)?;
        if result.is_none() {
            self.files_of_unfinished(&pair)?;
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

    /// Opens a folder of ours. `None` if it is not ours, is a mount point, or is not a folder.
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

    /// Copies a file, if it has the format that its name requires.
    fn copy_if<T: serde::de::DeserializeOwned>(&self, pair: &Pair<'_>, file: &str) -> IoResult<()> {
        let Some(source) = self.find(pair.old, file, SMALL_FILE as u64)? else {
            return Ok(());
        };
        if source.is_for_group && serde_json::from_slice::<T>(&source.bytes()?).is_ok() {
            self.copier.copy(&source, &pair.new, file)?;
        }
        Ok(())
    }

    /// Like [`Copier::source`], for files that a task does not need.
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

    /// Copies the result, if there is one that is trusted. Returns the name of the output file in it, if it
    /// has one.
    ///
    /// A runner of version 1 created results that others could not write. The result of a task that never ran
    /// could be written by the group, and is trusted only if it has no more effect than a cancellation. In
    /// version 2 results are never created writable for others: the mode was changed later, and a finished
    /// task must not run again because of that.
    fn result(&self, pair: &Pair<'_>) -> IoResult<Option<Option<String>>> {
        let Some(source) = self.find(pair.old, name::RESULT, MOST_OF_RESULT)? else {
            return Ok(None);
        };
        let is_closed = source.is_closed();
        let file = match serde_json::from_slice::<ResultFile>(&source.bytes()?) {
            Ok(result) => {
                let has_no_output =
                    !result.ok && result.output.is_none() && result.output_file.is_none();
                let is_trusted = is_closed || has_no_output || self.trust == Trust::Version2;
                if result.task_id != pair.id || !is_trusted {
                    return Ok(None);
                }
                result.output_file
            }
            // It is damaged, or from a newer program. It is kept, so that the task does not run again.
            Err(_) if is_closed => None,
            Err(_) => return Ok(None),
        };
        self.copier.copy(&source, &pair.new, name::RESULT)?;
        let leaf = |path: String| path.rsplit('/').next().map(str::to_owned);
        Ok(Some(file.and_then(leaf)))
    }

    /// Copies the files that are needed as long as a task has no result.
    fn files_of_unfinished(&self, pair: &Pair<'_>) -> Result<(), Left> {
        // Other users may cancel a task. Only the name of this file is used.
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
            // Only its owner may read it, so others could have put any private file of the owner in its
            // place.
            return Err(Left::Refused("others could have replaced its attachment"));
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

    /// Copies the attempts that a runner created for this task, without their boot records: an attempt
    /// without a boot record counts as started.
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

    /// The record of an attempt. If others could write it, the processes are removed from it, because they
    /// would be killed.
    fn record(&self, id: TaskId, number: u32, attempt: &Dir) -> IoResult<Kept> {
        let mode = attempt.own_stat()?.st_mode;
        let is_closed = mode & WRITABLE == 0;
        if self.trust == Trust::Version1 && mode & 0o7777 != ATTEMPT_MODE {
            return Ok(Kept::nothing());
        }
        let run = self.find(attempt, name::RUN, SMALL_FILE as u64)?;
        let is_closed = is_closed && run.as_ref().is_none_or(Source::is_closed);
        let bytes = run.map(|run| run.bytes()).transpose()?;
        let parsed = bytes
            .as_ref()
            .map(|bytes| serde_json::from_slice::<RunFile>(bytes));
        // Others could have renamed a folder of another task.
        if let Some(Ok(run)) = &parsed
            && (run.task_id != id || run.attempt != number)
        {
            return Ok(Kept::nothing());
        }
        let mut files = Vec::new();
        match (parsed, bytes) {
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

/// The parts of an attempt's record that are kept.
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
    // This is not the id of any boot.
    record.insert("boot".to_owned(), Value::from("/"));
    record.insert("mark".to_owned(), Value::from(""));
    record.remove("cgroup");
    record.remove("runner_cgroup");
    Some((name::RUN, to_pretty(&record)))
}

/// Whether the next file would fail for the same reason.
fn concerns_all(error: &IoError) -> bool {
    let all = [Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    error.is_no_space() || error.errno().is_some_and(|errno| all.contains(&errno))
}
