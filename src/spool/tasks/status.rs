//! The status of a task: how it begins, and how the holder of the lock writes it.
//!
//! Not what is true of a task (`view.rs`). Invariants: a status can be derived, so a failed write never fails a
//! task; it changes only as [`Status::may_become`] says.

use super::lock::TaskLock;
use crate::clock;
use crate::spool::disk::IoResult;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{
    FORMAT_VERSION, Name, Request, ResultFile, Status, StatusFile, TaskId, Timestamp,
};

/// The first status of a task.
pub(super) fn pending_status(id: TaskId, request: &Request) -> StatusFile {
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
    /// Writes where the task stands. Best effort by design: it can be derived.
    pub fn write_status(&self, status: &StatusFile) -> IoResult<()> {
        self.goes_on_to(status.status);
        let status = StatusFile {
            updated_at: clock::wall(),
            ..status.clone()
        };
        self.task.dir.exchange(name::STATUS, &status.to_bytes())
    }

    /// Only the holder's own words are compared: what stands on the disk a recipe may have written.
    fn goes_on_to(&self, next: Status) {
        let last = self.last_written.replace(Some(next));
        debug_assert!(
            last.is_none_or(|last| last == next || last.may_become(next)),
            "{}: {last:?} became {next:?}",
            self.task.id
        );
    }

    /// The status of a task of which only the request is known: what an attempt begins with.
    pub fn first_status(&self, request: &Request) -> StatusFile {
        pending_status(self.task.id, request)
    }

    /// The status to go on from: what stands there, else what the request alone says.
    pub fn current_status(&self, request: &Request) -> StatusFile {
        self.task
            .status_file()
            .unwrap_or_else(|| pending_status(self.task.id, request))
    }

    /// Brings status and hints in line with a result that stands: also the repair after a crash
    /// between result and status. `before` is the status to go on from, where the caller knows it.
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
        // A task that ran for less than 20 ms never had `running` written.
        self.last_written.set(known);
        status.ended_by(result);
        // The result is durable: from here on nothing may fail the task, only leave work for later.
        let written = self.write_status(&status);
        let cleaned = [name::ENVIRONMENT, name::ATTACHMENT]
            .map(|only_until_the_end| self.task.dir.remove_anything(only_until_the_end));
        spool.remove_entries(id, result.session_id.as_ref())?;
        cleaned.into_iter().fold(written, IoResult::and)
    }
}

/// A recipe name to build a status from when even the request cannot be read; `finalize` overwrites
/// it with what the result says.
fn unreadable_recipe(result: &ResultFile) -> Name {
    result
        .recipe
        .clone()
        .unwrap_or_else(|| crate::task::session_of(result.task_id))
}
