//! The state of a task, derived from its files by a reader that writes nothing.
//!
//! Not how the files are written (`status.rs`, `result.rs`). Precedence: `result.json`, the lock,
//! `attempts/`, `status.json`. Invariant: `running` is reported only with a held lock and a started attempt,
//! and a file that cannot be read is reported as `damaged`.

use super::lock::Holder;
use super::run_record::RunFile;
use super::status::pending_status;
use super::store::{ReadError, TaskDir};
use crate::clock;
use crate::spool::disk::IoResult;
use crate::spool::open::Spool;
use crate::task::{Condition, Name, Request, ResultFile, Status, StatusFile, TaskId, session_of};

/// A task as a reader sees it.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// The status, every field derived or checked.
    pub status: StatusFile,
    /// The result, if the task is finished and the result can be read.
    pub result: Option<ResultFile>,
}

impl TaskDir {
    /// Derives the state now. A task that never started costs one read and one `stat`. The lock is tested
    /// only if there is an attempt, because a task may be running before its status file shows that.
    pub fn view(&self) -> IoResult<TaskView> {
        if let Some(view) = self.finished_view()? {
            return Ok(view);
        }
        let file = self.status_file();
        let mut status = file.unwrap_or_else(|| self.status_of_request());
        let last_status = status.status;
        status.status = Status::Pending;
        // A recipe may have removed the folder of its attempt.
        if status.attempt == 0 && !self.may_have_begun()? {
            return Ok(TaskView {
                status,
                result: None,
            });
        }
        let attempt = self.last_attempt()?.max(status.attempt);
        let holder = self.holder()?;
        let is_held = match holder {
            Holder::Somebody => true,
            Holder::Nobody => attempt > 0 && self.is_run_by_another()?,
            // The holder cannot be determined, so the status file counts.
            Holder::Unknown => last_status == Status::Running,
        };
        // It may have finished since the first check: the result is written before the lock is released.
        if !is_held && let Some(view) = self.finished_view()? {
            return Ok(view);
        }
        if attempt == 0 {
            return Ok(TaskView {
                status,
                result: None,
            });
        }
        let is_reported = status.attempt == attempt;
        status.attempt = attempt;
        if is_held {
            status.status = Status::Running;
            if !is_reported || status.started_at.is_none() {
                status.started_at = self.run_of(attempt)?.map(|run| run.started_at);
            }
            if let Some(started_at) = status.started_at {
                let seconds = clock::wall().seconds_since(started_at);
                status.duration_seconds = Some(seconds.max(0.0));
            }
        } else if holder == Holder::Nobody
            && (status.condition.is_none() || status.condition == Some(Condition::Stuck))
        {
            let run = self.run_of(attempt)?;
            let is_over = run.is_some_and(|run| run.lost_at.is_some());
            status.condition = Some(if is_over {
                Condition::Retrying
            } else {
                Condition::Interrupted
            });
        }
        Ok(TaskView {
            status,
            result: None,
        })
    }

    fn run_of(&self, attempt: u32) -> IoResult<Option<RunFile>> {
        Ok(self.attempt(attempt)?.and_then(|attempt| attempt.run()))
    }

    fn finished_view(&self) -> IoResult<Option<TaskView>> {
        let (result, condition) = match self.result() {
            Ok(None) => return Ok(None),
            Ok(Some(result)) => (Some(result), None),
            Err(ReadError::Damaged { .. }) => (None, Some(Condition::Damaged)),
            Err(ReadError::Newer { .. }) => (None, Some(Condition::Newer)),
            Err(ReadError::Io(error)) => return Err(error),
        };
        let mut status = self
            .status_file()
            .unwrap_or_else(|| self.status_of_request());
        status.condition = condition;
        let Some(result) = result else {
            // There is a result that cannot be read, so the outcome is unknown and nothing is running.
            if !status.status.is_terminal() {
                status.status = Status::Pending;
            }
            return Ok(Some(TaskView {
                status,
                result: None,
            }));
        };
        status.ended_by(&result);
        Ok(Some(TaskView {
            status,
            result: Some(result),
        }))
    }

    /// A status derived from the request, used if the status file cannot be read.
    fn status_of_request(&self) -> StatusFile {
        match self.request() {
            Ok(request) => pending_status(self.id, &request),
            Err(ReadError::Newer { .. }) => unreadable_status(self.id, Some(Condition::Newer)),
            Err(ReadError::Damaged { .. } | ReadError::Io(_)) => {
                // Until the task's lock is taken, it is not known whether the task was accepted at all.
                let is_decided = !self.has_marker().unwrap_or(false);
                unreadable_status(self.id, is_decided.then_some(Condition::Damaged))
            }
        }
    }
}

impl Spool {
    /// A view without the result, for counting and filtering. Reads one small file for a finished task.
    /// `None` if the task was removed.
    pub fn glance(&self, id: TaskId) -> IoResult<Option<TaskView>> {
        shown(id, self.glance_at(id))
    }

    fn glance_at(&self, id: TaskId) -> IoResult<Option<TaskView>> {
        let Some(task) = self.task(id)? else {
            return Ok(None);
        };
        // A terminal status is written only after the result.
        if let Some(status) = task.status_file()
            && status.status.is_terminal()
            && task.has_result_file()?
        {
            return Ok(Some(TaskView {
                status,
                result: None,
            }));
        }
        task.view().map(Some)
    }

    /// Views of these tasks; removed tasks are left out.
    pub fn views(&self, ids: &[TaskId]) -> IoResult<Vec<TaskView>> {
        let mut views = Vec::with_capacity(ids.len());
        for id in ids {
            let viewed = self
                .task(*id)
                .and_then(|task| task.map(|task| task.view()).transpose());
            views.extend(shown(*id, viewed)?);
        }
        Ok(views)
    }
}

/// Turns a task that cannot be read into a `damaged` view, so that it does not hide all other tasks.
pub(in crate::spool) fn shown(
    id: TaskId,
    viewed: IoResult<Option<TaskView>>,
) -> IoResult<Option<TaskView>> {
    match viewed {
        Err(error) if error.is_unusable() => Ok(Some(TaskView {
            status: unreadable_status(id, Some(Condition::Damaged)),
            result: None,
        })),
        viewed => viewed,
    }
}

/// A status for a task of which no file can be read. The name of the task's own session serves as a
/// placeholder recipe, which is then removed.
fn unreadable_status(id: TaskId, condition: Option<Condition>) -> StatusFile {
    let placeholder: Name = session_of(id);
    let mut status = pending_status(id, &Request::new(placeholder));
    status.recipe = None;
    status.condition = condition;
    status
}
