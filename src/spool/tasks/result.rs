//! The result of a task: the room kept for it, and the step that finishes the task.
//!
//! Not what a result says (`runner/`). Invariant: `result.json` is complete or absent and never changes (I6).

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

/// Room kept for the result, so that a disk filled by the task cannot lose it: one block of nearly
/// every file system, and more than any result without its output needs (the longest part is the
/// error's message, see [`crate::task::TaskError`]).
const RESERVED_BYTES: u64 = 4096;

/// Room on the disk that the result will be written into. Until then it holds what whoever comes
/// after a crash must know of an attempt that has no `run.json` yet: the intent, and behind it the
/// line of `/proc` by which the recipe's process says who it is. That takes no file more.
#[derive(Debug)]
pub struct PreallocatedResult {
    file: File,
    dir: Dir,
}

impl TaskLock {
    /// Makes the result, durably: the one step that finishes a task. `false` when somebody else has
    /// finished it or works on it; the first one wins.
    ///
    /// What stands there and is not the file that we wrote is moved away, which `set_aside` hears of:
    /// nobody else writes a result while the lock is ours.
    ///
    /// # Errors
    /// The disk refused. The task is not finished and the lock must be kept: call again.
    pub fn commit(
        &self,
        preallocated: &mut Option<PreallocatedResult>,
        attempt: Option<&Attempt>,
        result: &ResultFile,
        set_aside: &mut dyn FnMut(),
    ) -> IoResult<bool> {
        debug_assert!(result.status.is_terminal(), "{}", result.status);
        // A recipe may have shut the folders of its task: then nothing could be seen or placed here.
        self.task.dir.give_rights();
        if let Some(place) = preallocated {
            place.dir.give_rights();
        }
        let Some(hold) = self.hold_anew()? else {
            return Ok(false);
        };
        if self.task.dir.has(name::RESULT)? {
            let stands_by_us = match preallocated {
                Some(place) => is_same_file(&self.task.dir, name::RESULT, &place.file)?,
                None => false,
            };
            // Ours, of a call whose last sync failed; or that of somebody who had the lock after us.
            if stands_by_us || (hold.is_lock() && self.task.has_result()?) {
                self.task.dir.sync()?;
                return Ok(stands_by_us);
            }
            if self.set_foreign_result_aside(attempt)? {
                set_aside();
            }
        }
        let place = match preallocated.take() {
            Some(place) if place.is_in_place()? => place,
            // What stands there now is not ours, as a folder that the recipe made.
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

    /// A place for a result of which no room was reserved: no attempt was made, or it is lost.
    fn new_place(&self, attempt: Option<&Attempt>) -> IoResult<PreallocatedResult> {
        let dir = self
            .task
            .dir
            .open_dir(".")?
            .with_making(self.task.dir.making());
        dir.give_rights();
        match dir.unlink(name::RESULT_PART) {
            // A folder is somebody's: it is moved out of the way and goes with the task.
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
    /// Keeps room for the result.
    pub fn preallocate_result(&self) -> IoResult<PreallocatedResult> {
        let file = self.dir.create(name::RESULT_PART)?;
        // With the size kept at 0 nothing has to be cut off again: that costs as much as the result.
        match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES) {
            Ok(()) => {}
            // A file system without fallocate: blocks that were written are as good.
            Err(Errno::OPNOTSUPP) => file
                .write_all_at(&[b' '; RESERVED_BYTES as usize], 0)
                .map_err(|source| {
                    IoError::new("reserve", self.dir.path_of(name::RESULT_PART), source)
                })?,
            Err(errno) => {
                return Err(IoError::new(
                    "reserve room in",
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
    /// Says, before anything is started, that and by whom it will be.
    pub fn write_intent(&self, run: &RunFile) -> IoResult<()> {
        debug_assert!(run.attempt > 0);
        use std::io::Write;
        let mut line = serde_json::to_vec(run).unwrap_or_default();
        line.push(b'\n');
        (&self.file)
            .write_all(&line)
            .map_err(|source| IoError::new("write", self.dir.path_of(name::RESULT_PART), source))
    }

    /// Says it anew, where the first start was refused: over the old one, which was longer, so that no
    /// block of the room is given back.
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

    /// Where the recipe's process writes its own line, behind the intent.
    pub fn record(&self) -> &File {
        &self.file
    }

    /// Whether the name still leads to the open file: the recipe may have put something in its place,
    /// and that would become the result.
    fn is_in_place(&self) -> IoResult<bool> {
        is_same_file(&self.dir, name::RESULT_PART, &self.file)
    }

    fn write(&self, result: &ResultFile) -> IoResult<()> {
        match self.write_bytes(&result.to_bytes()) {
            Err(error) if error.is_no_space() && result.output.is_some() => {
                // The disk is full: the truth about the end fits into the reserve, the output not.
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
        // Longer only where blocks had to be written to reserve them, or an earlier try was longer.
        let metadata = self.file.metadata().map_err(failed)?;
        if metadata.len() > size {
            self.file.set_len(size).map_err(failed)?;
        }
        // A recipe may have shut it.
        let mode = self.dir.making().file;
        if metadata.mode() & 0o400 == 0 {
            rustix::fs::fchmod(&self.file, mode).map_err(|errno| failed(errno.into()))?;
        }
        self.dir.sync_file(&self.file, name::RESULT_PART)
    }
}
