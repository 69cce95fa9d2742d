//! Cancelling: leave the marker, and see the task to its end.
//!
//! Not the ending of processes (`runner/`), and not a group user's way (`ask.rs`).
//! A task that somebody holds is stopped by its holder; one that nobody holds is finished here, so
//! that cancelling works without a watcher. Invariant: what counts is the result that stands afterwards.

use std::time::{Duration, Instant};

use super::ask::ask;
use super::cancel_answer::{CancelError, CancelOutcome, Cancelled, readable};
use super::open::Client;
use super::stop::Stop;
use crate::runner::finish_cancelled;
use crate::spool::{Claim, Spool, Target, TaskDir, Wake};
use crate::task::{Status, TaskId};

/// How often the lock is tried again while the holder is at it: it may die.
const LOOK: Duration = Duration::from_millis(200);

/// How often to look while a runner is about to let go of a task that has ended, and for how long.
const FINALIZING: Duration = Duration::from_millis(5);
const SETTLING_PATIENCE: Duration = Duration::from_millis(100);

impl Client {
    /// Cancels the task that is called so: by id, part of an id, name, or `last`. With `wait` it is over when this
    /// returns, unless no watcher runs for a user of the group.
    ///
    /// # Errors
    /// [`CancelError`]. Where it is [`CancelError::Interrupted`] or [`CancelError::Unwritten`], the cancellation
    /// stands all the same.
    pub fn cancel(
        &self,
        task: &str,
        wait: bool,
        stop: &dyn Stop,
    ) -> Result<Cancelled, CancelError> {
        let spool = self.spool();
        let id = match spool.resolve(task)? {
            Target::Task(id) => id,
            Target::Drop(name) => match name.as_str().parse() {
                // A user of the group has chosen the id of the task to be.
                Ok(id) if spool.is_group() => id,
                Ok(_) | Err(_) => return Err(CancelError::NotAdmitted(name)),
            },
        };
        // The owner ends a task or refuses a drop himself; users of the group ask the watcher.
        let outcome = if !spool.is_owner() {
            ask(spool, id, wait, stop)?
        } else if refuse_drop(spool, id, stop)? {
            CancelOutcome::Requested
        } else {
            cancel_task(spool, id, wait, stop)?
        };
        let mut cancelled = Cancelled {
            id,
            outcome,
            status: Status::Cancelled,
        };
        cancelled.status = match cancelled.result() {
            Some(result) => result.status,
            None => status_without_result(spool, &cancelled)?,
        };
        Ok(cancelled)
    }
}

fn status_without_result(spool: &Spool, cancelled: &Cancelled) -> Result<Status, CancelError> {
    if let Some(task) = spool.task(cancelled.id)? {
        return Ok(task.view()?.status.status);
    }
    Ok(match cancelled.outcome {
        CancelOutcome::Requested | CancelOutcome::Unattended => Status::Pending,
        CancelOutcome::AlreadyOver(_) | CancelOutcome::Ended(_) => Status::Cancelled,
    })
}

/// As the owner: refuses the drop that waits under an id; `false` where there is a task of this id by now.
fn refuse_drop(spool: &Spool, id: TaskId, stop: &dyn Stop) -> Result<bool, CancelError> {
    while spool.task(id)?.is_none() {
        if spool.refuse_waiting(id)? {
            return Ok(true);
        }
        // A watcher is at it, or it was decided on.
        let Target::Drop(name) = spool.resolve(&id.to_string())? else {
            return Ok(false);
        };
        if !spool.has_watcher()? {
            return Err(CancelError::Abandoned(name));
        }
        if stop.is_asked() {
            return Err(CancelError::InterruptedAtDrop(id));
        }
        std::thread::sleep(FINALIZING);
    }
    Ok(false)
}

/// As the owner: cancels a task; with `wait` it is over when this returns.
pub(super) fn cancel_task(
    spool: &Spool,
    id: TaskId,
    wait: bool,
    stop: &dyn Stop,
) -> Result<CancelOutcome, CancelError> {
    let gone = || CancelError::Removed(id);
    // Listen before the marker is left, so that its effect cannot be missed.
    let wake = Wake::for_waiting(spool)?;
    let task = spool.task(id)?.ok_or_else(gone)?;
    if is_over(&task)? {
        return Ok(CancelOutcome::AlreadyOver(readable(&task)));
    }
    task.request_cancel()?;
    loop {
        let again = spool.task(id)?.ok_or_else(gone)?;
        match again.lock(spool)? {
            // Its recipe emptied its folder: the runner has not ended it yet.
            Claim::Gone if spool.task(id)?.is_some() => {}
            Claim::Gone => return Err(gone()),
            Claim::Locked(lock) if lock.task().has_result()? => {
                return Ok(CancelOutcome::Ended(readable(&task)));
            }
            Claim::Locked(lock) => {
                let ended = finish_cancelled(spool, &lock, &|| !stop.is_asked());
                let ended = ended.map_err(|error| CancelError::Unwritten { id, error })?;
                if let Some(result) = ended {
                    return Ok(CancelOutcome::Ended(Some(result)));
                }
            }
            Claim::Busy(_) => {}
        }
        if !wait {
            return Ok(CancelOutcome::Requested);
        }
        if stop.is_asked() {
            return Err(CancelError::Interrupted(id));
        }
        // The holder of a task with a result is about to let go of it.
        let pause = if task.has_result()? { FINALIZING } else { LOOK };
        wake.wait(stop.wakes(), pause);
        wake.take();
    }
}

/// Whether a task has ended. A result that stands while a runner holds the lock may be one that the
/// recipe wrote; a runner that wrote its own lets go of the lock within moments.
fn is_over(task: &TaskDir) -> Result<bool, CancelError> {
    let begun = Instant::now();
    while task.has_result()? {
        // Where that cannot be seen, the result is believed.
        if !task.is_held().unwrap_or(false) {
            return Ok(true);
        }
        if begun.elapsed() > SETTLING_PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(FINALIZING);
    }
    Ok(false)
}
