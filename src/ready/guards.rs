//! Takes everything that a task needs before its lock: the session lock and the slots.
//!
//! Does not check for a pause, which is checked under the task's lock, and does not take that lock
//! (`runner/run.rs`). Invariant: what is held is released when it is dropped, however its holder ends.

use crate::recipe::{FindError, Recipe, RecipePath, SessionMode};
use crate::spool::{Guard, IoError, OpenEntry, ReadError, SessionOrder, Slot, Spool, TaskDir};
use crate::task::{Answer, Blocker, Holder, Request, TaskId};

/// Whether a task may run now.
#[expect(
    clippy::large_enum_variant,
    reason = "created once for each task and destructured immediately"
)]
pub(crate) enum MayRun {
    /// It may not run, or need not.
    Over(Answer),
    /// Its request cannot be read.
    Unreadable(TaskDir, ReadError),
    /// It has a result or a marker. It needs only its lock.
    NothingToStart(TaskDir),
    /// It may run as long as `held` is held.
    Ours {
        task: TaskDir,
        request: Request,
        recipe: Result<Recipe, FindError>,
        held: Held,
    },
}

/// The slots and the session lock of one task; released when dropped.
pub(crate) struct Held {
    _session: Option<Guard>,
    _recipe_slot: Option<Slot>,
    _slot: Slot,
}

/// Takes everything that a task needs before its lock.
pub(crate) fn take_guards(spool: &Spool, id: TaskId) -> Result<MayRun, IoError> {
    let Some(task) = spool.task(id)? else {
        return Ok(MayRun::Over(match spool.check_open_entry(id)? {
            OpenEntry::Dropped => Answer::Finished(None),
            OpenEntry::Staged | OpenEntry::Task => Answer::Held(Holder::Submitter),
        }));
    };
    if task.has_result()? || task.cancel_requested()? {
        // Needs no slot and no session lock: nothing is started.
        return Ok(MayRun::NothingToStart(task));
    }
    let request = match task.request() {
        Ok(request) => request,
        Err(error) => return Ok(MayRun::Unreadable(task, error)),
    };
    let recipe = match RecipePath::of(spool).find(&request.recipe) {
        Err(FindError::Unseen { path, source }) => {
            return Err(IoError::new("find the recipe", path, source));
        }
        recipe => recipe,
    };
    let blocked = |by| Ok(MayRun::Over(Answer::Blocked(by)));
    let (mut session_lock, mut recipe_slot) = (None, None);
    // If the recipe does not exist, nothing is started and there are no limits.
    if let Ok(recipe) = &recipe {
        if let Some(session) = &request.session_id
            && recipe.manifest.session == SessionMode::Serial
        {
            match spool.session_order(session, id)? {
                SessionOrder::Ours(guard) => session_lock = Some(guard),
                SessionOrder::NotYet => return blocked(Blocker::Session(session.clone())),
            }
        }
        if let Some(limit) = recipe.manifest.max_concurrent {
            recipe_slot = spool.take_slot(Some(&recipe.name), limit)?;
            if recipe_slot.is_none() {
                return blocked(Blocker::RecipeSlot(recipe.name.clone()));
            }
        }
    }
    let limit = spool.settings().max_concurrent;
    let Some(slot) = spool.take_slot(None, limit)? else {
        return blocked(Blocker::Slot);
    };
    let held = Held {
        _session: session_lock,
        _recipe_slot: recipe_slot,
        _slot: slot,
    };
    Ok(MayRun::Ours {
        task,
        request,
        recipe,
        held,
    })
}
