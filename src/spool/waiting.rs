//! What a task would have to wait for, asked without taking anything.
//!
//! Not the taking (`limits/slots.rs`, `index/sessions.rs`). A user of the group may lock nothing here, and asks the kernel's table of locks;
//! what that does not show counts as free. Invariant: nothing is held when an answer is given, so it may be
//! another one a moment later.

use super::disk::{Dir, IoResult, absent_is_none, lock_table};
use super::layout::name;
use super::open::Spool;
use super::tasks::ids_in;
use crate::task::{Name, TaskId, task_of_session};

impl Spool {
    /// Whether all of the first `limit` places of a kind are taken: of the spool's, or of a recipe's.
    pub fn are_slots_taken(&self, recipe: Option<&Name>, limit: u32) -> IoResult<bool> {
        let slots = self.folder(name::SLOTS)?;
        let prefix = recipe.map_or(String::new(), |recipe| format!("recipe.{recipe}."));
        for k in 0..limit {
            if !is_held(&slots, &format!("{prefix}{k}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first task of a session that is before this one and not over.
    pub fn earlier_in_session(&self, session: &Name, id: TaskId) -> IoResult<Option<TaskId>> {
        if let Some(first) = task_of_session(session)
            && first < id
            && self.is_open_task(first)?
        {
            return Ok(Some(first));
        }
        let sessions = self.folder(name::SESSIONS)?;
        // Shut to users of the group, like the turn itself.
        let folder = match sessions.find_dir(session.as_str()) {
            Err(error) if error.is_denied() => return Ok(None),
            found => found?,
        };
        let queue = folder.map(|folder| folder.find_dir(name::QUEUE));
        let Some(queue) = queue.transpose()?.flatten() else {
            return Ok(None);
        };
        for earlier in ids_in(&queue)?.into_iter().take_while(|other| *other < id) {
            if self.is_open_task(earlier)? {
                return Ok(Some(earlier));
            }
        }
        Ok(None)
    }
}

fn is_held(dir: &Dir, name: &str) -> IoResult<bool> {
    match absent_is_none(dir.open_file(name)) {
        Ok(None) => Ok(false),
        Ok(Some(file)) => dir.is_locked(file, name),
        Err(error) if error.is_denied() => Ok(lock_table::is_locked(dir, name)?.unwrap_or(false)),
        Err(error) => Err(error),
    }
}
