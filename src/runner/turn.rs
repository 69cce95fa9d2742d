//! Whether a task's turn has come: slots, session, and all that must be had before its lock.
//!
//! Not the lock itself (`Runner::claim_and`). Invariant: what is held here is let go by being dropped,
//! in whatever way its holder ends.

use crate::recipe::{FindError, Recipe, RecipePath, SessionMode};
use crate::spool::{Guard, IoError, OpenHint, ReadError, SessionTurn, Slot, Spool, TaskDir};
use crate::task::{Answer, Blocker, Holder, Request, TaskId};

/// Whether a task may run now.
#[expect(
    clippy::large_enum_variant,
    reason = "made once for each task, and taken apart at once"
)]
pub(super) enum Turn {
    /// It may not, or needs not.
    Over(Answer),
    /// Its request cannot be read.
    Unreadable(TaskDir, ReadError),
    /// It has a result or a marker: its lock is all that it needs.
    NothingToStart(TaskDir),
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

/// Takes everything that a task must have before its lock.
pub(super) fn turn_of(spool: &Spool, id: TaskId) -> Result<Turn, IoError> {
    let Some(task) = spool.task(id)? else {
        return Ok(Turn::Over(match spool.check_open_hint(id)? {
            OpenHint::Dropped => Answer::Finished(None),
            OpenHint::Staged | OpenHint::Task => Answer::Held(Holder::Submitter),
        }));
    };
    if task.has_result()? || task.cancel_requested()? {
        // Needs no slot and no turn: nothing of it will be started.
        return Ok(Turn::NothingToStart(task));
    }
    let limit = spool.settings().max_concurrent;
    let Some(slot) = spool.take_slot(None, limit)? else {
        return Ok(Turn::Over(Answer::Blocked(Blocker::Slot)));
    };
    let request = match task.request() {
        Ok(request) => request,
        Err(error) => return Ok(Turn::Unreadable(task, error)),
    };
    let recipe = match RecipePath::of(spool).find(&request.recipe) {
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
            held._recipe_slot = spool.take_slot(Some(&recipe.name), limit)?;
            if held._recipe_slot.is_none() {
                return Ok(Turn::Over(Answer::Blocked(Blocker::RecipeSlot(
                    recipe.name.clone(),
                ))));
            }
        }
        if let Some(session) = &request.session_id
            && recipe.manifest.session == SessionMode::Serial
        {
            match spool.session_turn(session, id)? {
                SessionTurn::Ours(lock) => held._turn = Some(lock),
                SessionTurn::NotYet => {
                    return Ok(Turn::Over(Answer::Blocked(Blocker::Session(
                        session.clone(),
                    ))));
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
