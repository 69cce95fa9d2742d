//! A task's folder: how it is published, and how its files are read.
//!
//! Not who runs it (`claim.rs`) and not what its files together mean (`view.rs`). Invariants: an
//! entry in `tasks/` has a complete, valid `request.json` (I1); while its submitter lives nobody
//! runs it before it is accepted (I2), because the submitter holds its lock until then.

use std::fs::File;
use std::path::{Path, PathBuf};

use fs2::FileExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::durable::{Dir, IoError, IoResult};
use super::layout::{SMALL_FILE, Spool, name, pretty};
use crate::clock;
use crate::task::Timestamp;
use crate::task::{
    FORMAT_VERSION, MAX_REQUEST_BYTES, Request, RequestError, ResultFile, Status, StatusFile,
    StoredRequest, TaskId, describe_json_error, session_of,
};

/// A task to be.
#[derive(Debug)]
pub struct Submission {
    /// Its id, from [`Spool::new_id`].
    pub id: TaskId,
    /// What it asks for.
    pub request: Request,
    /// Variables for its process, kept in a 0600 file of the task until it ends.
    pub environment: Map<String, Value>,
}

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Below the floor of free room.
    #[error(
        "not accepted: the file system of {} has {bytes} bytes and {inodes} inodes free, and the spool keeps {min_bytes} and {min_inodes} (min_free_bytes, min_free_inodes): make room or lower the floor",
        path.display()
    )]
    NoRoom {
        /// The spool.
        path: PathBuf,
        /// Free bytes.
        bytes: u64,
        /// Free inodes.
        inodes: u64,
        /// The floor.
        min_bytes: u64,
        /// The floor.
        min_inodes: u64,
    },
    /// The request breaks a rule.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The kernel said no; nothing was accepted.
    #[error("not accepted: {0}")]
    Io(#[from] IoError),
}

/// `env.json`: variables that came with `submit --env`, readable by the owner alone.
#[derive(Serialize, Deserialize)]
struct EnvironmentFile {
    v: u32,
    variables: Map<String, Value>,
}

/// Published, not yet acknowledged; the lock is held.
struct Published {
    task: TaskDir,
    _lock: File,
}

