//! Hints: `open/`, the queues of sessions, and the links of names.
//!
//! They say where to look, never what is true: a missing or an extra one costs time and nothing
//! else. Invariant: a hint is made before its task can be seen and removed under the task's lock
//! after its result, or once the task was seen neither in `staging/` nor in `tasks/`.

use std::ffi::OsString;
use std::time::Duration;

use super::disk::{Dir, Flock, IoResult, absent_is_none};
use super::layout::{Spool, name};
use super::store::{TaskDir, ids_in};
use crate::clock::BootId;
use crate::task::{Name, TaskId, task_of_session};

/// How long to wait for another process that moves a name's link. It does two system calls.
const LINK_PATIENCE: Duration = Duration::from_secs(1);
const BOOT: &str = ".boot";
/// A link that is being made: `.<id>.link`.
const LINK_SUFFIX: &str = ".link";

/// What became of an open hint that was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHint {
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
    pub(super) fn add_hints(&self, id: TaskId, task: &Dir, session: Option<&Name>) -> IoResult<()> {
        self.folder(name::OPEN)?
            .mark(id.to_string(), task, name::LOCK)?;
        if let Some(session) = session {
            // Once more when the folder was taken away in the middle: a hint in it counts nowhere.
            while !self.queue_in_session(id, task, session)? {}
        }
        Ok(())
    }

    /// Puts a task into its session's queue; `false` when somebody took the unused folder away
    /// before it was used again.
    fn queue_in_session(&self, id: TaskId, task: &Dir, session: &Name) -> IoResult<bool> {
        let sessions = self.folder(name::SESSIONS)?;
        let Some(folder) = absent_is_none(sessions.ensure_own(session.as_str()))? else {
            return Ok(false);
        };
        let queue = absent_is_none(folder.ensure_own(name::QUEUE))?;
        let Some(queue) = queue else {
            return Ok(false);
        };
        let marked = queue.mark(id.to_string(), task, name::LOCK);
        if absent_is_none(marked)?.is_none()
            || absent_is_none(folder.own_lock_file(name::LOCK))?.is_none()
        {
            return Ok(false);
        }
        let (ours, there) = (folder.own_stat()?, sessions.stat(session.as_str())?);
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)))
    }

    /// Removes the hints of a task that is finished or never came to be.
    pub(super) fn remove_hints(&self, id: TaskId, session: Option<&Name>) -> IoResult<()> {
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

    /// Looks into a hint whose task was not found: removes it when nobody is about to publish it.
    pub fn check_open_hint(&self, id: TaskId) -> IoResult<OpenHint> {
        let staged = self.folder(name::STAGING)?.find_dir(id.to_string())?;
        if let Some(dir) = staged
            && (TaskDir { id, dir }).is_held().unwrap_or(true)
        {
            return Ok(OpenHint::Staged);
        }
        // A task moves from staging/ to tasks/ only: seen in neither, in this order, it is nowhere.
        if self.task(id)?.is_some() {
            return Ok(OpenHint::Task);
        }
        self.folder(name::OPEN)?.unlink(id.to_string())?;
        Ok(OpenHint::Dropped)
    }

    /// Whether the hints were compared with `tasks/` in this boot. Until then some may be missing:
    /// a power cut may have taken them, because they are never synced.
    pub fn is_reconciled(&self) -> IoResult<bool> {
        let last = self.folder(name::OPEN)?.read(BOOT, 4096)?;
        Ok(last.is_some_and(|last| last == BootId::current().kernel().as_bytes()))
    }

    /// The tasks that may have lost their hint, newest first: all that have none. After a boot each
    /// of them is looked at, and of a hundred thousand that wait for their turn, none has to be.
    pub fn unhinted_ids(&self) -> IoResult<Vec<TaskId>> {
        let open = self.open_ids()?;
        let mut ids = self.task_ids()?;
        ids.retain(|id| open.binary_search(id).is_err());
        Ok(ids)
    }

    /// The task, if it has neither result nor hint.
    fn unhinted_task(&self, id: TaskId) -> IoResult<Option<TaskDir>> {
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
    pub fn lacks_hint(&self, id: TaskId) -> IoResult<bool> {
        Ok(self.unhinted_task(id)?.is_some())
    }

    /// Gives a task without result its hint back; `true` when it was missing.
    pub fn reconcile_hint(&self, id: TaskId) -> IoResult<bool> {
        let Some(task) = self.unhinted_task(id)? else {
            return Ok(false);
        };
        // Submitters hint only sessions that were given; a hint too many costs nothing.
        let session = task.request().ok().and_then(|request| request.session_id);
        let given = session.filter(|session| crate::task::session_of(id) != *session);
        self.add_hints(id, &task.dir, given.as_ref())?;
        // Finished in between: the finisher did not see this hint, so it is ours to take away.
        if task.has_result()? {
            self.remove_hints(id, given.as_ref())?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Remembers that hints and tasks were compared in this boot.
    pub fn mark_reconciled(&self) -> IoResult<()> {
        if self.is_reconciled()? {
            return Ok(());
        }
        let open = self.folder(name::OPEN)?;
        open.replace(BOOT, BootId::current().kernel().as_bytes())
    }

    /// Points a name at a task, unless it points at a newer one.
    pub fn link_name(&self, task_name: &Name, id: TaskId) -> IoResult<()> {
        let names = self.folder(name::NAMES)?;
        let _turn = self.names_turn()?;
        if self.named_task(task_name)?.is_some_and(|there| there >= id) {
            return Ok(());
        }
        let between = format!(".{id}{LINK_SUFFIX}");
        names.unlink(&between)?;
        names.symlink(&format!("../{}/{id}", name::TASKS), &between)?;
        match names.rename_over(&between, task_name.as_str()) {
            // A folder in the way: the task is there all the same, under its id.
            Err(error) if error.is_unusable() => names.unlink(&between).map(|_| ()),
            placed => placed,
        }
    }

    /// Removes a name's link if it still points at this task.
    pub(super) fn unlink_name(&self, task_name: &Name, id: TaskId) -> IoResult<bool> {
        let _turn = self.names_turn()?;
        if self.named_task(task_name)? != Some(id) {
            return Ok(false);
        }
        self.folder(name::NAMES)?.unlink(task_name.as_str())
    }

    /// The task a name points at.
    pub fn named_task(&self, task_name: &Name) -> IoResult<Option<TaskId>> {
        let target = self.folder(name::NAMES)?.read_link(task_name.as_str())?;
        let target = target.and_then(|target| target.into_string().ok());
        Ok(target.and_then(|target| target.rsplit('/').next()?.parse().ok()))
    }

    /// Every name there is, with the task it points at.
    pub fn names(&self) -> IoResult<Vec<(Name, TaskId)>> {
        let mut names = Vec::new();
        for entry in self.folder(name::NAMES)?.names()? {
            if let Some(text) = entry.to_str()
                && let Ok(task_name) = text.parse::<Name>()
                && let Some(id) = self.named_task(&task_name)?
            {
                names.push((task_name, id));
            }
        }
        Ok(names)
    }

    /// Links that somebody began to make and did not get to put in place.
    pub fn unplaced_links(&self) -> IoResult<Vec<OsString>> {
        let mut links = self.own_folder(name::NAMES)?.names()?;
        links.retain(|entry| {
            let text = entry.to_str().unwrap_or_default();
            text.starts_with('.') && text.ends_with(LINK_SUFFIX)
        });
        Ok(links)
    }

    /// Removes one of them, in a turn of our own: whoever makes one now does it in his. `false` when
    /// there was no turn to be had or it is gone.
    pub fn remove_unplaced_link(&self, entry: &OsString) -> IoResult<bool> {
        let names = self.folder(name::NAMES)?;
        let Some(_turn) = self.names_turn()? else {
            return Ok(false);
        };
        names.unlink(entry)
    }

    /// Only one process compares and moves links at a time. Somebody who was stopped in the middle
    /// must not stop everybody: after [`LINK_PATIENCE`] we go on, and at worst the older of two
    /// tasks has the name.
    fn names_turn(&self) -> IoResult<Option<Flock>> {
        self.root()?.lock_within(name::NAMES_LOCK, LINK_PATIENCE)
    }
}
