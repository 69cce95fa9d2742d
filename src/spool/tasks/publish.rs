//! How a task comes to be: built in `staging/`, made durable, renamed to `tasks/`, accepted.
//!
//! Not how it is read (`store.rs`) nor who runs it (`lock.rs`). Invariants: an entry in `tasks/` has a
//! complete, valid `request.json` (I1), durable before the entry is; while its submitter lives nobody
//! runs it before it is accepted (I2), because the submitter holds its lock until then.

use std::fs::File;
use std::io::{Read as _, Seek, copy};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::status::pending_status;
use super::store::{EnvironmentFile, TaskDir};
use crate::spool::disk::{Dir, Flock, IoError, IoResult, LockLevel, Making};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{
    Event, FORMAT_VERSION, Happened, Origin, Request, RequestError, TaskId, escape_path,
    session_of, to_pretty,
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
    /// A file whose content goes into the task's folder as `attachment`, until the task ends.
    pub attachment: Option<File>,
    /// Who submitted it, where that was through the drop box of a group spool.
    pub origin: Option<Origin>,
}

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Below the floor of free room.
    #[error(
        "not accepted: the file system of {} has {bytes} bytes and {inodes} inodes free, and the spool keeps {min_bytes} and {min_inodes} (min_free_bytes, min_free_inodes): make room or lower the floor",
        escape_path(path)
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
    /// The variables of `--env` take too much room.
    #[error(
        "not accepted: the variables of --env take {bytes} bytes as JSON, and at most {MAX_ENVIRONMENT_BYTES} are taken: put large values into a file and give its path"
    )]
    Environment {
        /// What they take.
        bytes: usize,
    },
    /// Each time a drop had its name, its id was of another time.
    #[error(
        "not accepted: each time the file was in the drop box, its id was too old: this process was stopped for minutes, the disk is very slow, or the clock jumped: submit it again"
    )]
    Late,
    /// The kernel said no; nothing was accepted.
    #[error("not accepted: {0}")]
    Io(#[from] IoError),
}

/// From so many tasks on, one sync of the whole file system costs less than those of their files.
const MANY: usize = 16;

/// The largest `env.json`. Readers take more, and the kernel about as much for one process.
const MAX_ENVIRONMENT_BYTES: usize = 1 << 20;
/// So much of an attachment is written before the room is looked at again.
const PIECE: u64 = 1 << 20;

/// Built or published, not yet acknowledged; the lock is held.
struct Unaccepted {
    task: TaskDir,
    _lock: Flock,
}

/// The event of a submission that is accepted.
fn accepted(submission: &Submission) -> Event {
    let (id, request) = (submission.id, &submission.request);
    let made = session_of(id);
    let session = request.session_id.as_ref().unwrap_or(&made);
    Event::of(Happened::Accepted, id, Some(&request.recipe), Some(session))
}

impl Spool {
    /// Publishes tasks; when this returns they are accepted and outlive what the spool's
    /// durability promises. All or none of them, except for those a crash cuts off.
    ///
    /// # Errors
    /// When there is no room, a request breaks a rule, or the disk refuses. Then none was
    /// accepted.
    pub fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<TaskDir>, SubmitError> {
        let events: Vec<Event> = submissions.iter().map(accepted).collect();
        let tasks = self.accept(submissions)?;
        for event in events {
            self.emit(event);
        }
        Ok(tasks)
    }