impl Spool {
    /// Publishes tasks; when this returns they are accepted and outlive what the spool's
    /// durability promises. All or none of them, except for those a crash cuts off.
    ///
    /// # Errors
    /// When there is no room, a request breaks a rule, or the disk refuses. Then none was
    /// accepted.
    pub fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<TaskDir>, SubmitError> {
        self.check_room()?;
        let tasks = self.folder(name::TASKS)?;
        let staging = self.folder(name::STAGING)?;
        let mut published = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.publish(&staging, &tasks, submission) {
                Ok(one) => published.push(one),
                Err(error) => {
                    self.take_back(published);
                    return Err(error);
                }
            }
        }
        // One fsync of tasks/ accepts them all.
        if let Err(error) = tasks.sync() {
            self.take_back(published);
            return Err(error.into());
        }
        Ok(published.into_iter().map(|one| one.task).collect())
    }

    /// Refuses new work below the floor of free room.
    pub fn check_room(&self) -> Result<(), SubmitError> {
        let (bytes, inodes) = self.free_room()?;
        let settings = self.settings();
        let (min_bytes, min_inodes) = (settings.min_free_bytes, settings.min_free_inodes);
        if bytes < min_bytes || inodes < min_inodes {
            let path = self.path().to_owned();
            return Err(SubmitError::NoRoom {
                path,
                bytes,
                inodes,
                min_bytes,
                min_inodes,
            });
        }
        Ok(())
    }

    fn publish(
        &self,
        staging: &Dir,
        tasks: &Dir,
        submission: Submission,
    ) -> Result<Published, SubmitError> {
        let id = submission.id;
        let folder = id.to_string();
        let built = self.build(staging, submission);
        let placed = built.and_then(|built| {
            staging.rename_new(&folder, tasks, &folder)?;
            Ok(built)
        });
        match placed {
            Ok((lock, dir)) => {
                // The same folder, but known by its final path from here on. Not opened anew: that
                // could fail, and the task stands.
                let dir = dir.moved_to(tasks.path_of(&folder));
                Ok(Published {
                    task: TaskDir { id, dir },
                    _lock: lock,
                })
            }
            Err(error) => {
                // What cannot be removed now is litter that the sweeper knows.
                let _ = self.remove_hints(id, None);
                let _ = staging.remove_tree(&folder);
                Err(error)
            }
        }
    }

    /// Builds the folder in staging/, complete and durable, with its lock held.
    fn build(&self, staging: &Dir, submission: Submission) -> Result<(File, Dir), SubmitError> {
        let Submission {
            id,
            mut request,
            environment,
        } = submission;
        request.check()?;
        let given_session = request.session_id.clone();
        request.session_id.get_or_insert_with(|| session_of(id));
        let bytes = request.to_bytes();
        // What is stored must be readable again: names and defaults may have made it grow.
        Request::parse(&bytes)?;

        let dir = staging.make_dir(id.to_string())?;
        // It appears held: a lock that is seen free in staging/ is a dead submitter's.
        let between = format!(".{}.new", name::LOCK);
        let lock = dir.create(&between)?;
        FileExt::try_lock_exclusive(&lock)
            .map_err(|e| IoError::new("lock", dir.path_of(name::LOCK), e))?;
        dir.rename_new(&between, &dir, name::LOCK)?;
        dir.make_dir(name::ATTEMPTS)?;
        dir.write_new(name::REQUEST, &bytes)?;
        // Nobody reads here yet, so it needs no name in between.
        dir.create_unsynced(name::STATUS, &pending_status(id, &request).to_bytes())?;
        if !environment.is_empty() {
            let variables = environment;
            let file = EnvironmentFile {
                v: FORMAT_VERSION,
                variables,
            };
            dir.write_new(name::ENVIRONMENT, &pretty(&file))?;
        }
        dir.sync()?;
        // Hints are a superset of what is open: made before the task can be seen.
        self.add_hints(id, &dir, given_session.as_ref())?;
        Ok((lock, dir))
    }

    /// Undoes what was published but not acknowledged; the locks are still held.
    fn take_back(&self, published: Vec<Published>) {
        for one in published {
            // Should this fail as well, the task runs unacknowledged, as after a kill (I2).
            let _ = self.discard(&one.task);
        }
    }

    /// A task's folder; `None` when there is none.
    pub fn task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        let dir = self.folder(name::TASKS)?.find_dir(id.to_string())?;
        Ok(dir.map(|dir| TaskDir { id, dir }))
    }

    /// The ids of all tasks, newest first.
    pub fn task_ids(&self) -> IoResult<Vec<TaskId>> {
        let mut ids = ids_in(&self.folder(name::TASKS)?)?;
        ids.reverse();
        Ok(ids)
    }
}

