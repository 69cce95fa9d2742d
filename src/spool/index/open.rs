//! The index of tasks that are not over: `open/` and the queues of sessions.
//!
//! It says where to look, never what is true: a missing or an extra entry costs time and nothing else.
//! Invariant: an entry is made before its task can be seen, and removed under the task's lock after its result, or
//! once the task was seen neither in `staging/` nor in `tasks/`.

use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{TaskDir, ids_in};
use crate::task::{Name, TaskId, task_of_session};

/// What became of an open hint that was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenEntry {
    /// The task is there.
    Task,
    /// Its submitter is still at it.
    Staged,
    /// Neither: the hint was removed.
    Dropped,
}

impl Spool {
    /// Ids that are not terminal as far as the hints know, oldest first.
    pub fn open_ids(&self) -> IoResult<Vec<TaskId>> {
        ids_in(&self.folder(name::OPEN)?)
    }

    /// Hints that a task is about to be, whose folder is `task` by now.
    pub(in crate::spool) fn add_entries(
        &self,
        id: TaskId,
        task: &Dir,
        session: Option<&Name>,
    ) -> IoResult<()> {
        self.folder(name::OPEN)?
            .make_entry(id.to_string(), task, name::LOCK)?;
        if let Some(session) = session {
            // Once more when the folder was taken away in the middle: a hint in it counts nowhere.
            while !self.queue_in_session(id, task, session)? {}
        }
        Ok(())
    }

    /// Removes the hints of a task that is finished or never came to be.
    pub(in crate::spool) fn remove_entries(
        &self,
        id: TaskId,
        session: Option<&Name>,
    ) -> IoResult<()> {
        // A task stands in no queue of the session that was made for it.
        if let Some(session) = session
            && task_of_session(session) != Some(id)
            && let Some(folder) = self.folder(name::SESSIONS)?.find_own(session.as_str())?
            && let Some(queue) = folder.find_own_to_write(name::QUEUE)?
        {
            queue.remove_anything(&id.to_string())?;
        }
        // The session's queue first: whoever is woken by open/ finds the session free.
        self.folder(name::OPEN)?.unlink(id.to_string())?;
        Ok(())
    }

    /// Whether somebody is about to publish a task. What lies in `staging/` with a free lock is what a dead
    /// submitter left, and never becomes a task. Where that cannot be seen, somebody may be at it.
    pub(in crate::spool) fn is_being_staged(&self, id: TaskId) -> IoResult<bool> {
        let staged = self.folder(name::STAGING)?.find_dir(id.to_string())?;
        Ok(staged.is_some_and(|dir| TaskDir::of(id, dir).is_held().unwrap_or(true)))
    }

    /// Looks into a hint whose task was not found: removes it when nobody is about to publish it.
    pub fn check_open_entry(&self, id: TaskId) -> IoResult<OpenEntry> {
        if self.is_being_staged(id)? {
            return Ok(OpenEntry::Staged);
        }
        // A task moves from staging/ to tasks/ only: seen in neither, in this order, it is nowhere.
        if self.task(id)?.is_some() {
            return Ok(OpenEntry::Task);
        }
        self.folder(name::OPEN)?.unlink(id.to_string())?;
        Ok(OpenEntry::Dropped)
    }
}
