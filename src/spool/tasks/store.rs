//! A task's folder: how it is found, and how its files are read.
//!
//! Not how it is created (`publish.rs`), not which process works on it (`lock.rs`) and not what its files
//! mean together (`view.rs`). Invariant: a file that cannot be read is kept, and reported as damaged.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{SMALL_FILE, name};
use crate::spool::open::Spool;
use crate::task::{
    FORMAT_VERSION, MAX_REQUEST_BYTES, Name, Origin, Request, RequestError, ResultFile, StatusFile,
    StoredRequest, TaskId, describe_json_error, escape_path,
};

/// `env.json`: the variables of `submit --env`. Only the owner can read it.
#[derive(Serialize, Deserialize)]
pub(in crate::spool) struct EnvironmentFile {
    pub v: u32,
    pub variables: Map<String, Value>,
}

impl Spool {
    /// Opens a task's folder; `None` if there is no such task.
    pub fn task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        let owner = self.only_owner();
        let tasks = self.folder(name::TASKS)?;
        let Some(dir) = tasks.find_own_of(id.to_string(), owner)? else {
            return Ok(None);
        };
        let task = TaskDir { id, dir, owner };
        Ok((!self.is_empty_folder(&task)?).then_some(task))
    }

    /// Whether this is an empty task folder, as a removal in place leaves it when it is interrupted near its
    /// end. It holds at most the lock. A recipe may empty the folder of its own task, so a folder with an
    /// index entry or a process that works on it does not count.
    pub(in crate::spool) fn is_empty_folder(&self, task: &TaskDir) -> IoResult<bool> {
        Ok(is_empty_but_for_its_lock(&task.dir)?
            && !self.folder(name::OPEN)?.has(task.id.to_string())?
            && !task.is_worked_on()?)
    }

    /// The path of a task's folder, which need not exist yet.
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
    // Nearly every task has `attempts/`, and most file systems count a subfolder as a link.
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

