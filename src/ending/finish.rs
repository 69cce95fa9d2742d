//! The end of a task: its result made durable, whoever brings it about.
//!
//! Used by the runner, and by `cancel` for a task that nobody holds. Invariant: a result is written
//! under the task's lock, with nothing of the task alive.

use std::time::Duration;

use super::lost;
use super::report::report_foreign_result;
use crate::clock::{self, BootId};
use crate::spool::{Attempt, IoError, PreallocatedResult, ReadError, Spool, TaskLock};
use crate::task::{
    Event, FORMAT_VERSION, Metrics, Outcome, Request, ResultFile, StatusFile, TaskId,
};

/// How long to wait between tries while the disk refuses a result: at first and at most
/// (SPOOL-SAFETY hazard 23).
const COMMIT_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The result of a task of which nothing ran; the caller fills in what it knows.
pub(crate) fn unstarted(id: TaskId, request: Option<&Request>, outcome: Outcome) -> ResultFile {
    ResultFile {
        v: FORMAT_VERSION,
        task_id: id,
        ok: outcome == Outcome::Completed,
        status: outcome.status(),
        recipe: request.map(|request| request.recipe.clone()),
        output: None,
        output_file: None,
        output_encoding: None,
        output_truncated: false,
        error: outcome.error().cloned(),
        exit_code: None,
        signal: None,
        attempt: 0,
        started_at: None,
        completed_at: clock::wall(),
        ended_in: Some(clock::boot_moment()),
        duration_seconds: None,
        session_id: request.and_then(|request| request.session_id.clone()),
        metrics: Metrics::default(),
    }
}

/// Finishes a task as cancelled: kills what a dead runner left of it, then writes the result.
/// Returns the result that stands afterwards, which is an earlier one where there was one. While a
/// process does not die `go_on` is asked; once it says no, `None` is returned and nothing was
/// written.
///
/// # Errors
/// The disk refused; the task is as it was, and the marker stays.
pub fn finish_cancelled(
    spool: &Spool,
    lock: &TaskLock,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<ResultFile>, IoError> {
    let task = lock.task();
    let id = task.id();
    let request = match task.request() {
        Ok(request) => Some(request),
        // Not known for the moment: a result without it would leave the session's hint behind.
        Err(ReadError::Io(error)) => return Err(error),
        Err(ReadError::Damaged { .. } | ReadError::Newer { .. }) => None,
    };
    let mut result = unstarted(id, request.as_ref(), Outcome::Cancelled);
    let Some(past) = lost::recover_all(spool, lock, &BootId::current(), go_on)? else {
        return Ok(None);
    };
    result.attempt = past.last;
    result.started_at = past.started_at();
    let is_ours = lock.commit(&mut None, past.attempt.as_ref(), &result, &mut || {
        report_foreign_result(id)
    })?;
    let Some(stands) = standing(lock, is_ours, result) else {
        return Ok(None);
    };
    finalize(spool, lock, &stands, None)?;
    if let Some(session) = &stands.session_id {
        spool.remove_empty_session(session);
    }
    Ok(Some(stands))
}

/// The result that stands: the first one won. `None` where somebody else works on the task.
fn standing(lock: &TaskLock, is_ours: bool, written: ResultFile) -> Option<ResultFile> {
    if is_ours {
        return Some(written);
    }
    lock.task().result_as_it_stands().ok().flatten()
}

/// Brings everything in line with the result that stands.
fn finalize(
    spool: &Spool,
    lock: &TaskLock,
    stands: &ResultFile,
    before: Option<StatusFile>,
) -> Result<(), IoError> {
    lock.finalize(spool, stands, before)?;
    if let Some(end) = Event::end(stands) {
        lock.emit(spool, end);
    }
    Ok(())
}

/// Whether the task's folder was removed, alone or with the whole spool.
fn is_gone(spool: &Spool, lock: &TaskLock) -> bool {
    match spool.task(lock.task().id()) {
        Ok(there) => there.is_none(),
        Err(error) => error.is_absent(),
    }
}

/// Makes the result durable, however long the disk refuses: the lock is not left before.
/// `before` is the status to go on from, where it is known.
pub(crate) fn finish(
    spool: &Spool,
    lock: &TaskLock,
    mut preallocated: Option<PreallocatedResult>,
    attempt: Option<&Attempt>,
    result: ResultFile,
    before: Option<StatusFile>,
) {
    let mut pause = COMMIT_BACKOFF.0;
    let is_ours = loop {
        let error = match lock.commit(&mut preallocated, attempt, &result, &mut || {
            report_foreign_result(result.task_id)
        }) {
            Ok(is_ours) => break is_ours,
            Err(error) => error,
        };
        if error.is_absent() && is_gone(spool, lock) {
            // Somebody removed the folder from under us: there is no place for a result.
            tracing::error!(task = %result.task_id, "the task is gone: {error}");
            return;
        }
        tracing::error!(task = %result.task_id, "the result is kept in memory: {error}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(COMMIT_BACKOFF.1);
    };
    let id = result.task_id;
    let Some(stands) = standing(lock, is_ours, result) else {
        tracing::error!(task = %id, "its lock was removed, and another runner works on it by now");
        return;
    };
    if let Err(error) = finalize(spool, lock, &stands, before) {
        tracing::warn!(task = %stands.task_id, "{error}");
    }
}
