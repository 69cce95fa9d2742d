//! The story of a task in a runner: slots and turn, lock, look, execute.
//!
//! Not the attempt itself (`execute.rs`). Invariant: nothing runs without the lock held, and the lock is kept until the
//! result is on the disk.

use super::control::ControlError;
use super::state::{Runner, Work};
use crate::config::Launcher;
use crate::ending::{self, finish_cancelled, unstarted};
use crate::ready::{MayRun, take_guards};
use crate::recipe::{FindError, Recipe};
use crate::spool::{Claim, IoError, PathLeads, ReadError, Spool, TaskDir, TaskLock};
use crate::task::{Answer, Blocker, Condition, ErrorKind, Outcome, Request, TaskId, When, Why};

impl Runner {
    /// Serves orders until the pipe closes or somebody asks it to stop.
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
                tracing::warn!("the settings stay as they were: {error}");
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
                    // A full disk refuses every task that waits, again and again.
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

    /// Runs one task and answers what became of it: for launchers that start a runner per task.
    pub fn once(mut self, id: TaskId) -> Result<Answer, IoError> {
        self.is_for_one = true;
        if !self.spool.is_reconciled()? {
            // No watcher has done it since the boot, and a session's turn hangs on it.
            for id in self.spool.unindexed_ids()? {
                if let Err(error) = self.spool.reconcile_entry(id) {
                    tracing::warn!(task = %id, "{error}");
                }
            }
            self.spool.record_reconciled()?;
        }
        if let Err(error) = self.spool.reload() {
            tracing::warn!("the settings stay as they were: {error}");
        }
        self.run_task(id)
    }

    /// Does what this task needs now, and says what became of it. An error means that the disk
    /// refused before anything was started: the task is untouched.
    fn run_task(&mut self, id: TaskId) -> Result<Answer, IoError> {
        match self.try_task(id) {
            // Something else stands in the task than what should, or shut: trying again mends nothing.
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
            MayRun::NothingToStart(task) => self.claim_and(task, None),
            MayRun::Ours {
                task,
                request,
                recipe,
                held: _held,
            } => self.claim_and(task, Some((request, recipe))),
        }
    }

    /// Like `run_task`, but what must be started is started as a unit.
    fn run_as_unit(&mut self, id: TaskId, launcher: Launcher) -> Result<Answer, IoError> {
        let (task, request, recipe, held) = match take_guards(&self.spool, id)? {
            MayRun::Over(answer) => return Ok(answer),
            MayRun::Unreadable(task, error) => return set_aside(&self.spool, task, &error),
            MayRun::NothingToStart(task) => return self.claim_and(task, None),
            MayRun::Ours {
                task,
                request,
                recipe,
                held,
            } => (task, request, recipe, held),
        };
        let limits = match &recipe {
            Ok(recipe) => recipe.manifest.limits,
            // Nothing will be started, so no unit is needed to say so.
            Err(_) => return self.claim_and(task, Some((request, recipe))),
        };
        let is_started = task.last_attempt()? > 0;
        if matches!(task.lock(&self.spool)?, Claim::Busy(_)) {
            return Ok(Answer::held(is_started));
        }
        // The unit's own runner takes all of this again.
        drop(held);
        self.units
            .run(&self.spool, id, limits, launcher, &mut self.control)
    }

    /// Takes the lock and goes on with what stands there. Without a request only what needs none
    /// is done: finalize a result, honour a cancellation.
    fn claim_and(
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
        // Nothing was read where a marker or a result brought us here that is gone again: look anew.
        let Some((request, recipe)) = read.filter(|_| may_start) else {
            let why = if may_start {
                Why::Changed
            } else {
                Why::NoStarts
            };
            return Ok(Answer::retry(lock.task().last_attempt()? > 0, why));
        };
        self.run_claimed(Work {
            lock,
            request,
            recipe,
        })
    }

    /// Ends what earlier attempts left, and makes the next one.
    fn run_claimed(&mut self, work: Work) -> Result<Answer, IoError> {
        let number = match self.recover_lost(&work)? {
            Some(number) => number,
            None => return Ok(Answer::Finished(work.request.session_id)),
        };
        // Once more, because a recovery may have taken long.
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
                    // Of an attempt that came to nothing its folder may be left.
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
        // Damaged or newer: kept as it is, reported by every reader, offered again slowly.
        Ok(None) | Err(_) => Ok(Answer::Blocked(Blocker::Files)),
    }
}

/// A task whose request cannot be read is kept, marked and left alone.
fn set_aside(spool: &Spool, task: TaskDir, error: &ReadError) -> Result<Answer, IoError> {
    let condition = match error {
        ReadError::Newer { .. } => Condition::Newer,
        ReadError::Damaged { .. } => Condition::Damaged,
        ReadError::Io(_) => return Ok(Answer::Retry(When::Soon, Why::Disk)),
    };
    // Where even that is refused, every reader sees it as it is.
    if let Ok(Claim::Locked(lock)) = task.lock(spool)
        && let Ok(mut view) = lock.task().view()
        && !view.status.status.is_terminal()
        && view.status.condition != Some(condition)
    {
        // Once, although it is looked at again and again.
        tracing::warn!(task = %lock.task().id(), "left as it is: {error}");
        view.status.condition = Some(condition);
        lock.write_status(&view.status)?;
    }
    Ok(Answer::Blocked(Blocker::Files))
}
