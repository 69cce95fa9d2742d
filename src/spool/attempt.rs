//! One execution's files: its start record, its logs, and the result's reserve.
//!
//! Not the process (`runner/`). Invariants: `attempts/<n>/` on the disk means "may have started",
//! so it is made durable before anything runs (I4); `result.json` is complete or absent and never
//! changes (I6).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::claim::{TaskLock, is_same_file};
use super::disk::random_bits;
use super::disk::{Dir, IoError, IoResult};
use super::layout::{SMALL_FILE, Spool, name, pretty};
use super::logs::Stream;
use super::store::TaskDir;
use crate::clock::BootId;
use crate::proc::{self, ProcessKey};
use crate::task::{ResultFile, TaskId, Timestamp};

pub(super) const STDOUT: &str = "stdout.log";
pub(super) const STDERR: &str = "stderr.log";
const RUN: &str = "run.json";
const WORK: &str = "work";
const INPUT: &str = "input.json";
pub(super) const PROGRESS: &str = "progress";
pub(super) const OUTPUT: &str = "output";
const RESERVE: &str = "result.part";

/// Room kept for the result, so that a disk filled by the task cannot lose it: one block of nearly
/// every file system, and more than any result without its output needs (the longest part is the
/// error's message, see [`crate::task::TaskError`]).
const RESERVED_BYTES: u64 = 4096;

/// `attempts/<n>/run.json`: who runs, so that whoever comes after a crash knows what to look for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// Format version.
    pub v: u32,
    /// The task.
    pub task_id: TaskId,
    /// The attempt's number.
    pub attempt: u32,
    /// The runner.
    pub runner: ProcessKey,
    /// The recipe's process, which leads a session and group of its own; null until it runs.
    pub child: Option<ProcessKey>,
    /// The life of the machine these numbers belong to.
    pub boot: BootId,
    /// The cgroup in which everything that this attempt starts is born, by its path; absent where the runner
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The cgroup in which the runner was, as `/proc/<pid>/cgroup` names it; absent where it has one for
    /// the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_cgroup: Option<String>,
    /// The value of `AGENTSPOOL_MARK` in the environment of everything this attempt started.
    pub mark: String,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it will be stopped, by the wall clock: for readers; the runner counts on another one.
    pub deadline: Timestamp,
    /// Seconds it may run.
    pub timeout_sec: f64,
    /// Set when the attempt is known to be over without a result of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
}

/// One attempt's folder.
#[derive(Debug)]
pub struct Attempt {
    number: u32,
    pub(super) dir: Dir,
}

/// The record that an attempt may have started: its folder's name in `attempts/`.
#[derive(Debug)]
#[must_use = "without it nothing may be started"]
pub struct StartRecord {
    attempts: Dir,
}

impl StartRecord {
    /// Makes it durable: the last step before something is started.
    pub fn make_durable(self) -> IoResult<()> {
        self.attempts.sync()
    }
}

/// The files a recipe's process is started with.
#[derive(Debug)]
pub struct Files {
    /// The input JSON, open at its beginning.
    pub stdin: File,
    /// The log, opened for appending.
    pub stdout: File,
    /// The log, opened for appending.
    pub stderr: File,
}

/// Room on the disk that the result will be written into. Until then it holds what whoever comes
/// after a crash must know of an attempt that has no `run.json` yet: the intent, and behind it the
/// line of `/proc` by which the recipe's process says who it is. That takes no file more.
#[derive(Debug)]
pub struct ReservedResult {
    file: File,
    dir: Dir,
}

impl TaskLock {
    /// Records the start of attempt `number`. Nothing may run before [`StartRecord::make_durable`]
    /// has returned.
    ///
    /// Beside the folder lies an empty file that names the boot: whoever finds the folder
    /// without an intent must know whether this kernel made it (then nothing ran, because the intent
    /// comes before the process) or an earlier one (then a power cut may have taken it). One
    /// fsync makes both names durable. The folder comes first: a file without its folder says that
    /// somebody removed the folder of an attempt that may have run.
    pub fn start_attempt(
        &self,
        spool: &Spool,
        number: u32,
        boot: &BootId,
    ) -> IoResult<(Attempt, StartRecord)> {
        let attempts = self
            .task
            .dir
            // Some backups keep no empty folders, and a recipe may have shut this one.
            .find_own_to_write(name::ATTEMPTS)
            .and_then(|found| found.map_or_else(|| self.task.dir.ensure_dir(name::ATTEMPTS), Ok))?
            .with_making(spool.attempt_making());
        let dir = attempts.make_dir(number.to_string())?;
        attempts.mark(boot_mark(number, boot), &self.task.dir, name::LOCK)?;
        Ok((Attempt { number, dir }, StartRecord { attempts }))
    }

