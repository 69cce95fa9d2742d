//! The result of a task: the space preallocated for it, and the step that finishes the task.
//!
//! Not the content of a result (`runner/`). Invariant: `result.json` is complete or absent and never changes
//! (I6).

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::fs::{FallocateFlags, Stat};
use rustix::io::Errno;

use super::attempt::{Attempt, is_file, path_in_task};
use super::lock::TaskLock;
use super::run_record::RunFile;
use crate::spool::disk::{Dir, IoError, IoResult, is_same_file, random_bits};
use crate::spool::layout::name;
use crate::task::ResultFile;

/// Bytes preallocated for the result, so that it can be written even if the task fills the disk. This is one
/// block of nearly every file system, and more than any result without its output needs (the longest part is
/// the error's message, see [`crate::task::TaskError`]).
const PREALLOCATED_BYTES: u64 = 4096;

/// The open `result.part`, into which the result will be written. Until then it holds what is needed after a
/// crash if there is no `run.json` yet: the intent, and after it the recipe's process's own `stat` line of
/// `/proc`. So this needs no extra file.
#[derive(Debug)]
pub struct PreallocatedResult {
    file: File,
    dir: Dir,
}

impl TaskLock {
    /// Writes the result and makes it durable: the step that finishes a task. `false` if another process has
    /// finished the task or works on it; the first result wins.
    ///
    /// While this process holds the lock, no other process may write a result. So a `result.json` that we did
    /// not write is moved aside, and `set_aside` is called.
    ///
    /// # Errors
    /// A write failed. The task is not finished: keep the lock and call again.
    pub fn commit(
        &self,
        preallocated: &mut Option<PreallocatedResult>,
        attempt: Option<&Attempt>,
        result: &ResultFile,
        set_aside: &mut dyn FnMut(),
    ) -> IoResult<bool> {
        debug_assert!(result.status.is_terminal(), "{}", result.status);
        // A recipe may have removed the permissions of its task's folders.
        self.task.dir.give_rights();
        if let Some(place) = preallocated {
            place.dir.give_rights();
        }
        let Some(hold) = self.hold_current_lock()? else {
            return Ok(false);
        };
        if self.task.dir.has(name::RESULT)? {
            let is_ours = match preallocated {
                Some(place) => is_same_file(&self.task.dir, name::RESULT, &place.file)?,
                None => false,
            };
            // It is ours if the sync of an earlier call failed. It is valid too if a process wrote it that
            // locked the task after our lock file was replaced.
            if is_ours || (hold.is_lock() && self.task.has_result()?) {
                self.task.dir.sync()?;
                return Ok(is_ours);
            }
            if self.set_foreign_result_aside(attempt)? {
                set_aside();
            }
        }
        let place = match preallocated.take() {
            Some(place) if place.is_in_place()? => place,
            // Nothing was preallocated, or the recipe put something else there, such as a folder.
            _ => self.new_place(attempt)?,
        };
        let placed = place.write(result).and_then(|()| {
            place
                .dir
                .rename_new(name::RESULT_PART, &self.task.dir, name::RESULT)?;
            self.task.dir.sync()
        });
        match placed {
            Ok(()) => Ok(true),
            Err(error) => {
                *preallocated = Some(place);
                Err(error)
            }
        }
    }

    /// Creates a `result.part` if none was preallocated: there was no attempt, or its folder is lost.
    fn new_place(&self, attempt: Option<&Attempt>) -> IoResult<PreallocatedResult> {
        let dir = self
            .task
            .dir
            .open_dir(".")?
            .with_making(self.task.dir.making());
        dir.give_rights();
        match dir.unlink(name::RESULT_PART) {
            // A folder may hold data, so it is renamed. It is removed with the task.
            Err(error) if error.is_unusable() => {
                let aside = format!(".{}.{:016x}", name::RESULT_PART, random_bits() as u64);
                dir.rename_new(name::RESULT_PART, &dir, aside)?;
            }
            removed => drop(removed?),
        }
        let file = dir.create(name::RESULT_PART)?;
        if let Some(attempt) = attempt {
            self.end_part(attempt)?;
        }
        Ok(PreallocatedResult { file, dir })
    }
}

