//! A task's result, and the file of a large output.
//!
//! Not the waiting (`wait.rs`, `follow.rs`). Invariant: a result is read whole or not at all, and a large
//! output is never held in memory.

use std::fs::File;
use std::path::PathBuf;

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{IoError, LogReader, Stream, TaskDir};
use crate::task::{ResultFile, Status, TaskId};

/// A task that has ended, and its result.
#[derive(Debug)]
pub struct TaskResult {
    /// Its folder.
    pub task: TaskDir,
    /// Its result. It holds a small output, or the name of the file with a large output.
    pub result: ResultFile,
}

/// The source of a large output.
#[derive(Debug)]
pub enum OutputFile {
    /// The log of the attempt that ended the task. If its middle was dropped, the reader returns a gap.
    Log(Box<LogReader>),
    /// A file.
    File(File),
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// There is no such task.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The task has not ended.
    #[error("the task {id} is {status}: there is no result yet")]
    NotYet {
        /// The task.
        id: TaskId,
        /// Its status.
        status: Status,
    },
}

/// Why a large output cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file was removed.
    #[error("the output {} no longer exists", .0.display())]
    Gone(PathBuf),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// The result of a task, given by id, part of an id, name, or `last`.
    ///
    /// # Errors
    /// [`ResultError`].
    pub fn result(&self, task: &str) -> Result<TaskResult, ResultError> {
        let task = self.folder_of(task)?;
        let Some(result) = task.result().map_err(LookupError::from)? else {
            let id = task.id();
            let status = task.view().map_err(LookupError::from)?.status.status;
            return Err(ResultError::NotYet { id, status });
        };
        Ok(TaskResult { task, result })
    }
}

impl TaskResult {
    /// Opens the file of a large output; `None` if the output is in the result or there is no output.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn output_file(&self) -> Result<Option<OutputFile>, OutputError> {
        let Some(relative) = &self.result.output_file else {
            return Ok(None);
        };
        // Only this attempt: the output of an earlier, lost attempt is not part of the result.
        if relative.ends_with("/stdout.log")
            && let Some(log) = LogReader::open(&self.task, self.result.attempt, Stream::Stdout)?
        {
            return Ok(Some(OutputFile::Log(Box::new(log))));
        }
        match self.task.named_file(relative)? {
            Some(file) => Ok(Some(OutputFile::File(file))),
            None => Err(OutputError::Gone(self.task.path().join(relative))),
        }
    }
}
