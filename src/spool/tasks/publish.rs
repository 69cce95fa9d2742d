//! How a task is created: built in `staging/`, renamed to `tasks/`, made durable, accepted.
//!
//! Not how it is read (`store.rs`), which process works on it (`lock.rs`), nor what becomes of a task whose
//! submitter did not come to its end (`new_marker.rs`). Invariants: an entry in `tasks/` has a complete,
//! valid `request.json` (I1), which is durable before the entry is, unless the entry has a marker `.new.*`;
//! while its submitter is running, no process runs the task before it is accepted (I2), because the submitter
//! holds its lock.

use std::fs::File;
use std::io::{Read as _, Seek, copy};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::new_marker::put_marker;
use super::status::pending_status;
use super::store::{EnvironmentFile, TaskDir};
use crate::clock::BootId;
use crate::spool::disk::{Dir, Flock, IoError, IoResult, LockLevel, Making};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{
    Event, FORMAT_VERSION, Happened, Origin, Request, RequestError, TaskId, escape_path,
    session_of, to_pretty,
};

/// A task to create.
#[derive(Debug)]
pub struct Submission {
    /// Its id, from [`Spool::new_id`].
    pub id: TaskId,
    /// What it asks for.
    pub request: Request,
    /// Variables for its process, kept in a file of mode 0600 until the task ends.
    pub environment: Map<String, Value>,
    /// A file that is copied into the task's folder as `attachment` and kept until the task ends.
    pub attachment: Option<File>,
    /// The submitter, if it came through the drop box of a group spool.
    pub origin: Option<Origin>,
}

/// Why no task was accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Less free space than the settings keep free.
    #[error(
        "not accepted: the file system of {} has {bytes} bytes and {inodes} inodes free; the settings min_free_bytes and min_free_inodes keep {min_bytes} bytes and {min_inodes} inodes free: free some space or lower these settings",
        escape_path(path)
    )]
    NoRoom {
        /// The spool.
        path: PathBuf,
        /// Free bytes.
        bytes: u64,
        /// Free inodes.
        inodes: u64,
        /// The setting `min_free_bytes`.
        min_bytes: u64,
        /// The setting `min_free_inodes`.
        min_inodes: u64,
    },
    /// The request breaks a rule.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The variables of `--env` are too large.
    #[error(
        "not accepted: the variables of --env are {bytes} bytes as JSON; the limit is {MAX_ENVIRONMENT_BYTES} bytes: put large values into a file and pass its path"
    )]
    Environment {
        /// Their size as JSON.
        bytes: usize,
    },
    /// Each time a drop was renamed to its final name, its id was already too old.
    #[error(
        "not accepted: each time the file was put into the drop box, its id was too old (this process was stopped for minutes, the disk is very slow, or the clock jumped): submit it again"
    )]
    Late,
    /// A system call failed; nothing was accepted.
    #[error("not accepted: {0}")]
    Io(#[from] IoError),
}

/// From this number of tasks on, one sync of the whole file system is faster than a sync of each file.
const MANY: usize = 16;

/// The largest `env.json`, in bytes. Readers accept more; the kernel accepts about this much for one process.
const MAX_ENVIRONMENT_BYTES: usize = 1 << 20;
/// The number of bytes of an attachment that are written before the free space is checked again.
const PIECE: u64 = 1 << 20;

/// When the files of tasks are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    /// Before the rename, file by file. With `durability = process` nothing is synced.
    Before,
    /// Before the first rename, by one sync of the file system.
    Together,
    /// After the rename, so that one commit of the journal serves all of them. Until then each task has a
    /// marker (docs/design/0019).
    After,
}

/// A task that is built or published but not yet accepted. Its lock is held.
struct Unaccepted {
    task: TaskDir,
    /// The name of its marker, if it has one.
    marker: Option<String>,
    _lock: Flock,
}

/// The event for an accepted submission.
fn accepted(submission: &Submission) -> Event {
    let (id, request) = (submission.id, &submission.request);
    let made = session_of(id);
    let session = request.session_id.as_ref().unwrap_or(&made);
    Event::of(Happened::Accepted, id, Some(&request.recipe), Some(session))
}

impl Spool {
    /// Publishes tasks. When this returns, they are accepted and as durable as the setting `durability` says.
    /// Either all are accepted or none; only a crash can leave a part of them.
    ///
    /// # Errors
    /// There is too little free space, a request breaks a rule, or a write fails. Then no task is accepted.
    pub fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<TaskDir>, SubmitError> {
        let events: Vec<Event> = submissions.iter().map(accepted).collect();
        let tasks = self.accept(submissions)?;
        for event in events {
            self.emit(event);
        }
        Ok(tasks)
    }

