//! What a task would have to wait for. No slot or lock is taken to find out.
//!
//! Not how slots and sessions are taken (`limits/slots.rs`, `index/sessions.rs`). A user of the group may not
//! read this, which is an error here ([`IoError::is_denied`](super::IoError::is_denied)). Invariant: nothing
//! is held when an answer is given, so the answer may change at any time.

use super::disk::{Dir, IoResult, absent_is_none};
use super::layout::name;
use super::open::Spool;
use super::tasks::ids_in;
use crate::task::{Name, TaskId, task_of_session};

impl Spool {
    /// Whether all of the first `limit` slots of the spool, or of a recipe, are taken.
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

    /// The first unfinished task of a session that comes before this one.
    pub fn earlier_in_session(&self, session: &Name, id: TaskId) -> IoResult<Option<TaskId>> {
        if let Some(earlier) = self.first_open(session, id, &[])? {
            return Ok(Some(earlier));
        }
        // A session that is named after a task starts with that task, whatever its queue has.
        if task_of_session(session) == Some(id) {
            return Ok(None);
        }
        let sessions = self.folder(name::SESSIONS)?;
        let Some(folder) = sessions.find_dir(session.as_str())? else {
            return Ok(None);
        };
        match folder.find_dir(name::QUEUE)? {
            Some(queue) => self.first_open(session, id, &ids_in(&queue)?),
            None => Ok(None),
        }
    }
}

fn is_held(dir: &Dir, name: &str) -> IoResult<bool> {
    match absent_is_none(dir.open_file(name))? {
        None => Ok(false),
        Some(file) => dir.is_locked(file, name),
    }
}
