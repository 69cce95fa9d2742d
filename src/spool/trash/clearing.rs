//! Finished tasks, read and removed one after another.
//!
//! Not which tasks are due (`sweeper/plan.rs`), and not what else a sweep removes (the other files in this
//! folder). Every folder is opened once and every file of a task is read at most once, because this is the
//! main cost of a sweep over 100,000 tasks. Invariant I8: only a terminal task whose lock we hold is removed,
//! in one rename.

use super::removal::{MovedOut, move_out};
use crate::spool::disk::{Dir, IoError, IoResult, Removed, mounted};
use crate::spool::inbox::ClaimPlace;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{Claim, ReadError, TaskDir, TaskLock};
use crate::task::{Name, ResultFile, Status, TaskId, Timestamp, task_of_session};

/// A result of at most this many bytes is read at once. For a larger one, the status is read first to see
/// whether the task may be due.
const READ_AT_ONCE: usize = 16 << 10;

/// A finished task, as a sweep sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTask {
    /// The task's id.
    pub id: TaskId,
    /// Its terminal status.
    pub status: Status,
    /// When it ended.
    pub completed_at: Timestamp,
    /// Its bytes on the disk; 0 if they were not asked for.
    pub bytes: u64,
}

/// A finished task that may be removed, with what was read of it so far.
#[derive(Debug)]
pub struct Candidate {
    /// How and when it ended, as far as a plan needs it.
    pub task: FinishedTask,
    dir: TaskDir,
    /// Read before the task is locked, which is safe because a result never changes.
    result: Option<ResultFile>,
}

impl Candidate {
    /// The result, which decides; `None` if it cannot be read.
    pub fn result(&mut self) -> IoResult<Option<&ResultFile>> {
        if self.result.is_none() {
            self.result = match self.dir.result_as_it_stands() {
                Ok(result) => result,
                Err(ReadError::Damaged { .. } | ReadError::Newer { .. }) => None,
                Err(ReadError::Io(error)) => return Err(error),
            };
        }
        Ok(self.result.as_ref())
    }
}

/// A task that was removed.
#[derive(Debug)]
pub struct Removal {
    /// Bytes freed on the disk.
    pub freed_bytes: u64,
    /// Its recipe, if known.
    pub recipe: Option<Name>,
    /// Its session, if known.
    pub session: Option<Name>,
    /// Why a part of its folder is still in the trash, if it is.
    pub left: Option<IoError>,
}

/// The outcome of removing a task.
#[derive(Debug)]
pub enum Cleared {
    /// The task was removed.
    Removed(Removal),
    /// A process holds the task.
    Held,
    /// The task stays: it is not finished, its result cannot be read, or it is not due.
    Kept,
    /// Another process removed the task.
    Gone,
}

/// The open folders that are needed to remove finished tasks.
pub struct Clearing<'a> {
    spool: &'a Spool,
    tasks: Dir,
    trash: Dir,
    claims: Vec<ClaimPlace>,
}

impl Spool {
    /// Opens the folders that are needed to read and remove finished tasks.
    pub fn clearing(&self) -> IoResult<Clearing<'_>> {
        Ok(Clearing {
            spool: self,
            tasks: self.own_folder(name::TASKS)?,
            trash: self.folder(name::TRASH)?,
            claims: self.claim_places()?,
        })
    }
}

