//! Finished tasks, looked at and removed one after another.
//!
//! Not what is due (`sweeper/plan.rs`), and not the rest of what a sweep finds (the other files of this room). Every
//! folder is opened once and every file of a task is read at most once, because with 100,000 tasks
//! that is what a sweep costs beside the removals. Invariant I8: only a terminal task whose lock we
//! hold can disappear, and it does so in one rename.

use super::removal::{MovedOut, move_out};
use crate::spool::disk::{Dir, IoError, IoResult, Removed, mounted};
use crate::spool::inbox::ClaimPlace;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{Claim, ReadError, TaskDir, TaskLock};
use crate::task::{Name, ResultFile, Status, TaskId, Timestamp, task_of_session};

/// A result of at most this size is read at once; before a larger one the status is asked whether
/// the task may be due at all.
const READ_AT_ONCE: usize = 16 << 10;

/// A finished task, as a sweep sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedTask {
    /// Which.
    pub id: TaskId,
    /// How it ended.
    pub status: Status,
    /// When.
    pub completed_at: Timestamp,
    /// Its bytes on the disk; 0 when nobody asked.
    pub bytes: u64,
}

/// A finished task that may have to go, with what was read of it so far.
#[derive(Debug)]
pub struct Candidate {
    /// How and when it ended, as far as is needed to plan.
    pub task: FinishedTask,
    dir: TaskDir,
    /// A result never changes: what it said before the lock was taken, it says under it.
    result: Option<ResultFile>,
}

impl Candidate {
    /// The truth of how it ended; `None` where that cannot be understood.
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
    /// Bytes of disk it took.
    pub freed_bytes: u64,
    /// What it ran, as far as could be read.
    pub recipe: Option<Name>,
    /// Its session, as far as could be read.
    pub session: Option<Name>,
    /// What of its folder had to stay in the trash, and why.
    pub left: Option<IoError>,
}

/// What came of removing a task.
#[derive(Debug)]
pub enum Cleared {
    /// It is gone.
    Removed(Removal),
    /// A living process holds it.
    Held,
    /// It is not to go: not finished, or its result cannot be read or says that it is not due.
    Kept,
    /// Somebody else removed it.
    Gone,
}

/// The folders of a spool from which finished tasks are removed.
pub struct Clearing<'a> {
    spool: &'a Spool,
    tasks: Dir,
    trash: Dir,
    claims: Vec<ClaimPlace>,
}

impl Spool {
    /// Opens what is needed to look at and remove finished tasks.
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
    /// How and when a task ended; with its bytes when asked. `None` for a task that is not finished
    /// or cannot be read: nobody sweeps what nobody understands.
    pub fn look(&self, id: TaskId, with_bytes: bool) -> IoResult<Option<Candidate>> {
        let dir = match self.task(id) {
            Ok(Some(dir)) => dir,
            Ok(None) => return Ok(None),
            // What cannot be opened is left, and keeps nobody from the rest.
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

    /// Removes a task that is in no hint if its result says that it ended in a way and at a moment
    /// that `is_due`, and the names that lead to it. What was enough to plan with is not the truth.
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
        // Kept until the task is in the trash, so that no reader comes in between.
        let Some(guard) = lock.without_readers(self.spool)? else {
            return Ok(Cleared::Held);
        };
        let trash_name = self.move_out(&lock)?;
        // Where no file of readers was there yet, one may have come in between.
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

    /// Removes a task that has a result, readable or not: a person asked.
    pub fn remove(&self, id: TaskId) -> IoResult<Cleared> {
        let Some(task) = self.task(id)? else {
            return Ok(Cleared::Gone);
        };
        let lock = match self.lock_finished(task)? {
            Ok(lock) => lock,
            Err(why_not) => return Ok(why_not),
        };
        // Read before the folder goes; used after it, because where the task may not be removed, its
        // name must go on leading to it.
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

    /// Locks a task that has a result, or says why it stays.
    fn lock_finished(&self, task: TaskDir) -> IoResult<Result<TaskLock, Cleared>> {
        Ok(match task.lock_in(&self.tasks, name::RESULT)? {
            Claim::Locked(lock) if lock.task().has_result()? => Ok(lock),
            Claim::Locked(_) => Err(Cleared::Kept),
            Claim::Busy(_) => Err(Cleared::Held),
            Claim::Gone => Err(Cleared::Gone),
        })
    }

    /// Removes what a removal that was cut off may leave: a folder with nothing in it but perhaps its
    /// lock. Whether it did.
    pub fn remove_empty_folder(&self, id: TaskId) -> IoResult<bool> {
        let Some(task) = self.task(id)? else {
            return Ok(false);
        };
        if !self.spool.is_empty_folder(&task)? {
            return Ok(false);
        }
        let folder = self.tasks.open_dir(id.to_string())?;
        if folder.mount()? != self.tasks.mount()? {
            // What is mounted there only looks like one.
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

    /// Takes a task out of the spool.
    fn move_out(&self, lock: &TaskLock) -> IoResult<MovedOut> {
        let id = lock.task().id;
        // A watcher that died after publishing left the claim on its drop, and that one would be
        // replayed.
        for place in &self.claims {
            place.forget(id, &self.trash)?;
        }
        self.spool.refuse_drop_of(id)?;
        let remember = || {
            let folder = &lock.task().dir;
            self.spool.remember_removed(&self.trash, id, Some(folder))
        };
        let may_move = match remember() {
            // The folder itself keeps the id until there is room.
            Err(error) if error.is_no_space() => false,
            remembered => remembered.map(|()| true)?,
        };
        move_out(&self.tasks, &self.trash, lock.task(), may_move, &mut || {
            remember()?;
            self.spool.remove_entries(id, None)
        })
    }

    /// Removes what is left of a task that lies in the trash.
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

/// The session in whose queue a task may stand: the first task of a made one stands in none.
fn given(id: TaskId, session: Option<&Name>) -> Option<&Name> {
    session.filter(|session| task_of_session(session) != Some(id))
}

/// How and when a task that has a result ended: from the result itself where that is small, else
/// from the status where that one knows.
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
