//! A task's folder: how it is found, and how its files are read.
//!
//! Not how it comes to be (`publish.rs`), not who runs it (`lock.rs`) and not what its files together
//! mean (`view.rs`). Invariant: a file that cannot be read is kept, and said to be so.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{SMALL_FILE, name};
use crate::spool::open::Spool;
use crate::task::{
    FORMAT_VERSION, MAX_REQUEST_BYTES, Origin, Request, RequestError, ResultFile, StatusFile,
    StoredRequest, TaskId, describe_json_error, escape_path,
};

/// `env.json`: variables that came with `submit --env`, readable by the owner alone.
#[derive(Serialize, Deserialize)]
pub(in crate::spool) struct EnvironmentFile {
    pub v: u32,
    pub variables: Map<String, Value>,
}

impl Spool {
    /// A task's folder; `None` when there is none.
    pub fn task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        let owner = self.only_owner();
        let tasks = self.folder(name::TASKS)?;
        let Some(dir) = tasks.find_own_of(id.to_string(), owner)? else {
            return Ok(None);
        };
        let task = TaskDir { id, dir, owner };
        Ok((!self.is_empty_folder(&task)?).then_some(task))
    }

    /// Whether a task's folder is what a removal in place leaves when it is cut off in the end: empty
    /// but perhaps for its lock, and a task for nobody. A recipe may empty its own task's folder.
    pub(in crate::spool) fn is_empty_folder(&self, task: &TaskDir) -> IoResult<bool> {
        Ok(is_empty_but_for_its_lock(&task.dir)?
            && !self.folder(name::OPEN)?.has(task.id.to_string())?
            && !task.is_worked_on()?)
    }

    /// Where a task's folder is, or will be.
    pub fn task_path(&self, id: TaskId) -> PathBuf {
        self.path().join(name::TASKS).join(id.to_string())
    }

    /// The ids of all tasks, newest first.
    pub fn task_ids(&self) -> IoResult<Vec<TaskId>> {
        let mut ids = ids_in(&self.folder(name::TASKS)?)?;
        ids.reverse();
        Ok(ids)
    }
}

fn is_empty_but_for_its_lock(dir: &Dir) -> IoResult<bool> {
    // Nearly every task has the folder of its attempts, and most file systems count that here.
    if dir.own_stat()?.st_nlink > 2 {
        return Ok(false);
    }
    let mut is_empty = true;
    dir.each_name(|entry, _| {
        is_empty = entry == name::LOCK.as_bytes();
        is_empty
    })?;
    Ok(is_empty)
}

/// The ids among a folder's names, oldest first.
pub(in crate::spool) fn ids_in(dir: &Dir) -> IoResult<Vec<TaskId>> {
    let mut ids = Vec::new();
    dir.each_name(|name, _| {
        ids.extend(
            std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse::<TaskId>().ok()),
        );
        true
    })?;
    ids.sort_unstable();
    Ok(ids)
}

/// Why a task's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is not there or not what it should be. It is kept as it is.
    #[error("cannot use {}: {problem}", escape_path(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program wrote it.
    #[error(
        "{} was written by a newer agentspool: use that one",
        escape_path(path)
    )]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl ReadError {
    /// What an error on a thing of a task's own means.
    pub fn of(error: IoError) -> ReadError {
        if error.is_unusable() {
            return ReadError::Damaged {
                path: error.path,
                problem: format!("failed to {} it: {}", error.doing, error.source),
            };
        }
        ReadError::Io(error)
    }
}

/// One task's open folder. It stays the same folder when the task is removed under it.
#[derive(Debug)]
pub struct TaskDir {
    pub(in crate::spool) id: TaskId,
    pub(in crate::spool) dir: Dir,
    /// Whose folders count in it, where not anybody's: see [`Spool::only_owner`].
    pub(in crate::spool) owner: Option<u32>,
}

impl AsFd for TaskDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl TaskDir {
    /// A task in a folder that is open.
    pub(in crate::spool) fn of(id: TaskId, dir: Dir) -> TaskDir {
        let owner = None;
        TaskDir { id, dir, owner }
    }

