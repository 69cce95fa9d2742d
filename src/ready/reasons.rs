//! The reasons why a task does not run, in the order in which they are checked.
//!
//! Does not take locks or slots (`guards.rs`). Invariant: nothing is taken, so the answer may change a
//! moment later.

use crate::recipe::{Recipe, SessionMode};
use crate::spool::{IoError, Pause, Spool, TaskView};
use crate::task::{Reason, Status};

/// Why a task does not run, the first reason first. Empty for a task that is running or finished.
/// `recipe` is the task's recipe, if it can be read here.
///
/// # Errors
/// The spool cannot be read.
pub fn reasons(
    spool: &Spool,
    view: &TaskView,
    recipe: Option<&Recipe>,
) -> Result<Vec<Reason>, IoError> {
    let status = &view.status;
    let mut reasons = Vec::new();
    reasons.extend(status.condition.map(Reason::Condition));
    if status.status != Status::Pending {
        return Ok(reasons);
    }
    let sees_watcher = spool.sees_watcher()?;
    let mut is_unseen = sees_watcher.is_none();
    reasons.extend((sees_watcher == Some(false)).then_some(Reason::NoWatcher));
    reasons.extend(spool.paused()?.map(|pause| match pause {
        Pause::Asked => Reason::Paused,
        Pause::Copy => Reason::Copy,
    }));
    let manifest = recipe.map(|recipe| &recipe.manifest);
    let is_serial = manifest.is_none_or(|manifest| manifest.session == SessionMode::Serial);
    // What this user may not read gives no reason, and does not hide other reasons.
    let mut seen = |answer: Result<Option<Reason>, IoError>| match answer {
        Err(error) if error.is_denied() => {
            is_unseen = true;
            Ok(None)
        }
        answer => answer,
    };
    if let Some(session) = status.session_id.as_ref().filter(|_| is_serial) {
        let earlier = spool.earlier_in_session(session, status.task_id);
        let waits_for = |earlier| Reason::Session {
            session: session.clone(),
            earlier,
        };
        reasons.extend(seen(earlier.map(|earlier| earlier.map(waits_for)))?);
    }
    if let Some(recipe) = recipe
        && let Some(limit) = recipe.manifest.max_concurrent
    {
        let taken = spool.are_slots_taken(Some(&recipe.name), limit);
        let recipe = recipe.name.clone();
        let reason = Reason::RecipeSlots { recipe, limit };
        reasons.extend(seen(taken.map(|is_taken| is_taken.then_some(reason)))?);
    }
    let limit = spool.settings().max_concurrent;
    let taken = spool.are_slots_taken(None, limit);
    reasons.extend(seen(
        taken.map(|is_taken| is_taken.then_some(Reason::Slots { limit })),
    )?);
    if reasons.is_empty() {
        reasons.push(match is_unseen {
            true => Reason::Unseen,
            false => Reason::Soon,
        });
    }
    Ok(reasons)
}