    /// Takes back an attempt of which nothing ran. At each step of this what is left says so.
    pub fn drop_attempt(&self, number: u32) -> IoResult<()> {
        let Some(attempts) = self.task.dir.find_own_to_write(name::ATTEMPTS)? else {
            return Ok(());
        };
        let folder = attempts.find_own_to_write(number.to_string())?;
        if let Some(folder) = &folder
            && folder.stat(RESERVE)?.is_some_and(is_file)
        {
            // The intent no longer holds.
            let failed = |source| IoError::new("empty", folder.path_of(RESERVE), source);
            folder.open_writable(RESERVE)?.set_len(0).map_err(failed)?;
        }
        for mark in marks_of(&attempts, number)? {
            attempts.unlink(mark)?;
        }
        match &folder {
            Some(folder) => attempts
                .remove_in_place(
                    number.to_string(),
                    folder,
                    &[RESERVE],
                    &attempts,
                    &mut || Ok(()),
                )
                .whole()?,
            None => attempts.remove_tree(number.to_string())?,
        };
        attempts.sync()
    }

    /// Whether this boot made attempt `number`, or may have: without `/proc` a runner does not know its
    /// boot, and a recipe may have removed the file that names it.
    pub fn started_in(&self, number: u32, boot: &BootId) -> IoResult<bool> {
        let Some(attempts) = self.task.dir.find_own_to_write(name::ATTEMPTS)? else {
            return Ok(true);
        };
        if boot.kernel().is_empty() {
            return Ok(true);
        }
        let marks = marks_of(&attempts, number)?;
        let (ours, unknown) = (boot_mark(number, boot), format!(".{number}."));
        Ok(marks.is_empty() || marks.iter().any(|mark| *mark == ours || *mark == unknown))
    }

