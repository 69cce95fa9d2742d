//! Finished tasks, looked at and removed one after another.
//!
//! Not what is due (`sweeper/plan.rs`), and not the rest of what a sweep finds (`trash.rs`). The
//! folders are opened once, because with 100,000 tasks that is what a look costs. Invariant I8:
//! only a terminal task whose lock we hold can disappear, and it does so in one rename.

use super::claim::{Claim, TaskLock};
use super::durable::{Dir, IoResult};
use super::layout::{Spool, name, random_bits};
use super::store::{ReadError, TaskDir};
use crate::task::{Name, ResultFile, Status, TaskId, Timestamp, task_of_session};

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

/// A task that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Bytes of disk it took.
    pub freed_bytes: u64,
    /// What it ran, as far as could be read.
    pub recipe: Option<Name>,
    /// Its session, as far as could be read.
    pub session: Option<Name>,
}

/// What came of removing a task.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Debug)]
pub struct Clearing<'a> {
    spool: &'a Spool,
    tasks: Dir,
    open: Dir,
    trash: Dir,
}

impl Spool {
    /// Opens what is needed to look at and remove finished tasks.
    pub fn clearing(&self) -> IoResult<Clearing<'_>> {
        Ok(Clearing {
            spool: self,
            tasks: self.folder(name::TASKS)?,
            open: self.folder(name::OPEN)?,
            trash: self.folder(name::TRASH)?,
        })
    }
}

impl Clearing<'_> {
    /// How and when a task ended; with its bytes when asked. `None` for a task that is not finished
    /// or cannot be read: nobody sweeps what nobody understands.
    pub fn look(&self, id: TaskId, with_bytes: bool) -> IoResult<Option<FinishedTask>> {
        let task = match self.task(id) {
            Ok(Some(task)) => task,
            Ok(None) => return Ok(None),
            // What a member shut or put in its place is left, and keeps nobody from the rest.
            Err(error) if error.is_unusable() => return Ok(None),
            Err(error) => return Err(error),
        };
        let ended = end_of(&task);
        Ok(ended.map(|(status, completed_at)| FinishedTask {
            id,
            status,
            completed_at,
            bytes: if with_bytes {
                super::trash::disk_bytes(task.path())
            } else {
                0
            },
        }))
    }

    /// Removes a task if its result, read under its lock, says that it ended in a way and at a
    /// moment that `is_due`. Its status file was enough to plan with, but is not the truth.
    pub fn remove_if(
        &self,
        id: TaskId,
        is_due: impl FnOnce(&ResultFile) -> bool,
    ) -> IoResult<Cleared> {
        // Kept until the task is in the trash, so that no reader comes in between.
        let mut guard = None;
        let mut is_read = false;
        let cleared = self.locked(id, |lock| {
            let is_due = match lock.task().result() {
                Ok(Some(result)) => is_due(&result),
                Ok(None) | Err(ReadError::Damaged { .. } | ReadError::Newer { .. }) => false,
                Err(ReadError::Io(error)) => return Err(error),
            };
            if is_due {
                guard = lock.without_readers()?;
                is_read = guard.is_none();
            }
            Ok(is_due && !is_read)
        })?;
        drop(guard);
        Ok(if is_read { Cleared::Held } else { cleared })
    }

    /// Removes a task that has a result, readable or not: a person asked.
    pub fn remove(&self, id: TaskId) -> IoResult<Cleared> {
        self.locked(id, |lock| lock.task().has_result())
    }

    fn locked(
        &self,
        id: TaskId,
        is_to_go: impl FnOnce(&TaskLock) -> IoResult<bool>,
    ) -> IoResult<Cleared> {
        let Some(task) = self.task(id)? else {
            return Ok(Cleared::Gone);
        };
        match task.lock_in(&self.tasks)? {
            Claim::Locked(lock) if is_to_go(&lock)? => self.take_away(&lock).map(Cleared::Removed),
            Claim::Locked(_) => Ok(Cleared::Kept),
            Claim::Busy(_) => Ok(Cleared::Held),
            Claim::Gone => Ok(Cleared::Gone),
        }
    }

    fn task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        let dir = self.tasks.find_dir(id.to_string())?;
        Ok(dir.map(|dir| TaskDir { id, dir }))
    }

    fn take_away(&self, lock: &TaskLock) -> IoResult<Removal> {
        let task = lock.task();
        let id = task.id;
        // A watcher that died after publishing left the claim on its drop, and that one would be
        // replayed.
        self.spool.forget_drop(id)?;
        let grave = bury(&self.tasks, &self.trash, id)?;
        // Only now: where the task may not be removed, its name must go on leading to it.
        let status = task.status_file();
        let (recipe, task_name, session) = status.map_or((None, None, None), |status| {
            (status.recipe, status.name, status.session_id)
        });
        if let Some(task_name) = &task_name {
            self.spool.unlink_name(task_name, id)?;
        }
        // The first task of a made session stands in no queue.
        let given = session
            .as_ref()
            .filter(|session| task_of_session(session) != Some(id));
        if given.is_some() {
            self.spool.remove_hints(id, given)?;
        } else {
            self.open.unlink(id.to_string())?;
        }
        Ok(Removal {
            freed_bytes: self.trash.remove_tree(&grave)?,
            recipe,
            session,
        })
    }
}

/// The one step: from here on the task is gone, and what follows may be done by anybody. The name
/// under which its folder lies in the trash.
pub(super) fn bury(tasks: &Dir, trash: &Dir, id: TaskId) -> IoResult<String> {
    let grave = format!("{id}.{:08x}", random_bits() as u32);
    tasks.rename_new(id.to_string(), trash, &grave)?;
    Ok(grave)
}

/// How and when a task ended, from the cheaper file where that one knows.
fn end_of(task: &TaskDir) -> Option<(Status, Timestamp)> {
    if let Some(status) = task.status_file()
        && status.status.is_terminal()
        && let Some(at) = status.completed_at
    {
        return Some((status.status, at));
    }
    match task.result() {
        Ok(Some(result)) => Some((result.status, result.completed_at)),
        Ok(None) | Err(ReadError::Damaged { .. } | ReadError::Newer { .. } | ReadError::Io(_)) => {
            None
        }
    }
}
