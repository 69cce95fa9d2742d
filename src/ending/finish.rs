//! The end of a task: makes its result durable.
//!
//! Does not decide the outcome. Used by the runner, and by `cancel` for a task that no process holds.
//! Invariant: a result is written under the task's lock, when no process of the task is alive.

use std::time::Duration;

use super::lost;
use super::report::report_foreign_result;
use crate::clock::{self, BootId};
use crate::spool::{Attempt, IoError, PreallocatedResult, ReadError, Spool, TaskLock};
use crate::task::{
    Event, FORMAT_VERSION, Metrics, Outcome, Request, ResultFile, StatusFile, TaskId,
};

/// The wait between tries while the disk refuses a result: the first and the longest (docs/hazards.md,
/// 23).
const COMMIT_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The result of a task that never ran. The caller fills in what it knows.
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

/// Finishes a task as cancelled: kills the processes that a killed runner left behind, then writes the
/// result. Returns the result that is on the disk afterwards; an earlier result is kept. While a process
/// cannot be killed, `go_on` is called. If it returns false, `None` is returned and nothing was written.
///
/// # Errors
/// An I/O error. The task is unchanged, and the marker stays.
pub fn finish_cancelled(
    spool: &Spool,
    lock: &TaskLock,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<ResultFile>, IoError> {
    let task = lock.task();
    let id = task.id();
    let request = match task.request() {
        Ok(request) => Some(request),
        // The request cannot be read now. A result without it would leave the session's index entry
        // behind.
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
    let Some(result_on_disk) = result_on_disk_of(lock, is_ours, result) else {
        return Ok(None);
    };
    finalize(spool, lock, &result_on_disk, None)?;
    if let Some(session) = &result_on_disk.session_id {
        spool.remove_empty_session(session);
    }
    Ok(Some(result_on_disk))
}

/// The result that is on the disk: the first one that was written. `None` if another process works on the
/// task.
fn result_on_disk_of(lock: &TaskLock, is_ours: bool, written: ResultFile) -> Option<ResultFile> {
    if is_ours {
        return Some(written);
    }
    lock.task().result_as_it_stands().ok().flatten()
}

/// Brings status and index entries in line with the result that is on the disk.
fn finalize(
    spool: &Spool,
    lock: &TaskLock,
    result_on_disk: &ResultFile,
    before: Option<StatusFile>,
) -> Result<(), IoError> {
    lock.finalize(spool, result_on_disk, before)?;
    if let Some(end) = Event::end(result_on_disk) {
        lock.emit(spool, end);
    }
    Ok(())
}

/// Whether the task's folder was removed, alone or with the spool.
fn is_gone(spool: &Spool, lock: &TaskLock) -> bool {
    match spool.task(lock.task().id()) {
        Ok(there) => there.is_none(),
        Err(error) => error.is_absent(),
    }
}

/// Makes the result durable, however long the disk refuses it. The lock is held until then. `before` is
/// the last known status, if there is one.
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
            // The folder was removed, so there is no place for a result.
            tracing::error!(task = %result.task_id, "the task's folder was removed, so its result is not written: {error}");
            return;
        }
        tracing::error!(task = %result.task_id, "the result is kept in memory and written again later: {error}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(COMMIT_BACKOFF.1);
    };
    let id = result.task_id;
    let Some(result_on_disk) = result_on_disk_of(lock, is_ours, result) else {
        tracing::error!(task = %id, "the task's lock was removed, and another runner works on the task now");
        return;
    };
    if let Err(error) = finalize(spool, lock, &result_on_disk, before) {
        tracing::warn!(task = %result_on_disk.task_id, "{error}");
    }
}