impl Attempt {
    /// Creates `result.part` with space for the result.
    pub fn preallocate_result(&self) -> IoResult<PreallocatedResult> {
        let file = self.dir.create(name::RESULT_PART)?;
        // The size stays 0, because a later truncation would cost as much as writing the result.
        match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, PREALLOCATED_BYTES) {
            Ok(()) => {}
            // The file system has no fallocate: written blocks serve as well.
            Err(Errno::OPNOTSUPP) => file
                .write_all_at(&[b' '; PREALLOCATED_BYTES as usize], 0)
                .map_err(|source| {
                    IoError::new("preallocate", self.dir.path_of(name::RESULT_PART), source)
                })?,
            Err(errno) => {
                return Err(IoError::new(
                    "preallocate",
                    self.dir.path_of(name::RESULT_PART),
                    errno,
                ));
            }
        }
        let dir = self.dir.open_dir(".")?.with_making(self.dir.making());
        Ok(PreallocatedResult { file, dir })
    }
}

impl PreallocatedResult {
    /// Writes the intent: which runner is about to start this attempt. Call it before any process is started.
    pub fn write_intent(&self, run: &RunFile) -> IoResult<()> {
        debug_assert!(run.attempt > 0);
        use std::io::Write;
        let mut line = serde_json::to_vec(run).unwrap_or_default();
        line.push(b'\n');
        (&self.file)
            .write_all(&line)
            .map_err(|source| IoError::new("write", self.dir.path_of(name::RESULT_PART), source))
    }

    /// Writes the intent again after the first start failed. It overwrites the old intent and is padded to
    /// its length, so that no preallocated block is freed.
    pub fn rewrite_intent(&self, run: &RunFile) -> IoResult<()> {
        let failed = |source| IoError::new("write", self.dir.path_of(name::RESULT_PART), source);
        let length = rustix::fs::tell(&self.file).map_err(|errno| failed(errno.into()))?;
        let mut line = serde_json::to_vec(run).unwrap_or_default();
        line.resize(
            usize::try_from(length)
                .unwrap_or(0)
                .saturating_sub(1)
                .max(line.len()),
            b' ',
        );
        line.push(b'\n');
        self.file.write_all_at(&line, 0).map_err(failed)
    }

    /// The file into which the recipe's process writes its own line, after the intent.
    pub fn record(&self) -> &File {
        &self.file
    }

    /// Whether the name still refers to the open file. Otherwise the recipe replaced it, and its file would
    /// become the result.
    fn is_in_place(&self) -> IoResult<bool> {
        is_same_file(&self.dir, name::RESULT_PART, &self.file)
    }

    fn write(&self, result: &ResultFile) -> IoResult<()> {
        match self.write_bytes(&result.to_bytes()) {
            Err(error) if error.is_no_space() && result.output.is_some() => {
                // The disk is full. The result without its output fits into the preallocated space.
                let mut short = result.clone();
                short.output = None;
                short.output_truncated = true;
                let is_output = |stat: Stat| is_file(stat) && stat.st_size > 0;
                let wrote_file = self.dir.stat(name::OUTPUT)?.is_some_and(is_output);
                let file = if wrote_file {
                    name::OUTPUT
                } else {
                    name::STDOUT
                };
                short
                    .output_file
                    .get_or_insert_with(|| path_in_task(result.attempt, file));
                self.write_bytes(&short.to_bytes())
            }
            written => written,
        }
    }

    fn write_bytes(&self, bytes: &[u8]) -> IoResult<()> {
        let failed = |source| IoError::new("write", self.dir.path_of(name::RESULT_PART), source);
        self.file.write_all_at(bytes, 0).map_err(failed)?;
        let size = bytes.len() as u64;
        // The file is longer if blocks were written to preallocate them, or if an earlier try wrote more.
        let metadata = self.file.metadata().map_err(failed)?;
        if metadata.len() > size {
            self.file.set_len(size).map_err(failed)?;
        }
        // A recipe may have removed its permissions.
        let mode = self.dir.making().file;
        if metadata.mode() & 0o400 == 0 {
            rustix::fs::fchmod(&self.file, mode).map_err(|errno| failed(errno.into()))?;
        }
        self.dir.sync_file(&self.file, name::RESULT_PART)
    }
}
