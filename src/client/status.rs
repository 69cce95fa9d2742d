//! The status of one task.
//!
//! Not its output (`result.rs`) and not its logs (`logs.rs`). Invariant: reading the status changes nothing.

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{IoError, Target, TaskView};
use crate::task::{Name, Origin, TaskId};

/// A found task or drop.
#[derive(Debug)]
pub enum Found {
    /// A task and its status.
    Task(Box<TaskView>),
    /// A drop that is not a task yet.
    Drop(Name),
}

impl Client {
    /// The status of a task or drop, given by id, part of an id, name, or `last`.
    ///
    /// # Errors
    /// [`LookupError`], but never [`LookupError::NotAdmitted`]: a drop is an answer.
    pub fn status(&self, task: &str) -> Result<Found, LookupError> {
        let id = match self.spool().resolve(task)? {
            Target::Task(id) => id,
            Target::Drop(name) => return Ok(Found::Drop(name)),
        };
        let task = self.spool().task(id)?.ok_or(LookupError::Removed(id))?;
        Ok(Found::Task(Box::new(task.view()?)))
    }

    /// The status of one task by its id, for repeated calls. `None`: the task was removed.
    ///
    /// # Errors
    /// A system call failed.
    pub fn view(&self, id: TaskId) -> Result<Option<TaskView>, IoError> {
        Ok(self.spool().views(&[id])?.pop())
    }

    /// Who submitted a task through the drop box of a group spool. Unknown if it cannot be read.
    pub fn origin(&self, id: TaskId) -> Option<Origin> {
        if !self.spool().is_group() {
            return None;
        }
        let origin = self.spool().task(id).ok()??.origin();
        origin.unwrap_or_else(|_| Some(Origin::new(None, None)))
    }
}
