//! What a task gave: its result, and the file where the output is large.
//!
//! Not the waiting for it (`wait.rs`, `follow.rs`). Invariant: a result is read whole or not at all; a large output
//! is never held in memory.

use std::fs::File;
use std::path::PathBuf;

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{IoError, LogReader, Stream, TaskDir};
use crate::task::{ResultFile, Status, TaskId};

/// A task that is over, and what it gave.
#[derive(Debug)]
pub struct TaskResult {
    /// Its folder.
    pub task: TaskDir,
    /// Its result. A small output stands in it, a large one in a file that it names.
    pub result: ResultFile,
}

/// Where a large output is read from.
#[derive(Debug)]
pub enum OutputFile {
    /// The log of the attempt that ended the task. Its middle may have been cut out, which its reader says.
    Log(Box<LogReader>),
    /// A file.
    File(File),
}

/// Why there is no result to give.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// There is no such task.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The task is not over.
    #[error("the task {id} is {status}: there is no result yet")]
    NotYet {
        /// The task.
        id: TaskId,
        /// Where it stands.
        status: Status,
    },
}

/// Why a large output cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file is gone.
    #[error("the output {} is not there any more", .0.display())]
    Gone(PathBuf),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// The result of the task that is called so: by id, part of an id, name, or `last`.
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
    /// The file that holds a large output, opened; `None` where the output stands in the result or there is none.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn output_file(&self) -> Result<Option<OutputFile>, OutputError> {
        let Some(relative) = &self.result.output_file else {
            return Ok(None);
        };
        // Only of this attempt: what an earlier one printed before it was lost is no part of the result.
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
