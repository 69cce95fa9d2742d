//! What is kept of a task in a folder in which others could write.
//!
//! Not how it is copied (`copy.rs`). Others could edit files, and rename all files and folders, also those of
//! the owner. So the owner's uid proves nothing. Invariants: a file is kept only if it is on a list here, is
//! in its place, belongs to the owner, and has the format that its name requires. A fault in one task or file
//! does not affect others.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::copy::{Copier, Source};
use super::set_rights;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{GROUP_READS, OURS_ONLY, SMALL_FILE, name};
use crate::spool::tasks::{RunFile, pending_status};
use crate::task::{MAX_REQUEST_BYTES, Request, ResultFile, TaskId, escape_path};

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
    pub fn new(new: &'a Dir) -> IoResult<Tasks<'a>> {
        let copier = Copier {
            us: rustix::process::geteuid().as_raw(),
            gid: new.own_stat()?.st_gid,
            synced_at_once: new.has_whole_sync()?,
        };
        Ok(Tasks { new, copier })
    }

    /// Copies all tasks.
    pub fn all(&self, old: &Dir) -> IoResult<()> {
        for entry in old.names()? {
            match self.one(old, &entry) {
                Ok(()) => {}
                Err(Left::Failed(error)) if concerns_all(&error) => return Err(error),
                Err(left) => {
                    let path = old.path_of(&entry);
                    // Another user may have chosen the name.
                    let path = escape_path(&path);
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
        let bytes = request.bytes()?;
        let Ok(parsed) = Request::parse(&bytes) else {
            return Err(Left::Refused("its request is not valid"));
        };
        let new = self.make(self.new, entry)?;
        let pair = Pair { id, old: &old, new };
        self.write(&pair, name::REQUEST, &request, &bytes)?;
        let result = self.result(&pair, &parsed)?;
        if result.is_none() {
            self.cancel(&pair)?;
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

    /// Writes the bytes that were checked: another user may still have the old file open, and change it.
    fn write(&self, pair: &Pair<'_>, file: &str, source: &Source, bytes: &[u8]) -> IoResult<()> {
        self.copier.write(&pair.new, file, bytes, source.mode())
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
    /// could be written by the group, and is trusted only if it has no more effect than a cancellation.
    ///
    /// Others could write the status, so it is derived anew from the request and this result.
    fn result(&self, pair: &Pair<'_>, request: &Request) -> IoResult<Option<Option<String>>> {
        let Some(source) = self.find(pair.old, name::RESULT, MOST_OF_RESULT)? else {
            return Ok(None);
        };
        let is_closed = source.is_closed();
        let bytes = source.bytes()?;
        let file = match serde_json::from_slice::<ResultFile>(&bytes) {
            Ok(result) => {
                let has_no_output =
                    !result.ok && result.output.is_none() && result.output_file.is_none();
                if result.task_id != pair.id || !(is_closed || has_no_output) {
                    return Ok(None);
                }
                let mut status = pending_status(pair.id, request);
                status.ended_by(&result);
                self.copier.write(
                    &pair.new,
                    name::STATUS,
                    &status.to_bytes(),
                    GROUP_READS.file,
                )?;
                result.output_file
            }
            // It is damaged, or from a newer program. It is kept, so that the task does not run again.
            Err(_) if is_closed => None,
            Err(_) => return Ok(None),
        };
        self.write(pair, name::RESULT, &source, &bytes)?;
        let leaf = |path: String| path.rsplit('/').next().map(str::to_owned);
        Ok(Some(file.and_then(leaf)))
    }

    /// Keeps the request to cancel. Other users may cancel a task. Only the name of this file is used.
    fn cancel(&self, pair: &Pair<'_>) -> IoResult<()> {
        let found = pair.old.find_file_here(name::CANCEL);
        if !found.is_ok_and(|file| file.is_some()) {
            return Ok(());
        }
        let mode = GROUP_READS.file;
        self.copier.write(&pair.new, name::CANCEL, b"", mode)
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
            if entry == OsStr::new(&number.to_string())
                && let Some(record) = self.record(pair.id, number, &attempt)?
            {
                self.attempt(&attempt, &new, number, &record, output.as_deref())?;
            }
        }
        Ok(())
    }

    fn attempt(
        &self,
        old: &Dir,
        attempts: &Dir,
        number: u32,
        record: &[Kept],
        output: Option<&str>,
    ) -> IoResult<()> {
        let new = self.make(attempts, number.to_string())?;
        for (file, bytes) in record {
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

    /// The record of an attempt. `None` if no runner created the attempt for this task. A record that others
    /// could write is left out, because the processes in it would be killed.
    fn record(&self, id: TaskId, number: u32, attempt: &Dir) -> IoResult<Option<Vec<Kept>>> {
        if attempt.own_stat()?.st_mode & 0o7777 != ATTEMPT_MODE {
            return Ok(None);
        }
        let mut kept = Vec::new();
        if let Some(run) = self.find(attempt, name::RUN, SMALL_FILE as u64)? {
            let bytes = run.bytes()?;
            // Others could have renamed a folder of another task.
            if let Ok(run) = serde_json::from_slice::<RunFile>(&bytes)
                && (run.task_id != id || run.attempt != number)
            {
                return Ok(None);
            }
            if !run.is_closed() {
                return Ok(Some(kept));
            }
            kept.push((name::RUN, bytes));
        }
        if let Some(intent) = self.find(attempt, name::RESULT_PART, SMALL_FILE as u64)? {
            kept.push((name::RESULT_PART, intent.bytes()?));
        }
        Ok(Some(kept))
    }
}

/// A file that is kept, and its content.
type Kept = (&'static str, Vec<u8>);

/// Whether the next file would fail for the same reason.
fn concerns_all(error: &IoError) -> bool {
    let all = [Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    error.is_no_space() || error.errno().is_some_and(|errno| all.contains(&errno))
}
