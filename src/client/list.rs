//! Listing tasks, newest first, and counting them.
//!
//! Costs one listing of names and one status file for each shown task. A filter by `pending` or `running`
//! reads only the tasks with an index entry in `open/`. Not one task (`status.rs`). Invariant: listing
//! changes nothing.

use super::open::Client;
use super::select::{Filter, Part};
use crate::spool::{IoError, TaskView};
use crate::task::{Status, TaskId};

/// Which tasks to list.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only tasks that match.
    pub filter: Filter,
    /// The number of newest tasks to skip.
    pub skip: usize,
    /// The most tasks to return.
    pub limit: usize,
    /// Whether to read the results too, which costs one file for each finished task.
    pub with_results: bool,
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
        let mut page = match options.filter.is_empty() {
            true => self.list_all(options)?,
            false => self.list_filtered(options)?,
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
        let is_open = options.filter.is_open();
        let mut tasks = Vec::new();
        let mut found = 0;
        for view in self.matching(&options.filter, Part::All)? {
            let view = view?;
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
