//! The names of tasks: links in `names/`.
//!
//! Not what a person may call a task (`resolve.rs`). Invariant: a name points at the newest task that has it; only
//! one process at a time compares and moves links.

use std::ffi::OsString;
use std::time::Duration;

use crate::spool::disk::{Flock, IoResult, LockLevel};
use crate::spool::layout::name::{self, LINK_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{Name, TaskId};

/// How long to wait for another process that moves a name's link. It does two system calls.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

impl Spool {
    /// Points a name at a task, unless it points at a newer one.
    pub fn link_name(&self, task_name: &Name, id: TaskId) -> IoResult<()> {
        let names = self.folder(name::NAMES)?;
        let _turn = self.lock_names()?;
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
    pub(in crate::spool) fn unlink_name(&self, task_name: &Name, id: TaskId) -> IoResult<bool> {
        let _turn = self.lock_names()?;
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
        let Some(_turn) = self.lock_names()? else {
            return Ok(false);
        };
        names.unlink(entry)
    }

    /// Only one process compares and moves links at a time. Somebody who was stopped in the middle
    /// must not stop everybody: after [`LINK_PATIENCE`] we go on, and at worst the older of two
    /// tasks has the name.
    fn lock_names(&self) -> IoResult<Option<Flock>> {
        self.root()?
            .lock_within(LockLevel::Names, name::NAMES_LOCK, LINK_PATIENCE)
    }
}
