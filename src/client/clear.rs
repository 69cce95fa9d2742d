//! Clearing: removing finished tasks because a user asks for it.
//!
//! Not the sweeper: the retention settings and its clock check do not apply. The work is planned first, so
//! that a caller can show exactly what would be done. Invariant: a task that cannot be removed does not stop
//! the removal of the others.

use std::time::{Duration, Instant};

use super::cancel::cancel_task;
use super::cancel_answer::CancelError;
use super::lookup::LookupError;
use super::open::Client;
use super::select::{Filter, Selection};
use super::stop::Stop;
use crate::clock;
use crate::spool::{Cleared, Clearing, IoError, Spool};
use crate::task::{Event, Happened, StatusFile, TaskId, Timestamp};

/// How long to wait for a runner to release a finished task. `wait` returns as soon as there is a result, and
/// a user who then clears the spool expects that this task is removed too.
const FINALIZING: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Which tasks to clear.
#[derive(Clone, Debug)]
pub struct ClearOptions {
    /// The tasks. Of the matching ones only those that have ended.
    pub selection: Selection,
    /// Also pending and running tasks: they are cancelled first.
    pub all: bool,
    /// Only tasks that ended at least this long ago.
    pub older_than: Option<Duration>,
}

impl Default for ClearOptions {
    fn default() -> ClearOptions {
        ClearOptions {
            selection: Selection::Matching(Filter::default()),
            all: false,
            older_than: None,
        }
    }
}

/// What would be done.
#[derive(Debug, Default)]
pub struct ClearPlan {
    /// Tasks to cancel and then remove.
    pub cancel: Vec<TaskId>,
    /// Finished tasks to remove.
    pub remove: Vec<TaskId>,
    /// Empty task folders to remove.
    pub empty_folders: Vec<TaskId>,
    /// Named tasks that are not removed, with the text that named each.
    pub failed: Vec<(String, ClearError)>,
}

/// What was done.
#[derive(Debug, Default)]
pub struct ClearReport {
    /// The removed tasks.
    pub cleared: Vec<TaskId>,
    /// The tasks that were kept.
    pub skipped: Vec<TaskId>,
    /// The number of kept tasks that are locked or held open.
    pub held: usize,
    /// The space that was freed, in bytes.
    pub freed_bytes: u64,
    /// Errors for parts of removed tasks that stay in the trash.
    pub left: Vec<IoError>,
    /// Errors for tasks that this user may not remove. These tasks are in `skipped`.
    pub denied: Vec<IoError>,
    /// Errors for tasks that could not be cancelled or removed, with the id or the text that named each.
    pub failed: Vec<(String, ClearError)>,
}

