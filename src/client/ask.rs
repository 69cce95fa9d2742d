//! Cancelling as a user of the group: a control file in the drop box asks the watcher to cancel the task.
//!
//! Not cancelling as the owner (`cancel.rs`), and not the watcher's decision (`spool/control.rs`). Invariant:
//! no control file is written for another user's task.

use std::time::Duration;

use super::cancel_answer::{CancelError, CancelOutcome, readable};
use super::stop::Stop;
use crate::spool::{Spool, TaskDir, Wake};
use crate::task::{Action, Origin, TaskId};

/// How often to check while the watcher cancels the task, since the watcher may be killed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Requests the cancellation. With `wait`, returns after the task has ended, if a watcher is running.
pub(super) fn ask(
    spool: &Spool,
    id: TaskId,
    wait: bool,
    stop: &dyn Stop,
) -> Result<CancelOutcome, CancelError> {
    let wake = Wake::for_waiting(spool)?;
    if let Some(task) = spool.task(id)? {
        if task.has_result()? {
            return Ok(CancelOutcome::AlreadyOver(readable(&task)));
        }
        check_may_control(spool, &task)?;
    } else if let Some(uid) = spool.owner_of_waiting(id)?
        && uid != rustix::process::geteuid().as_raw()
    {
        return Err(CancelError::DropOfAnotherUser(id));
    }
    let asked = spool.ask(id, Action::Cancel)?;
    let asked_at = std::time::Instant::now();
    loop {
        let mut is_noted = false;
        if let Some(task) = spool.task(id)? {
            if task.has_result()? {
                return Ok(CancelOutcome::Ended(readable(&task)));
            }
            // At the start it was a drop. The task's submitter is known only now.
            check_may_control(spool, &task)?;
            is_noted = task.cancel_requested()?;
        }
        if !is_noted && let Some(refusal) = spool.refusal_of_control(&asked)? {
            let (reason, hint) = (refusal.reason, refusal.hint);
            return Err(CancelError::Refused { id, reason, hint });
        }
        if spool.is_unattended(asked_at)? {
            return Ok(CancelOutcome::Unattended);
        }
        if !wait {
            return Ok(CancelOutcome::Requested);
        }
        // Returns an error if the drop was refused.
        spool.resolve(&id.to_string())?;
        if stop.is_asked() {
            return Err(CancelError::Interrupted(id));
        }
        wake.wait(stop.wakes(), CHECK_INTERVAL);
        wake.take();
    }
}

fn check_may_control(spool: &Spool, task: &TaskDir) -> Result<(), CancelError> {
    if spool.may_control(task, rustix::process::geteuid().as_raw())? {
        return Ok(());
    }
    let is_known = |origin: Option<Origin>| origin.is_none_or(|origin| origin.uid.is_some());
    Err(if task.origin().is_ok_and(is_known) {
        CancelError::TaskOfAnotherUser(task.id())
    } else {
        CancelError::OfUnknownUser(task.id())
    })
}