/// The ids among a folder's names, oldest first.
pub(super) fn ids_in(dir: &Dir) -> IoResult<Vec<TaskId>> {
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

/// The first status of a task.
pub(super) fn pending_status(id: TaskId, request: &Request) -> StatusFile {
    let created_at = Timestamp::from_unix_ms(id.unix_ms());
    StatusFile {
        v: FORMAT_VERSION,
        task_id: id,
        status: Status::Pending,
        recipe: Some(request.recipe.clone()),
        name: request.name.clone(),
        label: request.label.clone(),
        session_id: request.session_id.clone(),
        attempt: 0,
        progress: 0.0,
        message: None,
        condition: None,
        error: None,
        created_at,
        started_at: None,
        completed_at: None,
        duration_seconds: None,
        exit_code: None,
        signal: None,
        log_bytes_dropped: 0,
        metadata: request.metadata.clone(),
        updated_at: clock::wall(),
    }
}

/// Why a task's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is not there or not what it should be. It is kept as it is.
    #[error("cannot use {}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program wrote it.
    #[error("{} was written by a newer agentspool: use that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// One task's open folder. It stays the same folder when the task is removed under it.
#[derive(Debug)]
pub struct TaskDir {
    pub(super) id: TaskId,
    pub(super) dir: Dir,
}

impl TaskDir {
    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether its folder was made by us; in a group spool a member's may be anything.
    pub fn is_ours(&self) -> bool {
        self.dir.is_ours().unwrap_or(false)
    }

    /// What was asked.
    pub fn request(&self) -> Result<StoredRequest, ReadError> {
        let path = self.dir.path_of(name::REQUEST);
        let Some(bytes) = self.dir.read(name::REQUEST, MAX_REQUEST_BYTES)? else {
            return Err(ReadError::Damaged {
                path,
                problem: "it is not there".into(),
            });
        };
        match Request::parse(&bytes) {
            Ok(request) => Ok(request),
            Err(RequestError::Newer(_)) => Err(ReadError::Newer { path }),
            // A program of this version stores only what it can read, so an unknown field is news.
            Err(RequestError::Shape(told)) if told.starts_with("unknown field") => {
                Err(ReadError::Newer { path })
            }
            Err(RequestError::Reserved(_)) => Err(ReadError::Newer { path }),
            Err(error) => Err(ReadError::Damaged {
                path,
                problem: error.to_string(),
            }),
        }
    }

    /// The last holder's word, where it can be read. It is derivable: what cannot be read counts
    /// as absent and never stops anybody.
    pub fn status_file(&self) -> Option<StatusFile> {
        let bytes = self.dir.read(name::STATUS, SMALL_FILE).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// The terminal truth; `None` while there is none. It is on the disk when this returns, so it
    /// may be told.
    pub fn result(&self) -> Result<Option<ResultFile>, ReadError> {
        let result = self.result_as_it_stands()?;
        if result.is_some() {
            self.confirm_result()?;
        }
        Ok(result)
    }

    /// A result can be seen a moment before it is durable, and for longer where its writer died or
    /// the disk refuses. Its terminal status is written only after the sync; without that, whoever
    /// wants to tell others of the result makes it durable.
    fn confirm_result(&self) -> IoResult<()> {
        let status = self.status_file();
        if status.is_some_and(|status| status.status.is_terminal()) {
            return Ok(());
        }
        self.dir.sync()
    }

    /// The same for the one who has just synced it.
    pub fn result_as_it_stands(&self) -> Result<Option<ResultFile>, ReadError> {
        let bytes = self.dir.read(name::RESULT, SMALL_FILE)?;
        bytes.map(|bytes| self.parse_result(&bytes)).transpose()
    }

    /// What stands in `result.json`.
    pub(super) fn parse_result(&self, bytes: &[u8]) -> Result<ResultFile, ReadError> {
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
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// Whether it is finished: a result stands, readable or not.
    pub fn has_result(&self) -> IoResult<bool> {
        self.dir.has(name::RESULT)
    }

    /// Whether somebody asked for it to be cancelled.
    pub fn cancel_requested(&self) -> IoResult<bool> {
        self.dir.has(name::CANCEL)
    }

    /// Leaves the cancellation marker, durably; `false` when it was there.
    pub fn request_cancel(&self) -> IoResult<bool> {
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
        let mut last = 0;
        let Some(attempts) = self.dir.find_dir(name::ATTEMPTS)? else {
            return Ok(0);
        };
        // Numbers begin with 1, and no folder with two links has another folder in it. Where links
        // are counted in another way, the listing tells.
        if attempts.own_stat()?.st_nlink == 2 && !attempts.has("1")? {
            return Ok(0);
        }
        attempts.each_name(|name, _| {
            let number = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.parse().ok());
            last = last.max(number.unwrap_or(0));
            true
        })?;
        Ok(last)
    }

    /// The variables that came with the request.
    pub fn environment(&self) -> Result<Map<String, Value>, ReadError> {
        let Some(bytes) = self.dir.read(name::ENVIRONMENT, SMALL_FILE)? else {
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