    /// Publishes tasks as [`Spool::submit`] does, but emits no event: the caller emits another one.
    pub(in crate::spool) fn accept(
        &self,
        submissions: Vec<Submission>,
    ) -> Result<Vec<TaskDir>, SubmitError> {
        let attached = submissions.iter().filter_map(|it| it.attachment.as_ref());
        self.check_room_for(attached.filter_map(size).sum())?;
        let tasks = self.folder(name::TASKS)?;
        let staging = self.folder(name::STAGING)?;
        let syncs = choose_syncs(&submissions, &staging)?;
        let staged = self.stage_all(&staging, submissions, syncs)?;
        let published = self.publish_all(&staging, &tasks, staged)?;
        if let Err(error) = make_durable(&tasks, &published) {
            self.take_back(published);
            return Err(error.into());
        }
        for one in &published {
            if let Some(marker) = &one.marker {
                // A marker that stays costs the next holder of the lock the same syncs again.
                let _ = one.task.dir.unlink(marker);
            }
        }
        Ok(published.into_iter().map(|one| one.task).collect())
    }

    /// Builds all tasks in `staging/`, or none.
    fn stage_all(
        &self,
        staging: &Dir,
        submissions: Vec<Submission>,
        syncs: Syncs,
    ) -> Result<Vec<Unaccepted>, SubmitError> {
        let mut staged = Vec::with_capacity(submissions.len());
        for submission in submissions {
            match self.stage(staging, submission, syncs) {
                Ok(one) => staged.push(one),
                Err(error) => {
                    self.clear_away(staging, staged);
                    return Err(error);
                }
            }
        }
        if syncs == Syncs::Together
            && let Err(error) = staging.sync_whole()
        {
            self.clear_away(staging, staged);
            return Err(error.into());
        }
        Ok(staged)
    }

    /// Renames all tasks to `tasks/`, or none.
    fn publish_all(
        &self,
        staging: &Dir,
        tasks: &Dir,
        staged: Vec<Unaccepted>,
    ) -> Result<Vec<Unaccepted>, SubmitError> {
        let mut published = Vec::with_capacity(staged.len());
        let mut staged = staged.into_iter();
        while let Some(one) = staged.next() {
            match self.publish(staging, tasks, one) {
                Ok(one) => published.push(one),
                Err(error) => {
                    self.clear_away(staging, staged);
                    self.take_back(published);
                    return Err(error.into());
                }
            }
        }
        Ok(published)
    }

    /// Fails if there is less free space than the settings keep free.
    pub fn check_room(&self) -> Result<(), SubmitError> {
        self.check_room_for(0)
    }

    /// Checks the free space, with `attached` bytes added that are going to be written.
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

    /// Builds a task's folder in `staging/` and adds its index entries. Removes all of it on an error.
    fn stage(
        &self,
        staging: &Dir,
        submission: Submission,
        syncs: Syncs,
    ) -> Result<Unaccepted, SubmitError> {
        let id = submission.id;
        // A folder that exists belongs to another process and is left alone.
        let dir = staging.make_dir(id.to_string())?;
        match self.build(&dir, submission, syncs) {
            Ok((lock, marker)) => Ok(Unaccepted {
                task: TaskDir::of(id, dir),
                marker,
                _lock: lock,
            }),
            Err(error) => {
                self.clear_one_away(staging, id, &dir);
                Err(error)
            }
        }
    }

    fn publish(&self, staging: &Dir, tasks: &Dir, staged: Unaccepted) -> IoResult<Unaccepted> {
        let Unaccepted {
            task,
            marker,
            _lock,
        } = staged;
        let TaskDir { id, dir, .. } = task;
        let folder = id.to_string();
        if let Err(error) = staging.rename_new(&folder, tasks, &folder) {
            self.clear_one_away(staging, id, &dir);
            return Err(error);
        }
        // Only the path changes. Opening the folder again could fail, and the task is already published.
        let dir = dir.moved_to(tasks.path_of(&folder));
        Ok(Unaccepted {
            task: TaskDir::of(id, dir),
            marker,
            _lock,
        })
    }

    /// Removes folders that were built and not published.
    fn clear_away(&self, staging: &Dir, staged: impl IntoIterator<Item = Unaccepted>) {
        for one in staged {
            self.clear_one_away(staging, one.task.id, &one.task.dir);
        }
    }

    /// Removes the folder that this call built, but not another folder that has its name now. What cannot be
    /// removed is left to the sweeper.
    fn clear_one_away(&self, staging: &Dir, id: TaskId, dir: &Dir) {
        let _ = staging
            .remove_in_place(id.to_string(), dir, &[], staging, &mut || Ok(()))
            .whole();
        // Removes the index entry too, unless there is a task of this id.
        let _ = self.check_open_entry(id);
    }

