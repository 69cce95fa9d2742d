//! Whether a task's turn has come: slots, session, and all that must be had before its lock.
//!
//! Not the lock itself (`Runner::claim_and`). Invariant: what is held here is let go by being dropped,
//! in whatever way its holder ends.

use super::Runner;
use crate::recipe::{FindError, Recipe, SessionMode};
use crate::spool::{Guard, IoError, OpenHint, SessionTurn, Slot, TaskDir};
use crate::task::{Answer, Request, TaskId};

/// Whether a task may run now.
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each task, and taken apart at once"
)]
pub(super) enum Turn {
    /// It may not, or needs not.
    Over(Answer),
    /// It may, as long as `held` is held.
    Ours {
        task: TaskDir,
        request: Request,
        recipe: Result<Recipe, FindError>,
        held: Held,
    },
}

/// The slots and the session's turn of one task; free again when dropped.
pub(super) struct Held {
    _slot: Slot,
    _recipe_slot: Option<Slot>,
    _turn: Option<Guard>,
}

impl Runner<'_> {
    /// Takes everything that a task must have before its lock. What needs none of it is done here.
    pub(super) fn turn_of(&mut self, id: TaskId) -> Result<Turn, IoError> {
        let Some(task) = self.spool.task(id)? else {
            return Ok(Turn::Over(match self.spool.check_open_hint(id)? {
                OpenHint::Dropped => Answer::Finished(None),
                OpenHint::Staged | OpenHint::Task => Answer::Taken { started: false },
            }));
        };
        if task.has_result()? || task.cancel_requested()? {
            // Needs no slot and no turn: nothing of it will be started.
            return self.claim_and(task, None).map(Turn::Over);
        }
        let limit = self.spool.settings().max_concurrent;
        let Some(slot) = self.spool.take_slot(None, limit)? else {
            return Ok(Turn::Over(Answer::NoSlot(None)));
        };
        let request = match task.request() {
            Ok(request) => request,
            Err(error) => return self.set_aside(task, &error).map(Turn::Over),
        };
        let recipe = match self.recipe(&request.recipe) {
            Err(FindError::Unseen { path, source }) => {
                return Err(IoError::new("look for the recipe", path, source));
            }
            recipe => recipe,
        };
        let mut held = Held {
            _slot: slot,
            _recipe_slot: None,
            _turn: None,
        };
        if let Ok(recipe) = &recipe {
            if let Some(limit) = recipe.manifest.max_concurrent {
                held._recipe_slot = self.spool.take_slot(Some(&recipe.name), limit)?;
                if held._recipe_slot.is_none() {
                    return Ok(Turn::Over(Answer::NoSlot(Some(recipe.name.clone()))));
                }
            }
            if let Some(session) = &request.session_id
                && recipe.manifest.session == SessionMode::Serial
            {
                match self.spool.session_turn(session, id)? {
                    SessionTurn::Ours(lock) => held._turn = Some(lock),
                    SessionTurn::NotYet => {
                        return Ok(Turn::Over(Answer::NotYet(Some(session.clone()))));
                    }
                }
            }
        }
        Ok(Turn::Ours {
            task,
            request,
            recipe,
            held,
        })
    }
}