    /// The attempt is over without a result of the task: its part no longer says that it runs.
    pub fn end_part(&self, attempt: &Attempt) -> IoResult<()> {
        if attempt.dir.stat(RESERVE)?.is_some_and(is_file) {
            attempt.dir.give_rights();
            attempt.dir.unlink(RESERVE)?;
        }
        Ok(())
    }

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
        reserved: &mut Option<ReservedResult>,
        attempt: Option<&Attempt>,
        result: &ResultFile,
        set_aside: &mut dyn FnMut(),
    ) -> IoResult<bool> {
        // A recipe may have shut the folders of its task: then nothing could be seen or placed here.
        self.task.dir.give_rights();
        if let Some(place) = reserved {
            place.dir.give_rights();
        }
        let Some(hold) = self.hold_anew()? else {
            return Ok(false);
        };
        if self.task.dir.has(name::RESULT)? {
            let stands_by_us = match reserved {
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
        let place = match reserved.take() {
            Some(place) if place.is_in_place()? => place,
            // What stands there now is not ours, as a folder that the recipe made.
            _ => self.unreserved(attempt)?,
        };
        let placed = place.write(result).and_then(|()| {
            place
                .dir
                .rename_new(RESERVE, &self.task.dir, name::RESULT)?;
            self.task.dir.sync()
        });
        match placed {
            Ok(()) => Ok(true),
            Err(error) => {
                *reserved = Some(place);
                Err(error)
            }
        }
    }

    /// A place for a result of which no room was reserved: no attempt was made, or it is lost.
    fn unreserved(&self, attempt: Option<&Attempt>) -> IoResult<ReservedResult> {
        let dir = self
            .task
            .dir
            .open_dir(".")?
            .with_making(self.task.dir.making());
        dir.give_rights();
        match dir.unlink(RESERVE) {
            // A folder is somebody's: it is moved out of the way and goes with the task.
            Err(error) if error.is_unusable() => {
                let aside = format!(".{RESERVE}.{:016x}", random_bits() as u64);
                dir.rename_new(RESERVE, &dir, aside)?;
            }
            removed => drop(removed?),
        }
        let file = dir.create(RESERVE)?;
        if let Some(attempt) = attempt {
            self.end_part(attempt)?;
        }
        Ok(ReservedResult { file, dir })
    }
}

impl ReservedResult {
    /// Says, before anything is started, that and by whom it will be.
    pub fn write_intent(&self, run: &RunFile) -> IoResult<()> {
        use std::io::Write;
        let mut line = serde_json::to_vec(run).unwrap_or_default();
        line.push(b'\n');
        (&self.file)
            .write_all(&line)
            .map_err(|source| IoError::new("write", self.dir.path_of(RESERVE), source))
    }

    /// Says it anew, where the first start was refused: over the old one, which was longer, so that no
    /// block of the room is given back.
    pub fn rewrite_intent(&self, run: &RunFile) -> IoResult<()> {
        let failed = |source| IoError::new("write", self.dir.path_of(RESERVE), source);
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
        is_same_file(&self.dir, RESERVE, &self.file)
    }

    fn write(&self, result: &ResultFile) -> IoResult<()> {
        match self.write_bytes(&result.to_bytes()) {
            Err(error) if error.is_no_space() && result.output.is_some() => {
                // The disk is full: the truth about the end fits into the reserve, the output not.
                let mut short = result.clone();
                short.output = None;
                short.output_truncated = true;
                let is_output = |stat: Stat| is_file(stat) && stat.st_size > 0;
                let wrote_file = self.dir.stat(OUTPUT)?.is_some_and(is_output);
                let file = if wrote_file { OUTPUT } else { STDOUT };
                short
                    .output_file
                    .get_or_insert_with(|| path_in_task(result.attempt, file));
                self.write_bytes(&short.to_bytes())
            }
            written => written,
        }
    }

    fn write_bytes(&self, bytes: &[u8]) -> IoResult<()> {
        let failed = |source| IoError::new("write", self.dir.path_of(RESERVE), source);
        self.file.write_all_at(bytes, 0).map_err(failed)?;
        let size = bytes.len() as u64;
        // Longer only where blocks had to be written to reserve them, or an earlier try was longer.
        if self.file.metadata().map_err(failed)?.len() > size {
            self.file.set_len(size).map_err(failed)?;
        }
        self.dir.sync_file(&self.file, RESERVE)
    }
}

fn is_file(stat: Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// The number that a name stands for, where it is the one way to write that number.
fn canonical(text: &str) -> Option<u32> {
    let number = text.parse().ok()?;
    (number > 0 && text.bytes().next() != Some(b'+') && text.bytes().next() != Some(b'0'))
        .then_some(number)
}

/// The files beside an attempt's folder that name its boot.
fn marks_of(attempts: &Dir, number: u32) -> IoResult<Vec<String>> {
    let prefix = format!(".{number}.");
    let mut marks = Vec::new();
    attempts.each_name(|name, _| {
        let mark = std::str::from_utf8(name).ok();
        marks.extend(
            mark.filter(|mark| mark.starts_with(&prefix))
                .map(str::to_owned),
        );
        true
    })?;
    Ok(marks)
}

fn boot_mark(number: u32, boot: &BootId) -> String {
    format!(".{number}.{}", boot.kernel())
}

pub(super) fn path_in_task(attempt: u32, file: &str) -> String {
    format!("{}/{attempt}/{file}", name::ATTEMPTS)
}

impl Attempt {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Makes the folders and files the recipe's process needs.
    pub fn create_files(&self, input: &[u8]) -> IoResult<Files> {
        // What a recipe leaves open in there is nobody else's, also in a group spool.
        self.dir.make_private_dir(WORK)?;
        let stdout = self.dir.create_log(STDOUT)?;
        let stderr = self.dir.create_log(STDERR)?;
        self.dir.create_unsynced(INPUT, input)?;
        let stdin = self.dir.open_file(INPUT)?;
        // The recipe gets a plain blocking file.
        rustix::fs::fcntl_setfl(&stdin, rustix::fs::OFlags::empty())
            .map_err(|errno| IoError::new("open", self.dir.path_of(INPUT), errno))?;
        Ok(Files {
            stdin,
            stdout,
            stderr,
        })
    }

    /// One of its logs, for reading; `None` when it is not there yet.
    pub(super) fn log(&self, stream: Stream) -> IoResult<Option<File>> {
        super::disk::absent_is_none(self.dir.open_file(stream.file_name()))
    }

    /// Device and inode of its folder: no other attempt has them, also not one in a copy or snapshot of
    /// the spool.
    pub fn which(&self) -> IoResult<(u64, u64)> {
        let stat = self.dir.own_stat()?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder the recipe runs in, and its TMPDIR: what it leaves there goes with the task. A
    /// second folder would cost a short task nearly as much as all its files (docs/design/0021).
    pub fn work_path(&self) -> PathBuf {
        self.dir.path_of(WORK)
    }

    /// The input as a file.
    pub fn input_path(&self) -> PathBuf {
        self.dir.path_of(INPUT)
    }

    /// Where the recipe appends its progress.
    pub fn progress_path(&self) -> PathBuf {
        self.dir.path_of(PROGRESS)
    }

    /// Where the recipe may write its result.
    pub fn output_path(&self) -> PathBuf {
        self.dir.path_of(OUTPUT)
    }

    /// Keeps room for the result.
    pub fn reserve_result(&self) -> IoResult<ReservedResult> {
        let file = self.dir.create(RESERVE)?;
        // With the size kept at 0 nothing has to be cut off again: that costs as much as the result.
        match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES) {
            Ok(()) => {}
            // A file system without fallocate: blocks that were written are as good.
            Err(Errno::OPNOTSUPP) => file
                .write_all_at(&[b' '; RESERVED_BYTES as usize], 0)
                .map_err(|source| IoError::new("reserve", self.dir.path_of(RESERVE), source))?,
            Err(errno) => {
                return Err(IoError::new(
                    "reserve room in",
                    self.dir.path_of(RESERVE),
                    errno,
                ));
            }
        }
        let dir = self.dir.open_dir(".")?.with_making(self.dir.making());
        Ok(ReservedResult { file, dir })
    }

    /// Writes who runs it.
    pub fn write_run(&self, run: &RunFile) -> IoResult<()> {
        self.dir.replace(RUN, &pretty(run))
    }

    /// Who ran it; `None` when it cannot be read. Where the runner died before it could write
    /// `run.json`, its intent says so, and behind it the recipe's process says who it is.
    pub fn run(&self) -> Option<RunFile> {
        if let Some(bytes) = self.dir.read(RUN, SMALL_FILE).ok()? {
            return serde_json::from_slice(&bytes).ok();
        }
        self.intent()
    }

    fn intent(&self) -> Option<RunFile> {
        let reserve = self.dir.read(RESERVE, SMALL_FILE).ok()??;
        let mut intent = serde_json::Deserializer::from_slice(&reserve).into_iter();
        let run: RunFile = intent.next()?.ok()?;
        let record = reserve.get(intent.byte_offset()..)?.trim_ascii_start();
        let child = proc::parse_stat(record).map(|(entry, _)| entry.key);
        Some(RunFile { child, ..run })
    }

    /// Whether a process may have been started: the intent comes before it, and `run.json` right
    /// after it. The part is the first thing in the folder and the last that is taken back, so one
    /// without it, but not empty, has lost its records.
    pub fn may_have_run(&self) -> IoResult<bool> {
        if self.dir.has(RUN)? {
            return Ok(true);
        }
        match self.dir.stat(RESERVE)? {
            None => Ok(!self.dir.is_empty()?),
            Some(stat) if is_file(stat) => {
                let reserve = self.dir.read(RESERVE, SMALL_FILE)?;
                Ok(reserve.is_some_and(|reserve| !reserve.trim_ascii().is_empty()))
            }
            Some(_) => Ok(true),
        }
    }

    /// Whether it has not ended: room for its result is kept, and says whose it is.
    fn is_unended(&self, id: TaskId) -> bool {
        self.intent()
            .is_some_and(|run| run.task_id == id && run.attempt == self.number)
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl TaskDir {
    /// The numbers of all attempts that may have begun, rising: those with a folder (or anything else) of
    /// that name, and those that only a file beside it tells of.
    pub fn attempt_numbers(&self) -> IoResult<Vec<u32>> {
        let mut numbers = Vec::new();
        let Some(attempts) = self.dir.find_own(name::ATTEMPTS)? else {
            return Ok(numbers);
        };
        attempts.each_name(|name, _| {
            let name = std::str::from_utf8(name).unwrap_or_default();
            numbers.extend(match name.strip_prefix('.') {
                None => canonical(name),
                Some(mark) => mark
                    .split_once('.')
                    .and_then(|(number, _)| canonical(number)),
            });
            true
        })?;
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Whether an attempt was recorded that has no folder, so that what it did is not known.
    pub fn is_attempt_gone(&self, number: u32) -> IoResult<bool> {
        let Some(attempts) = self.dir.find_own(name::ATTEMPTS)? else {
            return Ok(true);
        };
        Ok(!marks_of(&attempts, number)?.is_empty() || !attempts.has(number.to_string())?)
    }

    /// Whether an attempt has not ended. Then a result is not one: a runner makes it of the room that it
    /// kept, so that both never stand.
    pub(super) fn has_unended_attempt(&self) -> IoResult<bool> {
        for number in self.attempt_numbers()? {
            if let Some(attempt) = self.attempt(number)?
                && attempt.is_unended(self.id)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An attempt's folder, if it is there.
    pub fn attempt(&self, number: u32) -> IoResult<Option<Attempt>> {
        let Some(attempts) = self.dir.find_own(name::ATTEMPTS)? else {
            return Ok(None);
        };
        let dir = attempts.find_own(number.to_string())?;
        Ok(dir.map(|dir| Attempt { number, dir }))
    }

    /// A file of this task that its result names, for reading.
    pub fn named_file(&self, relative: &str) -> IoResult<Option<File>> {
        let mut parts = relative.split('/');
        let (Some(name::ATTEMPTS), Some(number), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let Ok(number) = number.parse() else {
            return Ok(None);
        };
        let Some(attempt) = self.attempt(number)? else {
            return Ok(None);
        };
        super::disk::absent_is_none(attempt.dir.open_file(file))
    }
}