/// The names in a folder that are task ids, oldest first.
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
    /// The file is missing or is not what it should be. It is kept as it is.
    #[error("cannot use {}: {problem}", escape_path(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program wrote the file.
    #[error(
        "cannot read {}: a newer agentspool wrote it; use that version",
        escape_path(path)
    )]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl ReadError {
    /// The error for a file in a task's folder: `Damaged` if the file is not usable, else `Io`.
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

/// One task's open folder. It stays open when the task is moved to the trash.
#[derive(Debug)]
pub struct TaskDir {
    pub(in crate::spool) id: TaskId,
    pub(in crate::spool) dir: Dir,
    /// If set, only folders of this user are used in it: see [`Spool::only_owner`].
    pub(in crate::spool) owner: Option<u32>,
}

impl AsFd for TaskDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl TaskDir {
    /// A task whose folder is already open.
    pub(in crate::spool) fn of(id: TaskId, dir: Dir) -> TaskDir {
        let owner = None;
        TaskDir { id, dir, owner }
    }

    /// The device number of its folder.
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

    /// Reads a file in the folder. Anything but a regular file of the owner is `Damaged`: it cannot be read
    /// until a person fixes it.
    fn read_own(&self, file: &str, cap: usize) -> Result<Option<Vec<u8>>, ReadError> {
        self.dir.read_own(file, cap).map_err(ReadError::of)
    }

    /// The user who submitted it through the drop box of a group spool. `None` in a private spool, and if the
    /// spool's owner submitted it.
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

    /// The request.
    pub fn request(&self) -> Result<StoredRequest, ReadError> {
        let path = self.dir.path_of(name::REQUEST);
        let Some(bytes) = self.read_own(name::REQUEST, MAX_REQUEST_BYTES)? else {
            return Err(ReadError::Damaged {
                path,
                problem: "the file is missing".into(),
            });
        };
        match Request::parse(&bytes) {
            Ok(request) => Ok(request),
            Err(RequestError::Newer(_)) => Err(ReadError::Newer { path }),
            // This version stores only fields it knows, so a newer version wrote an unknown one.
            Err(RequestError::UnknownField(_) | RequestError::Reserved(_)) => {
                Err(ReadError::Newer { path })
            }
            Err(error) => Err(ReadError::Damaged {
                path,
                problem: error.to_string(),
            }),
        }
    }

    /// The status file, as the last lock holder wrote it. A status can be derived, so a file that cannot be
    /// read counts as absent and is no error.
    pub fn status_file(&self) -> Option<StatusFile> {
        let bytes = self.dir.read_own(name::STATUS, SMALL_FILE).ok()??;
        let status: StatusFile = serde_json::from_slice(&bytes).ok()?;
        // That of another task was copied here.
        (status.task_id == self.id).then_some(status)
    }

    /// The name and the label of the task by its status file, which is read without the rest: the metadata in it
    /// may have a megabyte.
    pub fn called_by_status(&self) -> Option<(Option<Name>, Option<String>)> {
        #[derive(Deserialize)]
        struct Called {
            task_id: TaskId,
            name: Option<Name>,
            label: Option<String>,
        }
        let bytes = self.dir.read_own(name::STATUS, SMALL_FILE).ok()??;
        let called: Called = serde_json::from_slice(&bytes).ok()?;
        (called.task_id == self.id).then_some((called.name, called.label))
    }

    /// The result; `None` while the task is not finished. The result is durable when this returns, so it may
    /// be reported.
    pub fn result(&self) -> Result<Option<ResultFile>, ReadError> {
        let result = self.result_as_it_stands();
        if matches!(result, Ok(None)) || self.has_terminal_status() {
            return result;
        }
        if self.has_unended_attempt()? {
            return Ok(None);
        }
        // A result is visible before it is durable, and stays so if its writer was killed or the sync failed.
        // The terminal status is written only after the sync. Without it, the reader syncs the folder.
        if result.is_ok() {
            self.dir.sync()?;
        }
        result
    }

    fn has_terminal_status(&self) -> bool {
        let status = self.status_file();
        status.is_some_and(|status| status.status.is_terminal())
    }

    /// Reads the result without making it durable.
    pub fn result_as_it_stands(&self) -> Result<Option<ResultFile>, ReadError> {
        let bytes = self.read_own(name::RESULT, SMALL_FILE)?;
        bytes.map(|bytes| self.parse_result(&bytes)).transpose()
    }

    /// Parses the bytes of `result.json`.
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
            let problem = format!("it is the result of another task, {}", result.task_id);
            return Err(ReadError::Damaged { path, problem });
        }
        Ok(result)
    }

    /// Whether the task is finished: there is a result, readable or not, and no attempt is still running.
    pub fn has_result(&self) -> IoResult<bool> {
        Ok(self.has_result_file()?
            && (self.has_terminal_status() || !self.has_unended_attempt()?))
    }

    /// Whether there is a `result.json`. With a terminal status this means that the task is finished.
    pub(in crate::spool) fn has_result_file(&self) -> IoResult<bool> {
        self.dir.has(name::RESULT)
    }

    /// Whether a cancellation was requested.
    pub fn cancel_requested(&self) -> IoResult<bool> {
        self.dir.has(name::CANCEL)
    }

    /// Creates the cancel marker, durably; `false` if there was one.
    pub fn request_cancel(&self) -> IoResult<bool> {
        self.dir.give_rights();
        match self.dir.create(name::CANCEL) {
            Ok(file) => {
                self.dir.sync_file(&file, name::CANCEL)?;
                self.dir.sync()?;
                Ok(true)
            }
            Err(error) if error.errno() == Some(rustix::io::Errno::EXIST) => {
                // The process that created it (`touch`, or a command that was killed) may not have synced it.
                self.dir.sync()?;
                Ok(false)
            }
            Err(error) if error.is_no_space() => self.cancel_without_room(error),
            Err(error) => Err(error),
        }
    }

    /// A task that fills the disk must be cancellable on the full disk. So the status file is renamed to the
    /// marker: a status can be derived, only the marker's name counts, and a rename needs no inode or block.
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

    /// Whether there may be an attempt. Needs no listing if the file system counts subfolders as links.
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
        // The parser's own message could repeat a value, and the values may be secrets.
        let file: EnvironmentFile =
            serde_json::from_slice(&bytes).map_err(|e| ReadError::Damaged {
                path,
                problem: describe_json_error(&e),
            })?;
        Ok(file.variables)
    }
}
