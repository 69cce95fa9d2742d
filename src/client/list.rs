//! Listing tasks, newest first, and counting them.
//!
//! Costs one listing of names and one status file for each shown task. A filter by `pending` or
//! `running` reads only what the hints say is open. Not one task (`status.rs`). Invariant: looking changes nothing.

use super::open::Client;
use crate::spool::{IoError, TaskView, is_label};
use crate::task::{Name, Status, StatusFile, TaskId};

/// Which tasks are listed.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this name.
    pub name: Option<Name>,
    /// Only those of this label.
    pub label: Option<String>,
    /// So many of the newest are left out.
    pub skip: usize,
    /// So many at most.
    pub limit: usize,
    /// Whether the results are read as well, which costs a file for each finished task.
    pub with_results: bool,
}

impl ListOptions {
    fn chooses(&self, status: &StatusFile) -> bool {
        let label = || status.label.as_deref().unwrap_or_default();
        self.status.is_none_or(|wanted| status.status == wanted)
            && (self.name.is_none() || self.name == status.name)
            && (self.label.as_deref()).is_none_or(|wanted| is_label(label(), wanted))
    }
}

/// Some tasks, and how many there are in all.
#[derive(Debug)]
pub struct Page {
    /// The tasks, newest first.
    pub tasks: Vec<TaskView>,
    /// How many fit in all, where that is known: not for a status that is final.
    pub total: Option<usize>,
}

/// How many tasks there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of each status, in the order of [`Status::ALL`].
    pub tasks: Vec<(Status, usize)>,
    /// Files in the drop box. `None`: only the spool's owner may list it.
    pub drops: Option<usize>,
}

impl Client {
    /// A page of tasks.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn list(&self, options: &ListOptions) -> Result<Page, IoError> {
        let is_filtered =
            options.status.is_some() || options.name.is_some() || options.label.is_some();
        let mut page = match is_filtered {
            false => self.list_all(options)?,
            true => self.list_filtered(options)?,
        };
        if options.with_results {
            let ids: Vec<TaskId> = page.tasks.iter().map(|view| view.status.task_id).collect();
            page.tasks = self.spool().views(&ids)?;
        }
        Ok(page)
    }

    fn list_all(&self, options: &ListOptions) -> Result<Page, IoError> {
        let ids = self.spool().task_ids()?;
        let mut tasks = Vec::new();
        for id in ids.iter().skip(options.skip).take(options.limit) {
            tasks.extend(self.spool().glance(*id)?);
        }
        Ok(Page {
            tasks,
            total: Some(ids.len()),
        })
    }

    fn list_filtered(&self, options: &ListOptions) -> Result<Page, IoError> {
        let spool = self.spool();
        let is_open = options.status.is_some_and(|status| !status.is_terminal());
        let ids = if is_open {
            let mut open = spool.open_ids()?;
            open.reverse();
            open
        } else {
            spool.task_ids()?
        };
        let mut tasks = Vec::new();
        let mut found = 0;
        for id in ids {
            let Some(view) = spool.glance(id)? else {
                continue;
            };
            if !options.chooses(&view.status) {
                continue;
            }
            if found >= options.skip && tasks.len() < options.limit {
                tasks.push(view);
            }
            found += 1;
            // Of what is open all is counted; of what is finished only the page is read.
            if !is_open && tasks.len() == options.limit {
                break;
            }
        }
        Ok(Page {
            tasks,
            total: is_open.then_some(found),
        })
    }

    /// Counts the tasks of each status, and what waits in the drop box.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn counts(&self) -> Result<Counts, IoError> {
        let mut tasks: Vec<(Status, usize)> =
            Status::ALL.iter().map(|status| (*status, 0)).collect();
        for id in self.spool().task_ids()? {
            let Some(view) = self.spool().glance(id)? else {
                continue;
            };
            let its = view.status.status;
            for (_, count) in tasks.iter_mut().filter(|(status, _)| *status == its) {
                *count += 1;
            }
        }
        let drops = match self.spool().is_owner() {
            true => Some(self.spool().in_box()?.waiting()),
            false => None,
        };
        Ok(Counts { tasks, drops })
    }
}
