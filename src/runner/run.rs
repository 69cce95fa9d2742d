//! The steps of a task in a runner: take slots and the session lock, lock the task, read it, execute it.
//!
//! Does not run the attempt (`execute.rs`). Invariant: nothing runs unless the lock is held, and the lock
//! is held until the result is on the disk.

use super::control::ControlError;
use super::state::{Runner, Work};
use crate::config::Launcher;
use crate::ending::{self, finish_cancelled, unstarted};
use crate::ready::{MayRun, take_guards};
use crate::recipe::{FindError, Recipe};
use crate::spool::{Claim, IoError, PathLeads, ReadError, Spool, TaskDir, TaskLock};
use crate::task::{Answer, Blocker, Condition, ErrorKind, Outcome, Request, TaskId, When, Why};

impl Runner {
    /// Runs orders until the pipe closes or a signal arrives.
    pub fn serve(mut self) -> Result<(), ControlError> {
        while let Some(id) = self.control.next_task()? {
            let leads = self.spool.path_leads();
            if leads != PathLeads::Here {
                self.control
                    .answer(&Answer::Retry(When::Soon, Why::NoStarts))?;
                if leads == PathLeads::Elsewhere {
                    break;
                }
                continue;
            }
            if let Err(error) = self.spool.reload() {
                tracing::warn!("the old settings stay in effect: {error}");
            }
            let ran = match self.spool.settings().launcher {
                Launcher::Local => self.run_task(id),
                launcher @ (Launcher::Systemd | Launcher::SystemdUser) => {
                    self.run_as_unit(id, launcher)
                }
            };
            let answer = match ran {
                Ok(answer) => answer,
                Err(error) => {
                    // A full disk refuses every waiting task at every try, so the message is limited.
                    if self.log.allows("tasks that the disk refused") {
                        tracing::warn!(task = %id, "{error}");
                    }
                    Answer::Retry(When::Soon, Why::Disk)
                }
            };
            self.control.answer(&answer)?;
        }
        self.log.close();
        Ok(())
    }

    /// Runs one task and returns its outcome. For launchers that start a runner for each task.
    pub fn once(mut self, id: TaskId) -> Result<Answer, IoError> {
        self.is_for_one = true;
        if !self.spool.is_reconciled()? {
            // No watcher has done this since the boot, and the order of a session depends on it.
            for id in self.spool.unindexed_ids()? {
                if let Err(error) = self.spool.reconcile_entry(id) {
                    tracing::warn!(task = %id, "{error}");
                }
            }
            self.spool.record_reconciled()?;
        }
        if let Err(error) = self.spool.reload() {
            tracing::warn!("the old settings stay in effect: {error}");
        }
        self.run_task(id)
    }

    /// Does the next step of this task and returns the outcome. An error means that an I/O error occurred
    /// before anything was started: the task is unchanged.
    fn run_task(&mut self, id: TaskId) -> Result<Answer, IoError> {
        match self.try_task(id) {
            // The task holds a file of the wrong type, or one that cannot be read. Trying again does not
            // fix that.
            Err(error)
                if error.is_unusable() && error.path.starts_with(self.spool.task_path(id)) =>
            {
                match self.spool.task(id) {
                    Ok(Some(task)) => set_aside(&self.spool, task, &ReadError::of(error)),
                    Ok(None) | Err(_) => Ok(Answer::Blocked(Blocker::Files)),
                }
            }
            answer => answer,
        }
    }

    fn try_task(&mut self, id: TaskId) -> Result<Answer, IoError> {
        match take_guards(&self.spool, id)? {
            MayRun::Over(answer) => Ok(answer),
            MayRun::Unreadable(task, error) => set_aside(&self.spool, task, &error),
            MayRun::NothingToStart(task) => self.lock_and_run(task, None),
            MayRun::Ours {
                task,
                request,
                recipe,
                held: _held,
            } => self.lock_and_run(task, Some((request, recipe))),
        }
    }

    /// Like `run_task`, but starts the recipe in a unit.
    fn run_as_unit(&mut self, id: TaskId, launcher: Launcher) -> Result<Answer, IoError> {
        let (task, request, recipe, held) = match take_guards(&self.spool, id)? {
            MayRun::Over(answer) => return Ok(answer),
            MayRun::Unreadable(task, error) => return set_aside(&self.spool, task, &error),
            MayRun::NothingToStart(task) => return self.lock_and_run(task, None),
            MayRun::Ours {
                task,
                request,
                recipe,
                held,
            } => (task, request, recipe, held),
        };
        let limits = match &recipe {
            Ok(recipe) => recipe.manifest.limits,
            // Nothing will be started, so no unit is needed.
            Err(_) => return self.lock_and_run(task, Some((request, recipe))),
        };
        let is_started = task.last_attempt()? > 0;
        if matches!(task.lock(&self.spool)?, Claim::Busy(_)) {
            return Ok(Answer::held(is_started));
        }
        // The runner in the unit takes all of this again.
        drop(held);
        self.units
            .run(&self.spool, id, limits, launcher, &mut self.control)
    }

