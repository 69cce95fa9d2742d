//! Cancelling a task: write the cancel marker, and wait for the end.
//!
//! Not the ending of processes (`runner/`), and not cancelling as a group user (`ask.rs`). If a runner holds
//! the task, the runner stops it. If nothing holds the task, it is finished here, so cancelling works without
//! a watcher. Invariant: the answer is the result that the task has afterwards.

use std::time::{Duration, Instant};

use super::ask::ask;
use super::cancel_answer::{CancelError, CancelOutcome, Cancelled, readable};
use super::open::Client;
use super::stop::Stop;
use crate::runner::finish_cancelled;
use crate::spool::{Claim, IoError, Spool, Target, TaskDir, Wake};
use crate::task::{Status, TaskId};

/// How often the lock is tried again while a runner holds it, since the runner may be killed.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How often to check while a runner is about to release a task that has ended, and for how long.
const FINALIZING: Duration = Duration::from_millis(5);
const FINALIZING_TIMEOUT: Duration = Duration::from_millis(100);

impl Client {
    /// Cancels a task, given by id, part of an id, name, or `last`. With `wait`, returns after the task has
    /// ended. For a user of the group this needs a running watcher.
    ///
    /// # Errors
    /// [`CancelError`]. After [`CancelError::Interrupted`] and [`CancelError::Unwritten`] the cancellation
    /// stays requested.
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
                // A user of the group chose the id of the future task.
                Ok(id) if spool.is_group() => id,
                Ok(_) | Err(_) => return Err(CancelError::NotAdmitted(name)),
            },
        };
        // The owner ends a task or refuses a drop directly; users of the group ask the watcher.
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

impl Client {
    /// Whether a cancellation by the owner refused a drop, so that there is no task.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn is_refused_drop(&self, id: TaskId) -> Result<bool, IoError> {
        Ok(self.spool().is_owner() && self.spool().task(id)?.is_none())
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

/// As the owner: refuses the drop with this id. `false` if it is a task by now.
fn refuse_drop(spool: &Spool, id: TaskId, stop: &dyn Stop) -> Result<bool, CancelError> {
    while spool.task(id)?.is_none() {
        if spool.refuse_waiting(id)? {
            return Ok(true);
        }
        // A watcher is admitting the drop, or has already admitted or refused it.
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

/// As the owner: cancels a task. With `wait`, returns after the task has ended.
pub(super) fn cancel_task(
    spool: &Spool,
    id: TaskId,
    wait: bool,
    stop: &dyn Stop,
) -> Result<CancelOutcome, CancelError> {
    let gone = || CancelError::Removed(id);
    // Listen before writing the marker, so that its effect cannot be missed.
    let wake = Wake::for_waiting(spool)?;
    let task = spool.task(id)?.ok_or_else(gone)?;
    if is_over(&task)? {
        return Ok(CancelOutcome::AlreadyOver(readable(&task)));
    }
    task.request_cancel()?;
    loop {
        let again = spool.task(id)?.ok_or_else(gone)?;
        match again.lock(spool)? {
            // The recipe emptied the task's folder, and the runner has not ended the task yet.
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
        // A runner that holds a task with a result is about to release it.
        let pause = if task.has_result()? {
            FINALIZING
        } else {
            RETRY_INTERVAL
        };
        wake.wait(stop.wakes(), pause);
        wake.take();
    }
}

/// Whether a task has ended. If there is a result while a runner holds the lock, the recipe may have written
/// it. A runner that wrote the result itself releases the lock soon.
fn is_over(task: &TaskDir) -> Result<bool, CancelError> {
    let begun = Instant::now();
    while task.has_result()? {
        // If the lock cannot be checked, the result counts.
        if !task.is_held().unwrap_or(false) {
            return Ok(true);
        }
        if begun.elapsed() > FINALIZING_TIMEOUT {
            return Ok(false);
        }
        std::thread::sleep(FINALIZING);
    }
    Ok(false)
}
