//! The comparison of the index with `tasks/`, once in each boot.
//!
//! Not when it is done (`watcher/`), and not what a marker means (`tasks/new_marker.rs`). Invariants: index entries are never synced, so some may be missing until
//! this is done in a boot; a task without a result gets its entry again.

use crate::clock::BootId;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, BOOT};
use crate::spool::open::Spool;
use crate::spool::tasks::{Claim, TaskDir};
use crate::task::TaskId;

impl Spool {
    /// Whether the index was compared with `tasks/` in this boot. Until then, entries may be missing after a
    /// power cut, because they are never synced.
    pub fn is_reconciled(&self) -> IoResult<bool> {
        let last = self.folder(name::OPEN)?.read(BOOT, 4096)?;
        Ok(last.is_some_and(|last| last == BootId::current().kernel().as_bytes()))
    }

    /// The tasks without an index entry, newest first. After a boot each of them is checked; waiting tasks
    /// have an entry and need no check, even if there are 100,000 of them.
    pub fn unindexed_ids(&self) -> IoResult<Vec<TaskId>> {
        let open = self.open_ids()?;
        let mut ids = self.task_ids()?;
        ids.retain(|id| open.binary_search(id).is_err());
        Ok(ids)
    }

    /// The task, if it has neither a result nor an index entry.
    fn unindexed_task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        // Most tasks without an entry are finished. This check costs them one system call and follows no
        // link.
        let result = format!("{}/{id}/{}", name::TASKS, name::RESULT);
        if self.root_dir().has(result).unwrap_or(false) {
            return Ok(None);
        }
        let Some(task) = self.task(id)? else {
            return Ok(None);
        };
        if task.has_result()? || self.folder(name::OPEN)?.has(id.to_string())? {
            return Ok(None);
        }
        // Checked again, because it may have finished: the entry is removed after the result is written.
        Ok(Some(task).filter(|task| !task.has_result().unwrap_or(false)))
    }

    /// Whether a task has neither a result nor an index entry, so that no running watcher will find it.
    pub fn lacks_entry(&self, id: TaskId) -> IoResult<bool> {
        Ok(self.unindexed_task(id)?.is_some())
    }

    /// Adds the index entry of a task that has neither a result nor an entry; `true` if it was added.
    pub fn reconcile_entry(&self, id: TaskId) -> IoResult<bool> {
        let Some(mut task) = self.unindexed_task(id)? else {
            return Ok(false);
        };
        if task.has_marker()? {
            task = match task.lock(self)? {
                Claim::Locked(lock) => lock.task,
                Claim::Busy(task) => task,
                Claim::Gone => return Ok(false),
            };
        }
        // Only a session that the submitter chose has a queue entry. An extra entry does no harm.
        let session = task.request().ok().and_then(|request| request.session_id);
        let given = session.filter(|session| crate::task::session_of(id) != *session);
        self.add_entries(id, &task.dir, given.as_ref())?;
        // If the task has finished, its runner may not have seen the new entry, so it is removed here.
        if task.has_result()? {
            self.remove_entries(id, given.as_ref())?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Records that the index was compared with `tasks/` in this boot.
    pub fn record_reconciled(&self) -> IoResult<()> {
        if self.is_reconciled()? {
            return Ok(());
        }
        let open = self.folder(name::OPEN)?;
        open.replace(BOOT, BootId::current().kernel().as_bytes())
    }
}
