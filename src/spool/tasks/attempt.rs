//! The folder of an attempt: its files, its number, and which attempts a task has.
//!
//! Not its run record (`run_record.rs`) and not the process (`runner/`). Invariant: if `attempts/<n>/` is on
//! the disk, attempt `n` may have started.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::store::TaskDir;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none};
use crate::spool::layout::name;

/// One attempt's folder.
#[derive(Debug)]
pub struct Attempt {
    pub(super) number: u32,
    pub(in crate::spool) dir: Dir,
}

/// The files a recipe's process is started with.
#[derive(Debug)]
pub struct Files {
    /// The input JSON, open at its beginning.
    pub stdin: File,
    /// `stdout.log`, opened for appending.
    pub stdout: File,
    /// `stderr.log`, opened for appending.
    pub stderr: File,
}

/// Which of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `stdout.log`
    Stdout,
    /// `stderr.log`
    Stderr,
}

impl Stream {
    pub(in crate::spool) fn file_name(self) -> &'static str {
        match self {
            Stream::Stdout => name::STDOUT,
            Stream::Stderr => name::STDERR,
        }
    }
}

impl Attempt {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Creates the folders and files that the recipe's process needs.
    pub fn create_files(&self, input: &[u8]) -> IoResult<Files> {
        // Private also in a group spool: a recipe may create files there that anybody could read.
        self.dir.make_private_dir(name::WORK)?;
        let stdout = self.dir.create_log(name::STDOUT)?;
        let stderr = self.dir.create_log(name::STDERR)?;
        self.dir.create_unsynced(name::INPUT, input)?;
        let stdin = self.dir.open_file(name::INPUT)?;
        // The recipe must get a blocking file.
        rustix::fs::fcntl_setfl(&stdin, rustix::fs::OFlags::empty())
            .map_err(|errno| IoError::new("open", self.dir.path_of(name::INPUT), errno))?;
        Ok(Files {
            stdin,
            stdout,
            stderr,
        })
    }

    /// Opens one of its logs for reading; `None` if it does not exist yet.
    pub(in crate::spool) fn log(&self, stream: Stream) -> IoResult<Option<File>> {
        absent_is_none(self.dir.open_own_file(stream.file_name()))
    }

    /// Device and inode of its folder. They are unique, even if the spool was copied or is in a snapshot.
    pub fn which(&self) -> IoResult<(u64, u64)> {
        self.dir.which()
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The working folder of the recipe, which is also its `TMPDIR`. Files in it are removed with the task. A
    /// second folder would cost a short task nearly as much as all its files (docs/design/0011).
    pub fn work_path(&self) -> PathBuf {
        self.dir.path_of(name::WORK)
    }

    /// The input as a file.
    pub fn input_path(&self) -> PathBuf {
        self.dir.path_of(name::INPUT)
    }

    /// Where the recipe appends its progress.
    pub fn progress_path(&self) -> PathBuf {
        self.dir.path_of(name::PROGRESS)
    }

    /// Where the recipe may write its result.
    pub fn output_path(&self) -> PathBuf {
        self.dir.path_of(name::OUTPUT)
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl TaskDir {
    /// The numbers of all attempts that may have started, in ascending order. A folder (or anything else) of
    /// that name counts, and so does a boot record without a folder.
    pub fn attempt_numbers(&self) -> IoResult<Vec<u32>> {
        let mut numbers = Vec::new();
        let Some(attempts) = self.dir.find_own_of(name::ATTEMPTS, self.owner)? else {
            return Ok(numbers);
        };
        attempts.each_name(|name, _| {
            let name = std::str::from_utf8(name).unwrap_or_default();
            numbers.extend(match name.strip_prefix('.') {
                None => canonical(name),
                Some(record_name) => record_name
                    .split_once('.')
                    .and_then(|(number, _)| canonical(number)),
            });
            true
        })?;
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// Whether a recorded attempt has no folder any more, so that it is not known what it did.
    pub fn is_attempt_gone(&self, number: u32) -> IoResult<bool> {
        let Some(attempts) = self.dir.find_own_of(name::ATTEMPTS, self.owner)? else {
            return Ok(true);
        };
        Ok(!boot_records_of(&attempts, number)?.is_empty() || !attempts.has(number.to_string())?)
    }

    /// Opens an attempt's folder; `None` if it does not exist.
    pub fn attempt(&self, number: u32) -> IoResult<Option<Attempt>> {
        let Some(attempts) = self.dir.find_own_of(name::ATTEMPTS, self.owner)? else {
            return Ok(None);
        };
        let dir = attempts.find_own_of(number.to_string(), self.owner)?;
        Ok(dir.map(|dir| Attempt { number, dir }))
    }

    /// Opens a file of this task that its result names, as in `attempts/1/output`. `None` if there is no such
    /// file, or if the path has another form.
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
        absent_is_none(attempt.dir.open_own_file(file))
    }
}

pub(super) fn is_file(stat: Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// The attempt number that a name is, without leading zeros or a sign.
fn canonical(text: &str) -> Option<u32> {
    let number = text.parse().ok()?;
    (number > 0 && text.bytes().next() != Some(b'+') && text.bytes().next() != Some(b'0'))
        .then_some(number)
}

/// The boot records next to an attempt's folder.
pub(super) fn boot_records_of(attempts: &Dir, number: u32) -> IoResult<Vec<String>> {
    let prefix = format!(".{number}.");
    let mut names = Vec::new();
    attempts.each_name(|name, _| {
        let record_name = std::str::from_utf8(name).ok();
        names.extend(
            record_name
                .filter(|record_name| record_name.starts_with(&prefix))
                .map(str::to_owned),
        );
        true
    })?;
    Ok(names)
}

pub(super) fn path_in_task(attempt: u32, file: &str) -> String {
    format!("{}/{attempt}/{file}", name::ATTEMPTS)
}
