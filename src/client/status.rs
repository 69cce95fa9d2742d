//! Where one task stands.
//!
//! Not its output (`result.rs`) and not its logs (`logs.rs`). Invariant: looking changes nothing.

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{IoError, Target, TaskView};
use crate::task::{Name, Origin, TaskId};

/// What is called so.
#[derive(Debug)]
pub enum Found {
    /// A task, and where it stands.
    Task(Box<TaskView>),
    /// A drop that is not a task yet.
    Drop(Name),
}

impl Client {
    /// Where the task or the drop stands that is called so: by id, part of an id, name, or `last`.
    ///
    /// # Errors
    /// [`LookupError`], but a drop is an answer.
    pub fn status(&self, task: &str) -> Result<Found, LookupError> {
        let id = match self.spool().resolve(task)? {
            Target::Task(id) => id,
            Target::Drop(name) => return Ok(Found::Drop(name)),
        };
        let task = self.spool().task(id)?.ok_or(LookupError::Removed(id))?;
        Ok(Found::Task(Box::new(task.view()?)))
    }

    /// Where one task stands, for somebody who asks again and again. `None`: it is not there any more.
    ///
    /// # Errors
    /// The kernel said no.
    pub fn view(&self, id: TaskId) -> Result<Option<TaskView>, IoError> {
        Ok(self.spool().views(&[id])?.pop())
    }

    /// Who submitted a task through the drop box of a group spool. What cannot be read is not known.
    pub fn origin(&self, id: TaskId) -> Option<Origin> {
        if !self.spool().is_group() {
            return None;
        }
        let origin = self.spool().task(id).ok()??.origin();
        origin.unwrap_or_else(|_| Some(Origin::new(None, None)))
    }
}
