//! The index compared with `tasks/`, once in each boot.
//!
//! Not when (`watcher/`). Invariant: entries are never synced, so until this is done in a boot some may be missing;
//! a task without a result gets its entry back.

use crate::clock::BootId;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, BOOT};
use crate::spool::open::Spool;
use crate::spool::tasks::TaskDir;
use crate::task::TaskId;

impl Spool {
    /// Whether the hints were compared with `tasks/` in this boot. Until then some may be missing:
    /// a power cut may have taken them, because they are never synced.
    pub fn is_reconciled(&self) -> IoResult<bool> {
        let last = self.folder(name::OPEN)?.read(BOOT, 4096)?;
        Ok(last.is_some_and(|last| last == BootId::current().kernel().as_bytes()))
    }

    /// The tasks that may have lost their hint, newest first: all that have none. After a boot each
    /// of them is looked at, and of a hundred thousand that wait for their turn, none has to be.
    pub fn unindexed_ids(&self) -> IoResult<Vec<TaskId>> {
        let open = self.open_ids()?;
        let mut ids = self.task_ids()?;
        ids.retain(|id| open.binary_search(id).is_err());
        Ok(ids)
    }

    /// The task, if it has neither result nor hint.
    fn unindexed_task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
        // Most that have no hint are finished: such a one costs a single call, and what a link would lead to
        // is left alone.
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
        // Finished in between: the hint went after the result came.
        Ok(Some(task).filter(|task| !task.has_result().unwrap_or(false)))
    }

    /// Whether a task has neither result nor hint, so that no watcher that runs will find it.
    pub fn lacks_entry(&self, id: TaskId) -> IoResult<bool> {
        Ok(self.unindexed_task(id)?.is_some())
    }

    /// Gives a task without result its hint back; `true` when it was missing.
    pub fn reconcile_entry(&self, id: TaskId) -> IoResult<bool> {
        let Some(task) = self.unindexed_task(id)? else {
            return Ok(false);
        };
        // Submitters hint only sessions that were given; a hint too many costs nothing.
        let session = task.request().ok().and_then(|request| request.session_id);
        let given = session.filter(|session| crate::task::session_of(id) != *session);
        self.add_entries(id, &task.dir, given.as_ref())?;
        // Finished in between: the finisher did not see this hint, so it is ours to take away.
        if task.has_result()? {
            self.remove_entries(id, given.as_ref())?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Remembers that hints and tasks were compared in this boot.
    pub fn record_reconciled(&self) -> IoResult<()> {
        if self.is_reconciled()? {
            return Ok(());
        }
        let open = self.folder(name::OPEN)?;
        open.replace(BOOT, BootId::current().kernel().as_bytes())
    }
}