    /// Locks the task and does what it needs. Without a `read` request only two steps are possible:
    /// finalize a result, or finish a cancelled task.
    fn lock_and_run(
        &mut self,
        task: TaskDir,
        read: Option<(Request, Result<Recipe, FindError>)>,
    ) -> Result<Answer, IoError> {
        let id = task.id();
        let lock = match task.lock(&self.spool)? {
            Claim::Locked(lock) => lock,
            Claim::Busy(task) => {
                return Ok(Answer::held(task.last_attempt()? > 0));
            }
            Claim::Gone => {
                self.spool.check_open_entry(id)?;
                return Ok(Answer::Finished(None));
            }
        };
        if lock.task().has_result()? {
            return finalize_finished(&self.spool, &lock);
        }
        if lock.task().cancel_requested()? {
            let result = finish_cancelled(&self.spool, &lock, &|| true)?;
            let session = result.and_then(|result| result.session_id);
            return Ok(Answer::Finished(session));
        }
        let may_start = self.may_start()?;
        // The request was not read because there was a marker or a result, which is gone now. Read the
        // task again.
        let Some((request, recipe)) = read.filter(|_| may_start) else {
            let why = if may_start {
                Why::Changed
            } else {
                Why::NoStarts
            };
            return Ok(Answer::retry(lock.task().last_attempt()? > 0, why));
        };
        self.run_locked(Work {
            lock,
            request,
            recipe,
        })
    }

    /// Ends what earlier attempts left, and starts the next attempt.
    fn run_locked(&mut self, work: Work) -> Result<Answer, IoError> {
        let number = match self.recover_lost(&work)? {
            Some(number) => number,
            None => return Ok(Answer::Finished(work.request.session_id)),
        };
        // Checked again, because a recovery may have taken long.
        if !self.may_start()? {
            return Ok(Answer::retry(number > 1, Why::NoStarts));
        }
        match &work.recipe {
            Err(error) => {
                let outcome = Outcome::failed(ErrorKind::Recipe, error.to_string());
                let id = work.lock.task().id();
                let result = unstarted(id, Some(&work.request), outcome);
                ending::finish(&self.spool, &work.lock, None, None, result, None);
                if let Some(session) = &work.request.session_id {
                    // An attempt that was not started may have left the session's folder empty.
                    self.spool.remove_empty_session(session);
                }
                Ok(Answer::Finished(work.request.session_id))
            }
            Ok(recipe) => {
                let recipe = recipe.clone();
                self.execute(&work, &recipe, number)
            }
        }
    }
}

fn finalize_finished(spool: &Spool, lock: &TaskLock) -> Result<Answer, IoError> {
    match lock.task().result() {
        Ok(Some(result)) => {
            lock.finalize(spool, &result, None)?;
            Ok(Answer::Finished(result.session_id))
        }
        // Damaged or of a newer version: it is kept unchanged, every reader reports it, and it is offered
        // again slowly.
        Ok(None) | Err(_) => Ok(Answer::Blocked(Blocker::Files)),
    }
}

/// Keeps a task whose request cannot be read, and records the condition in its status.
fn set_aside(spool: &Spool, task: TaskDir, error: &ReadError) -> Result<Answer, IoError> {
    let condition = match error {
        ReadError::Newer { .. } => Condition::Newer,
        ReadError::Damaged { .. } => Condition::Damaged,
        ReadError::Io(_) => return Ok(Answer::Retry(When::Soon, Why::Disk)),
    };
    let id = task.id();
    let lock = match task.lock(spool) {
        Ok(Claim::Locked(lock)) => lock,
        // It was removed, because it was never accepted.
        Ok(Claim::Gone) if spool.task(id)?.is_none() => {
            spool.check_open_entry(id)?;
            return Ok(Answer::Finished(None));
        }
        Ok(Claim::Gone | Claim::Busy(_)) | Err(_) => return Ok(Answer::Blocked(Blocker::Files)),
    };
    // If the status cannot be written, every reader still derives the condition.
    if let Ok(mut view) = lock.task().view()
        && !view.status.status.is_terminal()
        && view.status.condition != Some(condition)
    {
        // Reported once, although the task is checked again and again.
        tracing::warn!(task = %id, "left as it is: {error}");
        view.status.condition = Some(condition);
        lock.write_status(&view.status)?;
    }
    Ok(Answer::Blocked(Blocker::Files))
}
