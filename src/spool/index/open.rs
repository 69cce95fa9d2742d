//! The index of unfinished tasks: `open/` and the queues of sessions.
//!
//! Not the state of a task (`tasks/`): a missing or an extra index entry only costs time. Invariant: an entry
//! is added before its task is visible. It is removed under the task's lock after the result, or when the
//! task is found neither in `staging/` nor in `tasks/`.

use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{TaskDir, ids_in};
use crate::task::{Name, TaskId, task_of_session};

/// The outcome of checking an index entry in `open/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenEntry {
    /// The task exists.
    Task,
    /// Its submitter is still building the task.
    Staged,
    /// There is no such task, and the entry was removed.
    Dropped,
}

impl Spool {
    /// The ids in `open/`, oldest first: tasks that are not known to be finished.
    pub fn open_ids(&self) -> IoResult<Vec<TaskId>> {
        ids_in(&self.folder(name::OPEN)?)
    }

    /// Adds the index entries of a task that is about to be published. `task` is its folder.
    pub(in crate::spool) fn add_entries(
        &self,
        id: TaskId,
        task: &Dir,
        session: Option<&Name>,
    ) -> IoResult<()> {
        self.folder(name::OPEN)?
            .make_entry(id.to_string(), task, name::LOCK)?;
        if let Some(session) = session {
            // Repeated if the session's folder was removed in between, because then the entry is lost.
            while !self.queue_in_session(id, task, session)? {}
        }
        Ok(())
    }

    /// Removes the index entries of a task that is finished or was never published.
    pub(in crate::spool) fn remove_entries(
        &self,
        id: TaskId,
        session: Option<&Name>,
    ) -> IoResult<()> {
        // A task is not in the queue of the session that was created for it.
        if let Some(session) = session
            && task_of_session(session) != Some(id)
            && let Some(folder) = self.folder(name::SESSIONS)?.find_own(session.as_str())?
            && let Some(queue) = folder.find_own_to_write(name::QUEUE)?
        {
            queue.remove_anything(&id.to_string())?;
        }
        // The queue comes first: a process that is woken by the change in `open/` then finds the session
        // free.
        self.folder(name::OPEN)?.unlink(id.to_string())?;
        Ok(())
    }

    /// Whether a process is building this task. A folder in `staging/` with a free lock was left by a
    /// submitter that was killed, and never becomes a task. If the lock cannot be tested, this is `true`.
    pub(in crate::spool) fn is_being_staged(&self, id: TaskId) -> IoResult<bool> {
        let staged = self.folder(name::STAGING)?.find_dir(id.to_string())?;
        Ok(staged.is_some_and(|dir| TaskDir::of(id, dir).is_held().unwrap_or(true)))
    }

    /// Checks an index entry whose task was not found. Removes the entry unless the task is being built.
    pub fn check_open_entry(&self, id: TaskId) -> IoResult<OpenEntry> {
        if self.is_being_staged(id)? {
            return Ok(OpenEntry::Staged);
        }
        // Tasks only move from `staging/` to `tasks/`. If this order of checks finds none, there is none.
        if self.task(id)?.is_some() {
            return Ok(OpenEntry::Task);
        }
        self.folder(name::OPEN)?.unlink(id.to_string())?;
        Ok(OpenEntry::Dropped)
    }
}
