//! Ends all earlier attempts of a task before the next one starts.
//!
//! Does not find or kill the processes of one attempt (`recover.rs`), and does not decide what follows
//! from a loss (`runner/loss.rs: after_loss`). A recipe can write into its task's folder, so the last
//! number may not be the attempt that ran, and its folder may be gone. Invariant: an attempt counts as
//! not started only if its files show that.

use super::recover::{self, Lost};
use super::report::report_foreign_result;
use super::tag::{beginning_of, tag_of};
use super::temp_link::remove_recorded;
use crate::clock::BootId;
use crate::spool::{Attempt, IoError, Spool, TaskLock};
use crate::task::Timestamp;

/// The attempts of a task, after all of them have ended.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The last attempt that may have run; 0 if none may have.
    pub last: u32,
    /// Its folder, if it exists.
    pub attempt: Option<Attempt>,
    /// Whether it was already known to be lost, and a later attempt was prepared that never ran.
    pub is_dealt_with: bool,
}

impl Past {
    /// When the last attempt started, if that is known.
    pub fn started_at(&self) -> Option<Timestamp> {
        let run = self.attempt.as_ref()?.run()?;
        Some(run.started_at)
    }
}

/// Ends what is left of every attempt. `None` if `go_on` returned false before that was done.
pub(crate) fn recover_all(
    spool: &Spool,
    lock: &TaskLock,
    boot: &BootId,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Past>, IoError> {
    let task = lock.task();
    let mut numbers = task.attempt_numbers()?;
    // The status names an attempt that ran, although its folder may have been removed.
    let reported = task.status_file().map_or(0, |status| status.attempt);
    if reported > numbers.last().copied().unwrap_or(0) {
        numbers.push(reported);
    }
    let (mut past, mut was_lost) = (Past::default(), false);
    for (place, number) in numbers.iter().copied().enumerate() {
        let attempt = task.attempt(number)?;
        let run = attempt.as_ref().and_then(Attempt::run);
        let is_lost = run.as_ref().is_some_and(|run| run.lost_at.is_some());
        let is_last = place + 1 == numbers.len();
        let lost = match &attempt {
            Some(_) if is_lost && !is_last => Lost::MayHaveRun,
            Some(attempt) => {
                let tag = tag_of(spool, task.id(), attempt)?;
                recover::recover(lock, attempt, &tag, boot, go_on)?
            }
            None if task.is_attempt_gone(number)? => {
                recover::recover_gone(lock, &beginning_of(spool, task, number)?, go_on)
            }
            // The attempt never had a folder.
            None => Lost::NothingRan,
        };
        if lost != Lost::GivenUp
            && let (Some(run), Some(attempt)) = (&run, &attempt)
        {
            remove_recorded(run, attempt);
        }
        match lost {
            Lost::GivenUp => return Ok(None),
            Lost::NothingRan => {
                lock.drop_attempt(number)?;
                past.is_dealt_with = was_lost;
            }
            Lost::MayHaveRun => {
                was_lost = is_lost;
                past = Past {
                    last: number,
                    attempt,
                    is_dealt_with: false,
                };
            }
        }
    }
    // Before the attempt's result.part is removed, which distinguishes a foreign result.
    if lock.set_foreign_result_aside(past.attempt.as_ref())? {
        report_foreign_result(task.id());
    }
    Ok(Some(past))
}