    /// Writes all files of a task into its folder and takes its lock. Also returns the name of its marker.
    fn build(
        &self,
        folder: &Dir,
        submission: Submission,
        syncs: Syncs,
    ) -> Result<(Flock, Option<String>), SubmitError> {
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
        // The stored request must be readable: added defaults may have made it too large.
        Request::parse(&bytes)?;
        let variables = environment_file(environment)?;
        let origin = origin.map(|origin| to_pretty(&origin));

        let making = folder.making();
        let sync = syncs == Syncs::Before && making.sync;
        let dir = folder.open_dir(".")?.with_making(Making { sync, ..making });
        let lock = create_held_lock(&dir)?;
        dir.make_dir(name::ATTEMPTS)?;
        dir.write_new(name::REQUEST, &bytes)?;
        if let Some(origin) = &origin {
            dir.write_new(name::ORIGIN, origin)?;
        }
        // No process reads this folder yet, so the file needs no temporary name.
        dir.create_unsynced(name::STATUS, &pending_status(id, &request).to_bytes())?;
        if let Some(variables) = &variables {
            dir.write_new(name::ENVIRONMENT, variables)?;
        }
        if let Some(attachment) = attachment {
            self.attach(&dir, attachment)?;
        }
        let files = [Some(&bytes), variables.as_ref(), origin.as_ref()];
        let marker = match syncs {
            Syncs::After => Some(put_marker(&dir, id, files)?),
            Syncs::Before | Syncs::Together => None,
        };
        dir.sync()?;
        // Index entries are added before the task is visible, so that no open task lacks one.
        self.add_entries(id, &dir, given_session.as_ref())?;
        Ok((lock, marker))
    }

    /// Copies the attachment into the task's folder. Only the owner can read it, also in a group spool. The
    /// size of a pipe's content is not known before, so the free space is checked after each piece.
    fn attach(&self, dir: &Dir, mut from: File) -> Result<(), SubmitError> {
        let failed = |source| IoError::new("write", dir.path_of(name::ATTACHMENT), source);
        let mut to = dir.create_lock(name::ATTACHMENT)?;
        // Starts at the beginning of the file. A pipe cannot be rewound and gives what is left in it.
        let _ = from.rewind();
        while copy(&mut (&from).take(PIECE), &mut to).map_err(failed)? > 0 {
            self.check_room()?;
        }
        dir.sync_file(&to, name::ATTACHMENT)?;
        Ok(())
    }

    /// Removes tasks that were published but not accepted. Their locks are still held.
    fn take_back(&self, published: Vec<Unaccepted>) {
        for one in published {
            // If this fails as well, the task runs although it was not accepted, as after a kill (I2).
            let _ = self.discard(&one.task);
        }
    }
}

/// Chooses when the files of these tasks are made durable.
fn choose_syncs(submissions: &[Submission], staging: &Dir) -> IoResult<Syncs> {
    // From this number on one sync for all is faster, if the file system supports it.
    if submissions.len() >= MANY {
        return Ok(match staging.has_whole_sync()? {
            true => Syncs::Together,
            false => Syncs::Before,
        });
    }
    // After a power cut an attachment of any size would have to be read again before its task may run.
    let has_attachment = submissions.iter().any(|it| it.attachment.is_some());
    // A marker of an unknown boot would say nothing.
    let is_boot_known = !BootId::current().kernel().is_empty();
    // Elsewhere (btrfs) a sync of the request can make it durable without the marker and the other files.
    let is_ordered = || staging.keeps_renames_of_synced_files();
    Ok(
        match staging.making().sync && is_boot_known && !has_attachment && is_ordered()? {
            true => Syncs::After,
            false => Syncs::Before,
        },
    )
}

/// Makes published tasks durable, and with the sync of `tasks/` accepts all of them.
fn make_durable(tasks: &Dir, published: &[Unaccepted]) -> IoResult<()> {
    for one in published.iter().filter(|one| one.marker.is_some()) {
        one.task.sync_files()?;
    }
    tasks.sync()
}

/// Creates the lock file. It must be held when it gets its name: a free lock in `staging/` means that the
/// submitter was killed.
fn create_held_lock(dir: &Dir) -> IoResult<Flock> {
    let between = format!(".{}.new", name::LOCK);
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
    dir.rename_new(&between, dir, name::LOCK)?;
    Ok(lock)
}

fn size(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// The bytes of `env.json`; `None` if there are no variables.
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

    /// In a group spool a user may submit an id that they saw in `staging/` or `open/`.
    #[test]
    fn a_failed_submission_keeps_the_folder_of_another_with_the_same_id() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::init(&place.path().join("spool"), None, Overrides::default()).unwrap();
        let there = |path: &str| spool.path().join(path).exists();
        // A published task.
        let id = spool.new_id();
        spool.submit(vec![submission(id, "first")]).unwrap();
        spool.submit(vec![submission(id, "second")]).unwrap_err();
        let task = spool.task(id).unwrap().unwrap();
        let input = task.request().unwrap().input.unwrap();
        assert_eq!(input.text(), "\"first\"");
        assert!(there(&format!("open/{id}")) && !there(&format!("staging/{id}")));
        // A task that is being built.
        let id = spool.new_id();
        let staging = spool.folder(name::STAGING).unwrap();
        let making = spool
            .stage(&staging, submission(id, "first"), Syncs::Together)
            .unwrap();
        spool.submit(vec![submission(id, "second")]).unwrap_err();
        assert!(there(&format!("open/{id}")) && there(&format!("staging/{id}/request.json")));
        spool.clear_away(&staging, [making]);
        assert!(!there(&format!("open/{id}")) && !there(&format!("staging/{id}")));
    }
}