impl Clearing<'_> {
    /// Reads how and when a task ended, and its bytes if `with_bytes`. `None` for a task that is not finished
    /// or cannot be read: such a task is never swept.
    pub fn look(&self, id: TaskId, with_bytes: bool) -> IoResult<Option<Candidate>> {
        let dir = match self.task(id) {
            Ok(Some(dir)) => dir,
            Ok(None) => return Ok(None),
            // A folder that cannot be opened is left, and the sweep continues.
            Err(error) if error.is_unusable() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((status, completed_at, result)) = end_of(&dir) else {
            return Ok(None);
        };
        let bytes = if with_bytes { dir.dir.disk_bytes() } else { 0 };
        let task = FinishedTask {
            id,
            status,
            completed_at,
            bytes,
        };
        Ok(Some(Candidate { task, dir, result }))
    }

    /// Removes a finished task and the names that point at it if its result `is_due`. The result is read
    /// again here, because a plan may have used the status file. The task has no entry in `open/`.
    pub fn remove_if(
        &self,
        mut candidate: Candidate,
        names: &[Name],
        is_due: impl FnOnce(&ResultFile) -> bool,
    ) -> IoResult<Cleared> {
        if !candidate.result()?.is_some_and(is_due) {
            return Ok(Cleared::Kept);
        }
        let Candidate { dir, result, .. } = candidate;
        let id = dir.id;
        let lock = match self.lock_finished(dir)? {
            Ok(lock) => lock,
            Err(why_not) => return Ok(why_not),
        };
        // Held until the task is in the trash, so that no reader starts before that.
        let Some(guard) = lock.without_readers(self.spool)? else {
            return Ok(Cleared::Held);
        };
        let trash_name = self.move_out(&lock)?;
        // If there was no `readers` file, a reader may have created and locked it since.
        if !guard.is_lock()
            && let MovedOut::InTrash(trash_name) = &trash_name
            && lock.without_readers(self.spool)?.is_none()
        {
            self.trash
                .rename_new(trash_name, &self.tasks, id.to_string())?;
            return Ok(Cleared::Held);
        }
        drop(guard);
        for task_name in names {
            self.spool.unlink_name(task_name, id)?;
        }
        let (recipe, session) = result.map_or((None, None), |it| (it.recipe, it.session_id));
        if let Some(given) = given(id, session.as_ref()) {
            self.spool.remove_entries(id, Some(given))?;
        }
        Ok(self.empty(&lock, trash_name, recipe, session))
    }

    /// Removes a task that has a result, readable or not, because a person asked for it.
    pub fn remove(&self, id: TaskId) -> IoResult<Cleared> {
        let Some(task) = self.task(id)? else {
            return Ok(Cleared::Gone);
        };
        let lock = match self.lock_finished(task)? {
            Ok(lock) => lock,
            Err(why_not) => return Ok(why_not),
        };
        // Read before the folder is moved. The name is removed after that: if the move fails, the name must
        // still point at the task.
        let status = lock.task().status_file();
        let trash_name = self.move_out(&lock)?;
        let (recipe, task_name, session) = status.map_or((None, None, None), |status| {
            (status.recipe, status.name, status.session_id)
        });
        if let Some(task_name) = &task_name {
            self.spool.unlink_name(task_name, id)?;
        }
        self.spool.remove_entries(id, given(id, session.as_ref()))?;
        Ok(self.empty(&lock, trash_name, recipe, session))
    }

    /// Locks a task that has a result, or returns why it stays.
    fn lock_finished(&self, task: TaskDir) -> IoResult<Result<TaskLock, Cleared>> {
        Ok(match task.lock_in(&self.tasks, name::RESULT)? {
            Claim::Locked(lock) if lock.task().has_result()? => Ok(lock),
            Claim::Locked(_) => Err(Cleared::Kept),
            Claim::Busy(_) => Err(Cleared::Held),
            Claim::Gone => Err(Cleared::Gone),
        })
    }

    /// Removes an empty task folder, which an interrupted removal may leave: it has at most a lock file.
    /// `true` if it was removed.
    pub fn remove_empty_folder(&self, id: TaskId) -> IoResult<bool> {
        let Some(task) = self.task(id)? else {
            return Ok(false);
        };
        if !self.spool.is_empty_folder(&task)? {
            return Ok(false);
        }
        let folder = self.tasks.open_dir(id.to_string())?;
        if folder.mount()? != self.tasks.mount()? {
            // A mount is not an empty task folder, even if it looks like one.
            return Err(mounted("remove", self.tasks.path_of(id.to_string())));
        }
        folder.unlink(name::LOCK)?;
        self.tasks.remove_empty_dir(id.to_string())
    }

    fn task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        let owner = self.spool.only_owner();
        let dir = self.tasks.find_own_of(id.to_string(), owner)?;
        Ok(dir.map(|dir| TaskDir { id, dir, owner }))
    }

    /// Moves a task to the trash, or removes it in place.
    fn move_out(&self, lock: &TaskLock) -> IoResult<MovedOut> {
        let id = lock.task().id;
        // A watcher that was killed after publishing left the claim of the drop. It would be replayed and
        // create the task again.
        for place in &self.claims {
            place.forget(id, &self.trash)?;
        }
        self.spool.refuse_drop_of(id)?;
        let remember = || {
            let folder = &lock.task().dir;
            self.spool.remember_removed(&self.trash, id, Some(folder))
        };
        let may_move = match remember() {
            // The task's folder blocks its id until there is space again.
            Err(error) if error.is_no_space() => false,
            remembered => remembered.map(|()| true)?,
        };
        move_out(&self.tasks, &self.trash, lock.task(), may_move, &mut || {
            remember()?;
            self.spool.remove_entries(id, None)
        })
    }

    /// Removes the folder of a task that is in the trash.
    fn empty(
        &self,
        lock: &TaskLock,
        trash_name: MovedOut,
        recipe: Option<Name>,
        session: Option<Name>,
    ) -> Cleared {
        let Removed { bytes, left } = trash_name.empty(&self.trash, lock.task());
        Cleared::Removed(Removal {
            freed_bytes: bytes,
            recipe,
            session,
            left,
        })
    }
}

/// The session whose queue may have an entry of this task. The first task of a session is not in its queue.
fn given(id: TaskId, session: Option<&Name>) -> Option<&Name> {
    session.filter(|session| task_of_session(session) != Some(id))
}

/// How and when a task with a result ended: from the result if it is small, else from the status file if that
/// is terminal.
fn end_of(task: &TaskDir) -> Option<(Status, Timestamp, Option<ResultFile>)> {
    let bytes = task.dir.read(name::RESULT, READ_AT_ONCE).ok()??;
    let is_whole = bytes.len() <= READ_AT_ONCE;
    if !is_whole
        && let Some(status) = task.status_file()
        && status.status.is_terminal()
        && let Some(at) = status.completed_at
    {
        return Some((status.status, at, None));
    }
    let result = if is_whole {
        task.parse_result(&bytes).ok()?
    } else {
        task.result_as_it_stands().ok()??
    };
    Some((result.status, result.completed_at, Some(result)))
}
