//! Decides about one drop: a task, a refusal, or another check later.
//!
//! Does not order the drops (`admit.rs`). Invariant: no drop is refused because the spool was moved, or
//! while it may still be written.

use std::time::{Duration, Instant};

use crate::spool::{Admission, DropFile, DropRefusal, IoError, Pickup, Rules, Spool, SubmitError};
use crate::task::{Event, Happened, Request, TaskId, session_of};

/// The decision about a drop.
pub(super) enum Decision {
    Admitted(TaskId),
    /// Refused with this id, for this reason.
    Refused(TaskId, String),
    /// It is not complete, and has not been so for long.
    Wait,
    /// Another process has taken it, or it is another file now.
    Gone,
}

/// Decides about a drop that is unchanged since `since`, and carries the decision out.
pub(super) fn decide(
    drop: &DropFile,
    spool: &Spool,
    rules: Rules<'_>,
    since: Instant,
    patience: Duration,
) -> Result<Decision, SubmitError> {
    if drop.is_folder() {
        let path = spool.path().join("incoming").join(drop.file_name());
        return Err(IoError::new("take", path, rustix::io::Errno::ISDIR).into());
    }
    let why = match spool.look_at(drop)? {
        Pickup::Gone => return Ok(Decision::Gone),
        Pickup::Ready(request, bytes) => return take(spool, drop, *request, &bytes, rules),
        Pickup::NotYet(_) if since.elapsed() < patience => return Ok(Decision::Wait),
        Pickup::NotYet(why) | Pickup::Refused(why) => why,
    };
    refuse(spool, drop, why, rules)
}

fn take(
    spool: &Spool,
    drop: &DropFile,
    request: Request,
    bytes: &[u8],
    rules: Rules<'_>,
) -> Result<Decision, SubmitError> {
    if let Err(why) = (rules.check)(&request)? {
        // A spool that was moved or removed has no recipes at its old path. No drop is refused because of
        // that.
        if !spool.is_at_its_path() {
            return Ok(Decision::Gone);
        }
        return refuse(spool, drop, why, rules);
    }
    let (recipe, session) = (request.recipe.clone(), request.session_id.clone());
    let admission = spool.admit(drop, request, bytes, rules)?;
    if let Admission::Task(id) = &admission {
        let session = session.unwrap_or_else(|| session_of(*id));
        spool.emit(Event {
            drop: Some(drop.label()),
            ..Event::of(Happened::Admitted, *id, Some(&recipe), Some(&session))
        });
    }
    Ok(decision_of(admission))
}

fn refuse(
    spool: &Spool,
    drop: &DropFile,
    why: DropRefusal,
    rules: Rules<'_>,
) -> Result<Decision, SubmitError> {
    Ok(decision_of(spool.reject(drop, why, rules)?))
}

fn decision_of(admission: Admission) -> Decision {
    match admission {
        Admission::Task(id) => Decision::Admitted(id),
        Admission::Rejected(id, why) => Decision::Refused(id, why.reason),
        Admission::Gone | Admission::Changed => Decision::Gone,
    }
}