    /// Device of its folder.
    pub fn device(&self) -> IoResult<u64> {
        Ok(self.dir.own_stat()?.st_dev)
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Reads a file of it. Where something else stands there, or another user's, it is damaged: nobody can read it
    /// before somebody mends it.
    fn read_own(&self, file: &str, cap: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.dir.read_own(file, cap).map_err(ReadError::of)
    }

    /// Who submitted it through the drop box of a group spool; `None` where the spool's owner did, or
    /// in a private spool.
    pub fn origin(&self) -> Result<Option<Origin>, ReadError> {
        let Some(bytes) = self.read_own(name::ORIGIN, SMALL_FILE)? else {
            return Ok(None);
        };
        let origin = serde_json::from_slice(&bytes).map_err(|e| ReadError::Damaged {
            path: self.dir.path_of(name::ORIGIN),
            problem: e.to_string(),
        })?;
        Ok(Some(origin))
    }

    /// What was asked.
    pub fn request(&self) -> Result<StoredRequest, ReadError> {
        let path = self.dir.path_of(name::REQUEST);
        let Some(bytes) = self.read_own(name::REQUEST, MAX_REQUEST_BYTES)? else {
            return Err(ReadError::Damaged {
                path,
                problem: "it is not there".into(),
            });
        };
        match Request::parse(&bytes) {
            Ok(request) => Ok(request),
            Err(RequestError::Newer(_)) => Err(ReadError::Newer { path }),
            // A program of this version stores only what it can read, so an unknown field is news.
            Err(RequestError::UnknownField(_) | RequestError::Reserved(_)) => {
                Err(ReadError::Newer { path })
            }
            Err(error) => Err(ReadError::Damaged {
                path,
                problem: error.to_string(),
            }),
        }
    }

    /// The last holder's word, where it can be read. It is derivable: what cannot be read counts
    /// as absent and never stops anybody.
    pub fn status_file(&self) -> Option<StatusFile> {
        let bytes = self.dir.read_own(name::STATUS, SMALL_FILE).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// The terminal truth; `None` while there is none. It is on the disk when this returns, so it
    /// may be told.
    pub fn result(&self) -> Result<Option<ResultFile>, ReadError> {
        let result = self.result_as_it_stands();
        if matches!(result, Ok(None)) || self.says_that_it_is_over() {
            return result;
        }
        if self.has_unended_attempt()? {
            return Ok(None);
        }
        // A result can be seen a moment before it is durable, and for longer where its writer died or
        // the disk refuses. Its terminal status is written only after the sync; without that, whoever
        // wants to tell others of the result makes it durable.
        if result.is_ok() {
            self.dir.sync()?;
        }
        result
    }

    fn says_that_it_is_over(&self) -> bool {
        let status = self.status_file();
        status.is_some_and(|status| status.status.is_terminal())
    }

    /// The same for the one who has just synced it.
    pub fn result_as_it_stands(&self) -> Result<Option<ResultFile>, ReadError> {
        let bytes = self.read_own(name::RESULT, SMALL_FILE)?;
        bytes.map(|bytes| self.parse_result(&bytes)).transpose()
    }

    /// What stands in `result.json`.
    pub(in crate::spool) fn parse_result(&self, bytes: &[u8]) -> Result<ResultFile, ReadError> {
        let path = self.dir.path_of(name::RESULT);
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        let damaged = |e: serde_json::Error| ReadError::Damaged {
            path: path.clone(),
            problem: e.to_string(),
        };
        let Version { v } = serde_json::from_slice(bytes).map_err(damaged)?;
        if v > u64::from(FORMAT_VERSION) {
            return Err(ReadError::Newer { path });
        }
        let result: ResultFile = serde_json::from_slice(bytes).map_err(damaged)?;
        if result.task_id != self.id {
            let problem = format!("it is the result of the task {}", result.task_id);
            return Err(ReadError::Damaged { path, problem });
        }
        Ok(result)
    }

    /// Whether it is finished: a result stands, readable or not, and no runner has still to make it.
    pub fn has_result(&self) -> IoResult<bool> {
        Ok(self.has_result_file()?
            && (self.says_that_it_is_over() || !self.has_unended_attempt()?))
    }

    /// The same where the status is known to say that it is over.
    pub(in crate::spool) fn has_result_file(&self) -> IoResult<bool> {
        self.dir.has(name::RESULT)
    }

    /// Whether somebody asked for it to be cancelled.
    pub fn cancel_requested(&self) -> IoResult<bool> {
        self.dir.has(name::CANCEL)
    }

    /// Leaves the cancellation marker, durably; `false` when it was there.
    pub fn request_cancel(&self) -> IoResult<bool> {
        self.dir.give_rights();
        match self.dir.create(name::CANCEL) {
            Ok(file) => {
                self.dir.sync_file(&file, name::CANCEL)?;
                self.dir.sync()?;
                Ok(true)
            }
            Err(error) if error.errno() == Some(rustix::io::Errno::EXIST) => {
                // Whoever made it (a `touch`, a command that was killed) need not have synced it.
                self.dir.sync()?;
                Ok(false)
            }
            Err(error) if error.is_no_space() => self.cancel_without_room(error),
            Err(error) => Err(error),
        }
    }

    /// A full disk must not keep a task running that fills it: the status, which can be derived,
    /// becomes the marker, of which only the name counts. That takes neither an inode nor a block.
    fn cancel_without_room(&self, no_room: IoError) -> IoResult<bool> {
        match self.dir.rename_new(name::STATUS, &self.dir, name::CANCEL) {
            Ok(()) => {
                self.dir.sync()?;
                Ok(true)
            }
            Err(error) if error.errno() == Some(rustix::io::Errno::EXIST) => Ok(false),
            Err(_) => Err(no_room),
        }
    }

    /// Whether there may be an attempt: without listing them, where the file system counts a
    /// folder's folders among its links.
    pub(super) fn may_have_begun(&self) -> IoResult<bool> {
        const LINKS_OF_AN_EMPTY_FOLDER: u64 = 2;
        let stat = self.dir.stat(name::ATTEMPTS)?;
        Ok(stat.is_some_and(|stat| stat.st_nlink != LINKS_OF_AN_EMPTY_FOLDER))
    }

    /// The number of the last attempt; 0 before the first.
    pub fn last_attempt(&self) -> IoResult<u32> {
        Ok(self.attempt_numbers()?.last().copied().unwrap_or(0))
    }

    /// The variables that came with the request.
    pub fn environment(&self) -> Result<Map<String, Value>, ReadError> {
        let Some(bytes) = self.read_own(name::ENVIRONMENT, SMALL_FILE)? else {
            return Ok(Map::new());
        };
        let path = self.dir.path_of(name::ENVIRONMENT);
        // The parser's words could repeat a value, and these are secrets.
        let file: EnvironmentFile =
            serde_json::from_slice(&bytes).map_err(|e| ReadError::Damaged {
                path,
                problem: describe_json_error(&e),
            })?;
        Ok(file.variables)
    }
}
