//! The status file of a task: its first content, and how the holder of the lock writes it.
//!
//! Not the state that readers see (`view.rs`). Invariants: a status can be derived, so a failed write never
//! fails a task; it changes only as [`Status::may_become`] allows.

use super::lock::TaskLock;
use crate::clock;
use crate::spool::disk::IoResult;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{
    FORMAT_VERSION, Name, Request, ResultFile, Status, StatusFile, TaskId, Timestamp,
};

/// The first status of a task.
pub(in crate::spool) fn pending_status(id: TaskId, request: &Request) -> StatusFile {
    let created_at = Timestamp::from_unix_ms(id.unix_ms());
    StatusFile {
        v: FORMAT_VERSION,
        task_id: id,
        status: Status::Pending,
        recipe: Some(request.recipe.clone()),
        name: request.name.clone(),
        label: request.label.clone(),
        session_id: request.session_id.clone(),
        attempt: 0,
        progress: 0.0,
        message: None,
        condition: None,
        error: None,
        created_at,
        started_at: None,
        completed_at: None,
        duration_seconds: None,
        exit_code: None,
        signal: None,
        log_bytes_dropped: 0,
        metadata: request.metadata.clone(),
        updated_at: clock::wall(),
    }
}

impl TaskLock {
    /// Writes the status file. Callers may ignore an error, because a status can be derived.
    pub fn write_status(&self, status: &StatusFile) -> IoResult<()> {
        self.check_transition(status.status);
        let status = StatusFile {
            updated_at: clock::wall(),
            ..status.clone()
        };
        self.task.dir.exchange(name::STATUS, &status.to_bytes())
    }

    /// Compares with the status that this holder wrote last: the file on the disk may be a recipe's.
    fn check_transition(&self, next: Status) {
        let last = self.last_written.replace(Some(next));
        debug_assert!(
            last.is_none_or(|last| last == next || last.may_become(next)),
            "{}: {last:?} became {next:?}",
            self.task.id
        );
    }

    /// The status derived from the request alone, which the first attempt starts from.
    pub fn first_status(&self, request: &Request) -> StatusFile {
        pending_status(self.task.id, request)
    }

    /// The status to continue from: the status file, or if it cannot be read, the status derived from the
    /// request.
    pub fn current_status(&self, request: &Request) -> StatusFile {
        self.task
            .status_file()
            .unwrap_or_else(|| pending_status(self.task.id, request))
    }

    /// Brings the status and the index entries in line with the task's result. This also repairs a task whose
    /// runner was killed between result and status. `before` is the last status, if the caller knows it.
    pub fn finalize(
        &self,
        spool: &Spool,
        result: &ResultFile,
        before: Option<StatusFile>,
    ) -> IoResult<()> {
        let id = self.task.id;
        let known = before.as_ref().map(|before| before.status);
        let mut status = before
            .or_else(|| self.task.status_file())
            .or_else(|| Some(pending_status(id, &self.task.request().ok()?)))
            .unwrap_or_else(|| pending_status(id, &Request::new(unreadable_recipe(result))));
        // `running` is not written for a task that ran for less than 20 ms.
        self.last_written.set(known);
        status.ended_by(result);
        // The result is durable, so an error here does not fail the task. It only leaves work for later.
        let written = self.write_status(&status);
        let cleaned = [name::ENVIRONMENT, name::ATTACHMENT]
            .map(|only_until_the_end| self.task.dir.remove_anything(only_until_the_end));
        spool.remove_entries(id, result.session_id.as_ref())?;
        cleaned.into_iter().fold(written, IoResult::and)
    }
}

/// A recipe name to build a status from when the request cannot be read. `finalize` replaces it with the
/// recipe of the result.
fn unreadable_recipe(result: &ResultFile) -> Name {
    result
        .recipe
        .clone()
        .unwrap_or_else(|| crate::task::session_of(result.task_id))
}