    /// The same, where what happened is another event.
    pub(in crate::spool) fn accept(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<TaskDir>, SubmitError> {
        let attached = submissions.iter().filter_map(|it| it.attachment.as_ref());
        self.check_room_for(attached.filter_map(size).sum())?;
        let tasks = self.folder(name::TASKS)?;
        let staging = self.folder(name::STAGING)?;
        // One sync for all files of a large batch, where that can be trusted; else each has its own.
        let at_once = submissions.len() >= MANY && staging.has_whole_sync()?;
        let mut staged = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.stage(&staging, submission, !at_once) {
                Ok(one) => staged.push(one),
                Err(error) => {
                    self.clear_away(&staging, staged);
                    return Err(error);
                }
            }
        }
        if at_once && let Err(error) = staging.sync_whole() {
            self.clear_away(&staging, staged);
            return Err(error.into());
        }
        let mut published = Vec::with_capacity(staged.len());
        let mut staged = staged.into_iter();
        while let Some(one) = staged.next() {
            match self.publish(&staging, &tasks, one) {
                Ok(one) => published.push(one),
                Err(error) => {
                    self.clear_away(&staging, staged);
                    self.take_back(published);
                    return Err(error.into());
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
        self.check_room_for(0)
    }

    /// The same, where these bytes will be written as well.
    fn check_room_for(&self, attached: u64) -> Result<(), SubmitError> {
        let (bytes, inodes) = self.free_room()?;
        let settings = self.settings();
        let (min_bytes, min_inodes) = (settings.min_free_bytes, settings.min_free_inodes);
        if bytes < min_bytes.saturating_add(attached) || inodes < min_inodes {
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

    /// Builds a task's folder in staging/, with its hints; what failed is cleared away.
    fn stage(
        &self,
        staging: &Dir,
        submission: Submission,
        sync: bool,
    ) -> Result<Unaccepted, SubmitError> {
        let id = submission.id;
        // A folder that is there is somebody else's, and stays.
        let dir = staging.make_dir(id.to_string())?;
        match self.build(&dir, submission, sync) {
            Ok(lock) => Ok(Unaccepted {
                task: TaskDir::of(id, dir),
                _lock: lock,
            }),
            Err(error) => {
                self.clear_one_away(staging, id, &dir);
                Err(error)
            }
        }
    }

    fn publish(&self, staging: &Dir, tasks: &Dir, staged: Unaccepted) -> IoResult<Unaccepted> {
        let Unaccepted { task, _lock } = staged;
        let TaskDir { id, dir, .. } = task;
        let folder = id.to_string();
        if let Err(error) = staging.rename_new(&folder, tasks, &folder) {
            self.clear_one_away(staging, id, &dir);
            return Err(error);
        }
        // The same folder, but known by its final path from here on. Not opened anew: that could
        // fail, and the task stands.
        let dir = dir.moved_to(tasks.path_of(&folder));
        Ok(Unaccepted {
            task: TaskDir::of(id, dir),
            _lock,
        })
    }

    /// Undoes what was built and not published.
    fn clear_away(&self, staging: &Dir, staged: impl IntoIterator<Item = Unaccepted>) {
        for one in staged {
            self.clear_one_away(staging, one.task.id, &one.task.dir);
        }
    }

    /// Removes what this call built, and nothing that stands under its name by now. What cannot be removed
    /// now is litter that the sweeper knows.
    fn clear_one_away(&self, staging: &Dir, id: TaskId, dir: &Dir) {
        let _ = staging
            .remove_in_place(id.to_string(), dir, &[], staging, &mut || Ok(()))
            .whole();
        // The hint goes too, unless there is a task of this id.
        let _ = self.check_open_entry(id);
    }

    /// Builds a task in its folder, complete and with its lock held; durable too, with `sync`.
    fn build(
        &self,
        folder: &Dir,
        submission: Submission,
        sync: bool,
    ) -> Result<Flock, SubmitError> {
        let Submission {
            id,
            mut request,
            environment,
            attachment,
            origin,
        } = submission;
        request.check()?;
        let given_session = request.session_id.clone();
        request.session_id.get_or_insert_with(|| session_of(id));
        let bytes = request.to_bytes();
        // What is stored must be readable again: names and defaults may have made it grow.
        Request::parse(&bytes)?;
        let variables = environment_file(environment)?;

        let making = folder.making();
        let sync = sync && making.sync;
        let dir = folder.open_dir(".")?.with_making(Making { sync, ..making });
        // It appears held: a lock that is seen free in staging/ is a dead submitter's.
        let between = format!(".{}.new", name::LOCK);
        // Nobody else knows its name yet.
        let busy = || {
            IoError::new(
                "lock",
                dir.path_of(&between),
                std::io::ErrorKind::WouldBlock,
            )
        };
        let file = dir.create_lock(&between)?;
        let lock = dir
            .lock_exclusively(LockLevel::Task, file, &between)?
            .ok_or_else(busy)?;
        dir.rename_new(&between, &dir, name::LOCK)?;
        dir.make_dir(name::ATTEMPTS)?;
        dir.write_new(name::REQUEST, &bytes)?;
        if let Some(origin) = origin {
            dir.write_new(name::ORIGIN, &to_pretty(&origin))?;
        }
        // Nobody reads here yet, so it needs no name in between.
        dir.create_unsynced(name::STATUS, &pending_status(id, &request).to_bytes())?;
        if let Some(variables) = variables {
            dir.write_new(name::ENVIRONMENT, &variables)?;
        }
        if let Some(attachment) = attachment {
            self.attach(&dir, attachment)?;
        }
        dir.sync()?;
        // Hints are a superset of what is open: made before the task can be seen.
        self.add_entries(id, &dir, given_session.as_ref())?;
        Ok(lock)
    }

    /// Copies what was attached into the task's folder. It is the owner's alone, also in a group spool.
    /// How much comes out of a pipe shows only here, so the room is checked piece by piece.
    fn attach(&self, dir: &Dir, mut from: File) -> Result<(), SubmitError> {
        let failed = |source| IoError::new("write", dir.path_of(name::ATTACHMENT), source);
        let mut to = dir.create_lock(name::ATTACHMENT)?;
        // From its beginning, wherever its reader stood; a pipe has only what is left.
        let _ = from.rewind();
        while copy(&mut (&from).take(PIECE), &mut to).map_err(failed)? > 0 {
            self.check_room()?;
        }
        dir.sync_file(&to, name::ATTACHMENT)?;
        Ok(())
    }

    /// Undoes what was published but not acknowledged; the locks are still held.
    fn take_back(&self, published: Vec<Unaccepted>) {
        for one in published {
            // Should this fail as well, the task runs unacknowledged, as after a kill (I2).
            let _ = self.discard(&one.task);
        }
    }
}

fn size(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// The bytes of `env.json`; `None` where there are no variables.
fn environment_file(variables: Map<String, Value>) -> Result<Option<Vec<u8>>, SubmitError> {
    if variables.is_empty() {
        return Ok(None);
    }
    let file = to_pretty(&EnvironmentFile {
        v: FORMAT_VERSION,
        variables,
    });
    if file.len() > MAX_ENVIRONMENT_BYTES {
        return Err(SubmitError::Environment { bytes: file.len() });
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn submission(id: TaskId, input: &str) -> Submission {
        let request = format!("{{\"recipe\": \"echo\", \"input\": \"{input}\"}}");
        Submission {
            id,
            request: Request::parse(request.as_bytes()).unwrap(),
            environment: Map::new(),
            origin: None,
            attachment: None,
        }
    }

    /// In a group spool a user may bring an id that he saw in staging/ or open/.
    #[test]
    fn what_somebody_else_made_under_the_same_id_stays() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::init(&place.path().join("spool"), None, Overrides::default()).unwrap();
        let there = |path: &str| spool.path().join(path).exists();
        // A task that stands.
        let id = spool.new_id();
        spool.submit(vec![submission(id, "first")]).unwrap();
        spool.submit(vec![submission(id, "second")]).unwrap_err();
        let task = spool.task(id).unwrap().unwrap();
        let input = task.request().unwrap().input.unwrap();
        assert_eq!(input.text(), "\"first\"");
        assert!(there(&format!("open/{id}")) && !there(&format!("staging/{id}")));
        // One that is being made.
        let id = spool.new_id();
        let staging = spool.folder(name::STAGING).unwrap();
        let making = spool
            .stage(&staging, submission(id, "first"), false)
            .unwrap();
        spool.submit(vec![submission(id, "second")]).unwrap_err();
        assert!(there(&format!("open/{id}")) && there(&format!("staging/{id}/request.json")));
        spool.clear_away(&staging, [making]);
        assert!(!there(&format!("open/{id}")) && !there(&format!("staging/{id}")));
    }
}