/// Why tasks were not cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// This user is not the spool's owner.
    #[error("only the spool's owner may remove tasks")]
    NotOwner,
    /// The status selects pending or running tasks, without [`ClearOptions::all`].
    #[error("only finished tasks can be cleared")]
    OnlyFinished,
    /// A named task has not ended.
    #[error("the task {0} has not ended")]
    NotEnded(TaskId),
    /// A named task was not found.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A task could not be cancelled, or the caller stopped the call.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// Removes the tasks that the options select.
    ///
    /// # Errors
    /// Those of [`Client::check_clear`], [`Client::plan_clear`] and [`Client::clear_planned`].
    pub fn clear(
        &self,
        options: &ClearOptions,
        stop: &dyn Stop,
    ) -> Result<ClearReport, ClearError> {
        self.check_clear()?;
        self.clear_planned(self.plan_clear(options)?, stop)
    }

    /// Checks that this user may clear tasks.
    ///
    /// # Errors
    /// [`ClearError::NotOwner`].
    pub fn check_clear(&self) -> Result<(), ClearError> {
        match self.spool().is_owner() {
            true => Ok(()),
            false => Err(ClearError::NotOwner),
        }
    }

    /// Plans what to do, and changes nothing.
    ///
    /// # Errors
    /// [`ClearError::OnlyFinished`], or the tasks cannot be read.
    pub fn plan_clear(&self, options: &ClearOptions) -> Result<ClearPlan, ClearError> {
        let mut plan = ClearPlan::default();
        match &options.selection {
            Selection::Named(texts) => self.plan_named(texts, options, &mut plan),
            Selection::Matching(filter) => self.plan_matching(filter, options, &mut plan)?,
        }
        Ok(plan)
    }

    fn plan_named(&self, texts: &[String], options: &ClearOptions, plan: &mut ClearPlan) {
        let now = clock::wall();
        for text in texts {
            let view = self.folder_of(text).and_then(|task| Ok(task.view()?));
            let status = match view {
                Ok(view) => view.status,
                Err(error) => {
                    plan.failed.push((text.clone(), error.into()));
                    continue;
                }
            };
            let id = status.task_id;
            if plan.remove.contains(&id) || plan.cancel.contains(&id) {
                continue;
            }
            match (status.status.is_terminal(), options.all) {
                (true, _) if is_old_enough(&status, options.older_than, now) => {
                    plan.remove.push(id)
                }
                (true, _) => {}
                (false, true) => plan.cancel.push(id),
                (false, false) => plan.failed.push((text.clone(), ClearError::NotEnded(id))),
            }
        }
    }

    fn plan_matching(
        &self,
        filter: &Filter,
        options: &ClearOptions,
        plan: &mut ClearPlan,
    ) -> Result<(), ClearError> {
        let now = clock::wall();
        for id in self.spool().task_ids()? {
            let Some(view) = self.spool().glance(id)? else {
                if filter.is_empty() {
                    plan.empty_folders.push(id);
                }
                continue;
            };
            if !filter.matches(&view.status) {
                continue;
            }
            if !view.status.status.is_terminal() {
                if options.all {
                    plan.cancel.push(id);
                }
                continue;
            }
            if is_old_enough(&view.status, options.older_than, now) {
                plan.remove.push(id);
            }
        }
        match filter.is_open() && !options.all {
            true => Err(ClearError::OnlyFinished),
            false => Ok(()),
        }
    }

    /// Carries out a plan, as far as it still applies.
    ///
    /// # Errors
    /// [`ClearError::Cancel`] if the caller stopped the call while tasks were cancelled; then nothing was
    /// removed. [`ClearError::Io`] if the spool cannot be used.
    pub fn clear_planned(
        &self,
        plan: ClearPlan,
        stop: &dyn Stop,
    ) -> Result<ClearReport, ClearError> {
        let mut report = ClearReport {
            failed: plan.failed,
            ..ClearReport::default()
        };
        let cancelled = self.cancel_all(&plan.cancel, stop, &mut report)?;
        let patience = Instant::now() + FINALIZING;
        let clearing = self.spool().clearing()?;
        for id in cancelled.into_iter().chain(plan.remove) {
            note(
                self.spool(),
                &mut report,
                id,
                remove(&clearing, id, patience),
            );
        }
        for id in plan.empty_folders {
            if let Err(error) = clearing.remove_empty_folder(id) {
                report.failed.push((id.to_string(), error.into()));
            }
        }
        Ok(report)
    }

    /// Cancels all of these tasks. Returns the ones that have ended. An error of one task does not stop the
    /// others.
    fn cancel_all(
        &self,
        ids: &[TaskId],
        stop: &dyn Stop,
        report: &mut ClearReport,
    ) -> Result<Vec<TaskId>, ClearError> {
        let mut over = Vec::new();
        // Write all markers before waiting, so that the grace periods run at the same time.
        for id in ids {
            if let Ok(Some(task)) = self.spool().task(*id) {
                // An error here occurs again below, and is reported there.
                let _ = task.request_cancel();
            }
        }
        for id in ids {
            match cancel_task(self.spool(), *id, true, stop) {
                Ok(_) => over.push(*id),
                // Another process removed the task, which was the goal.
                Err(CancelError::Removed(_)) => over.push(*id),
                Err(error @ CancelError::Interrupted(_)) => return Err(error.into()),
                Err(error) => {
                    report.failed.push((id.to_string(), error.into()));
                    report.skipped.push(*id);
                }
            }
        }
        Ok(over)
    }
}

fn note(spool: &Spool, report: &mut ClearReport, id: TaskId, removed: Result<Cleared, IoError>) {
    match removed {
        Ok(Cleared::Removed(removal)) => {
            let (recipe, session) = (removal.recipe.as_ref(), removal.session.as_ref());
            spool.emit(Event::of(Happened::Cleared, id, recipe, session));
            report.cleared.push(id);
            report.freed_bytes += removal.freed_bytes;
            report.left.extend(removal.left);
        }
        Ok(Cleared::Held | Cleared::Kept) => {
            report.skipped.push(id);
            report.held += 1;
        }
        Ok(Cleared::Gone) => {}
        Err(error) => {
            report.skipped.push(id);
            if error.is_denied() {
                report.denied.push(error);
            } else {
                report.failed.push((id.to_string(), error.into()));
            }
        }
    }
}

fn remove(clearing: &Clearing<'_>, id: TaskId, patience: Instant) -> Result<Cleared, IoError> {
    loop {
        match clearing.remove(id)? {
            Cleared::Held | Cleared::Kept if Instant::now() < patience => {
                std::thread::sleep(RETRY_INTERVAL)
            }
            cleared => return Ok(cleared),
        }
    }
}

fn is_old_enough(status: &StatusFile, older_than: Option<Duration>, now: Timestamp) -> bool {
    let Some(least) = older_than else { return true };
    status
        .completed_at
        .is_some_and(|at| now.seconds_since(at) >= least.as_secs_f64())
}
