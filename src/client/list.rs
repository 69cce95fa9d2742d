//! Listing tasks, newest first, and counting them.
//!
//! Costs one listing of names and one status file for each shown task. A filter by `pending` or `running`
//! reads only the tasks with an index entry in `open/`. Not one task (`status.rs`). Invariant: listing
//! changes nothing.

use super::open::Client;
use crate::spool::{IoError, TaskView, is_label};
use crate::task::{Name, Status, StatusFile, TaskId};

/// Which tasks to list.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only tasks with this status.
    pub status: Option<Status>,
    /// Only tasks with this name.
    pub name: Option<Name>,
    /// Only tasks with this label.
    pub label: Option<String>,
    /// The number of newest tasks to skip.
    pub skip: usize,
    /// The most tasks to return.
    pub limit: usize,
    /// Whether to read the results too, which costs one file for each finished task.
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

/// A page of tasks, and the total number.
#[derive(Debug)]
pub struct Page {
    /// The tasks, newest first.
    pub tasks: Vec<TaskView>,
    /// The total number of matching tasks, if known. It is not known for a final status.
    pub total: Option<usize>,
}

/// The number of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The number for each status, in the order of [`Status::ALL`].
    pub tasks: Vec<(Status, usize)>,
    /// The number of files in the drop box. `None` for users other than the owner, who may not list it.
    pub drops: Option<usize>,
}

impl Client {
    /// A page of tasks.
    ///
    /// # Errors
    /// The spool cannot be read.
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
            // All open tasks are counted; of the finished tasks only the page is read.
            if !is_open && tasks.len() == options.limit {
                break;
            }
        }
        Ok(Page {
            tasks,
            total: is_open.then_some(found),
        })
    }

    /// Counts the tasks of each status, and the files in the drop box.
    ///
    /// # Errors
    /// The spool cannot be read.
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
