//! Clearing: finished tasks are removed because a person asks for it.
//!
//! Not the sweeper: neither retention settings nor its clock check apply. Plans first, so that a caller can show
//! exactly what would be done. Invariant: one task that cannot be removed keeps nobody from the rest.

use std::time::{Duration, Instant};

use super::cancel::cancel_task;
use super::cancel_answer::CancelError;
use super::open::Client;
use super::stop::Stop;
use crate::clock;
use crate::spool::{Cleared, Clearing, IoError, Spool};
use crate::task::{Event, Happened, Status, StatusFile, TaskId, Timestamp};

/// Whoever finished a task holds it for a moment after its result stands; `wait` has returned by
/// then, and a person who clears next means that task too.
const FINALIZING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Which tasks are cleared.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClearOptions {
    /// Those that are not over too: they are cancelled first.
    pub all: bool,
    /// Only those that ended at least so long ago.
    pub older_than: Option<Duration>,
    /// Only those of this status.
    pub status: Option<Status>,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct ClearPlan {
    /// Tasks that are cancelled and then removed.
    pub cancel: Vec<TaskId>,
    /// Finished tasks that are removed.
    pub remove: Vec<TaskId>,
    /// Folders of tasks that are gone, as far as a reader can tell.
    pub empty_folders: Vec<TaskId>,
}

/// What was done.
#[derive(Debug, Default)]
pub struct ClearReport {
    /// Tasks that are removed.
    pub cleared: Vec<TaskId>,
    /// Tasks that stay.
    pub skipped: Vec<TaskId>,
    /// Of these, how many are held by somebody or kept.
    pub held: usize,
    /// The room of what was removed.
    pub freed_bytes: u64,
    /// What stays in the trash of tasks that are removed.
    pub left: Vec<IoError>,
    /// Tasks that this user may not remove; they are among the skipped.
    pub denied: Vec<IoError>,
    /// Why tasks could not be cancelled or removed.
    pub failed: Vec<ClearError>,
}

/// Why tasks are not cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// This user is not the spool's owner.
    #[error("only the spool's owner removes tasks")]
    NotOwner,
    /// Tasks that are not over are meant, without [`ClearOptions::all`].
    #[error("only finished tasks are cleared")]
    OnlyFinished,
    /// A task cannot be cancelled, or the caller gave up meanwhile.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// Removes the tasks that the options name.
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

    /// Whether this user may clear.
    ///
    /// # Errors
    /// [`ClearError::NotOwner`].
    pub fn check_clear(&self) -> Result<(), ClearError> {
        match self.spool().is_owner() {
            true => Ok(()),
            false => Err(ClearError::NotOwner),
        }
    }

    /// What would be done, without doing it.
    ///
    /// # Errors
    /// [`ClearError::OnlyFinished`], or when tasks cannot be read.
    pub fn plan_clear(&self, options: &ClearOptions) -> Result<ClearPlan, ClearError> {
        let now = clock::wall();
        let mut plan = ClearPlan::default();
        for id in self.spool().task_ids()? {
            let Some(view) = self.spool().glance(id)? else {
                plan.empty_folders.push(id);
                continue;
            };
            let status = view.status.status;
            if options.status.is_some_and(|wanted| wanted != status) {
                continue;
            }
            if !status.is_terminal() {
                if options.all {
                    plan.cancel.push(id);
                }
                continue;
            }
            if is_old_enough(&view.status, options.older_than, now) {
                plan.remove.push(id);
            }
        }
        let is_open = |status: Status| !status.is_terminal();
        if options.status.is_some_and(is_open) && !options.all {
            return Err(ClearError::OnlyFinished);
        }
        Ok(plan)
    }

    /// Does what was planned, as far as it still can be done.
    ///
    /// # Errors
    /// [`ClearError::Cancel`] where the caller gave up while tasks were cancelled; nothing is removed then. Or when
    /// the spool cannot be used.
    pub fn clear_planned(
        &self,
        plan: ClearPlan,
        stop: &dyn Stop,
    ) -> Result<ClearReport, ClearError> {
        let mut report = ClearReport::default();
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
                report.failed.push(error.into());
            }
        }
        Ok(report)
    }

    /// Cancels all of these; those that are over. One that cannot be cancelled keeps nobody from the rest.
    fn cancel_all(
        &self,
        ids: &[TaskId],
        stop: &dyn Stop,
        report: &mut ClearReport,
    ) -> Result<Vec<TaskId>, ClearError> {
        let mut over = Vec::new();
        // All markers first, then the waiting: the graces run side by side.
        for id in ids {
            if let Ok(Some(task)) = self.spool().task(*id) {
                // What is refused here is refused below as well, and said there.
                let _ = task.request_cancel();
            }
        }
        for id in ids {
            match cancel_task(self.spool(), *id, true, stop) {
                Ok(_) => over.push(*id),
                // Somebody else removed it: that was to be done as well.
                Err(CancelError::Removed(_)) => over.push(*id),
                Err(error @ CancelError::Interrupted(_)) => return Err(error.into()),
                Err(error) => {
                    report.failed.push(error.into());
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
                report.failed.push(error.into());
            }
        }
    }
}

fn remove(clearing: &Clearing<'_>, id: TaskId, patience: Instant) -> Result<Cleared, IoError> {
    loop {
        match clearing.remove(id)? {
            Cleared::Held | Cleared::Kept if Instant::now() < patience => std::thread::sleep(LOOK),
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
