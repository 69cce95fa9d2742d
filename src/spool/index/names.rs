//! The names of tasks: links in `names/`.
//!
//! Not how a task is found by name, label or id (`resolve.rs`). Invariant: a name points at the newest task
//! that has it; only one process at a time compares and replaces links.

use std::ffi::OsString;
use std::time::Duration;

use crate::spool::disk::{Flock, IoResult, LockLevel};
use crate::spool::layout::name::{self, LINK_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{Name, TaskId};

/// How long to wait for another process that replaces a link. It makes only a few system calls.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

impl Spool {
    /// Points a name at a task, unless it points at a newer one.
    pub fn link_name(&self, task_name: &Name, id: TaskId) -> IoResult<()> {
        let names = self.folder(name::NAMES)?;
        let _lock = self.lock_names()?;
        if self.named_task(task_name)?.is_some_and(|there| there >= id) {
            return Ok(());
        }
        let between = format!(".{id}{LINK_SUFFIX}");
        names.unlink(&between)?;
        names.symlink(&format!("../{}/{id}", name::TASKS), &between)?;
        match names.rename_over(&between, task_name.as_str()) {
            // A folder has this name. The task can still be found by its id.
            Err(error) if error.is_unusable() => names.unlink(&between).map(|_| ()),
            placed => placed,
        }
    }

    /// Removes a name's link if it still points at this task.
    pub(in crate::spool) fn unlink_name(&self, task_name: &Name, id: TaskId) -> IoResult<bool> {
        let _lock = self.lock_names()?;
        if self.named_task(task_name)? != Some(id) {
            return Ok(false);
        }
        self.folder(name::NAMES)?.unlink(task_name.as_str())
    }

    /// The task that a name points at; `None` if there is no such name.
    pub fn named_task(&self, task_name: &Name) -> IoResult<Option<TaskId>> {
        let target = self.folder(name::NAMES)?.read_link(task_name.as_str())?;
        let target = target.and_then(|target| target.into_string().ok());
        Ok(target.and_then(|target| target.rsplit('/').next()?.parse().ok()))
    }

    /// All names, each with the task that it points at.
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

    /// Temporary links whose process was killed before it renamed them.
    pub fn unplaced_links(&self) -> IoResult<Vec<OsString>> {
        let mut links = self.own_folder(name::NAMES)?.names()?;
        links.retain(|entry| {
            let text = entry.to_str().unwrap_or_default();
            text.starts_with('.') && text.ends_with(LINK_SUFFIX)
        });
        Ok(links)
    }

    /// Removes a temporary link. This takes the lock of `names/`, because a link may be in use while another
    /// process holds it. `false` if the lock is not available or the link is gone.
    pub fn remove_unplaced_link(&self, entry: &OsString) -> IoResult<bool> {
        let names = self.folder(name::NAMES)?;
        let Some(_lock) = self.lock_names()? else {
            return Ok(false);
        };
        names.unlink(entry)
    }

    /// Takes the lock under which links are compared and replaced; `None` after [`LINK_PATIENCE`]. The caller
    /// may continue without it, because a stopped process must not block all others. At worst the older of
    /// two tasks gets the name.
    fn lock_names(&self) -> IoResult<Option<Flock>> {
        self.root()?
            .lock_within(LockLevel::Names, name::NAMES_LOCK, LINK_PATIENCE)
    }
}
