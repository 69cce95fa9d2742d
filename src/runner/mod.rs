//! The runner: holds one task's lock and supervises one attempt of it.
//!
//! Not the one who chooses what runs (`watcher/`). `Runner::run_task` tells the whole story of a
//! task: take a slot, take the turn, take the lock, look, execute, finish. Invariants: nothing runs
//! without the lock held and the start recorded; the lock is kept until the result is on the disk;
//! before the result nothing of the attempt is alive.

mod command;
mod control;
mod finish;
mod group;
mod growth;
mod lost;
mod memory;
mod nimble;
mod progress;
mod recover;
mod search;
mod spawn;
mod start;
mod supervise;
mod turn;
mod unit;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use control::{Control, ControlError};
pub use finish::finish_cancelled;

use crate::clock::{self, BootId};
use crate::config::Launcher;
use crate::log_limit::LogLimit;
use crate::proc::{self, Cgroup, ProcessKey, Usage};
use crate::recipe::{FindError, OnLost, Recipe, RecipePath, Trust};
use crate::spool::{
    Attempt, Claim, Files, IoError, PathLeads, ProgressReader, ReadError, ReservedResult, RunFile,
    SessionState, Spool, TaskDir, TaskLock,
};
use crate::task::{
    Answer, Condition, ErrorKind, Event, FORMAT_VERSION, Happened, Json, Metrics, Name, Outcome,
    Request, ResultFile, Status, TaskId, Timestamp,
};
use finish::{mark_of, unstarted, with_result};
use start::StartError;
use supervise::{Ending, Supervised};
use turn::Turn;

/// What a runner needs to know besides the spool.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The environment recipes begin with, before anything of the task's.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder of the `agentspool` program, found last on a recipe's PATH.
    pub tools: Option<PathBuf>,
}

/// One runner process.
pub struct Runner<'a> {
    spool: &'a mut Spool,
    surroundings: Surroundings,
    control: Control,
    own: ProcessKey,
    boot: BootId,
    /// Whether this process is there for one task, and may have a cgroup with it alone.
    is_for_one: bool,
    /// The bounds of what tasks write.
    growth: growth::Growth,
    /// What systemd last refused, so that it is told once.
    unit_failure: Option<String>,
    /// Signals that this process was started with ignored, and that no recipe should ignore for that.
    ignored: Vec<i32>,
    /// Where recipes are born; looked for at the first of them.
    cgroup: Option<Option<Cgroup>>,
    log: LogLimit,
}

/// The claim on a task, with what was read of it.
struct Work {
    lock: TaskLock,
    request: Request,
    recipe: Result<Recipe, FindError>,
}

/// An attempt that is about to run.
struct Prepared {
    attempt: Attempt,
    files: Files,
    reserve: ReservedResult,
    run: RunFile,
    timeout: Duration,
    state: Option<SessionState>,
    /// The kernel's counter before anything ran.
    oom_kills: Option<u64>,
}

impl<'a> Runner<'a> {
    /// Becomes a runner: a session of its own, and the one that orphans of recipes come back to.
    pub fn new(spool: &'a mut Spool, surroundings: Surroundings, control: Control) -> Runner<'a> {
        // Fails only when this process leads a group already, as under a shell with job control;
        // then it is as far from its starter as it can be.
        let _ = rustix::process::setsid();
        // Any pid turns it on: the attribute belongs to the process, not to that pid.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        nimble::be_nimble();
        // Before there is another thread.
        proc::unblock_signals();
        Runner {
            spool,
            surroundings,
            control,
            own: proc::own_key(),
            boot: BootId::current(),
            is_for_one: false,
            growth: growth::Growth::default(),
            unit_failure: None,
            ignored: spawn::not_reset_anyway(proc::ignored_signals()),
            cgroup: None,
            log: LogLimit::default(),
        }
    }

    /// Serves orders until the pipe closes or somebody asks it to stop.
    pub fn serve(mut self) -> Result<(), ControlError> {
        while let Some(id) = self.control.next_task()? {
            let leads = self.spool.path_leads();
            if leads != PathLeads::Here {
                self.control.answer(&Answer::Taken { started: false })?;
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
                    Answer::Taken { started: false }
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
            for id in self.spool.unhinted_ids()? {
                if let Err(error) = self.spool.reconcile_hint(id) {
                    tracing::warn!(task = %id, "{error}");
                }
            }
            self.spool.mark_reconciled()?;
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
                    Ok(Some(task)) => self.set_aside(task, &ReadError::of(error)),
                    Ok(None) | Err(_) => Ok(Answer::NotYet(None)),
                }
            }
            answer => answer,
        }
    }

    fn try_task(&mut self, id: TaskId) -> Result<Answer, IoError> {
        match self.turn_of(id)? {
            Turn::Over(answer) => Ok(answer),
            Turn::Ours {
                task,
                request,
                recipe,
                held: _held,
            } => self.claim_and(task, Some((request, recipe))),
        }
    }

    fn recipe(&self, name: &Name) -> Result<Recipe, FindError> {
        let path = RecipePath::new(
            self.spool.recipes_path(),
            &self.spool.settings().recipe_path,
            self.spool.settings().praisonai_python.as_deref(),
        );
        let trust = Trust {
            owner: self.spool.owner_or_us(),
            is_shared: self.spool.is_group(),
        };
        path.trusting(trust).find(name)
    }

    /// Takes the lock and goes on with what stands there. Without a request only what needs none
    /// is done: settle a result, honour a cancellation.
    fn claim_and(
        &mut self,
        task: TaskDir,
        read: Option<(Request, Result<Recipe, FindError>)>,
    ) -> Result<Answer, IoError> {
        let id = task.id();
        let lock = match task.lock(self.spool)? {
            Claim::Locked(lock) => lock,
            Claim::Busy(task) => {
                let started = task.last_attempt()? > 0;
                return Ok(Answer::Taken { started });
            }
            Claim::Gone => {
                self.spool.check_open_hint(id)?;
                return Ok(Answer::Finished(None));
            }
        };
        if lock.task().has_result()? {
            return self.settle_finished(&lock);
        }
        if lock.task().cancel_requested()? {
            let result = finish_cancelled(self.spool, &lock, &|| true)?;
            let session = result.and_then(|result| result.session_id);
            return Ok(Answer::Finished(session));
        }
        let may_start = self.may_start()?;
        // Nothing was read where a marker or a result brought us here that is gone again: look anew.
        let Some((request, recipe)) = read.filter(|_| may_start) else {
            let started = lock.task().last_attempt()? > 0;
            return Ok(Answer::Taken { started });
        };
        let work = Work {
            lock,
            request,
            recipe,
        };
        let number = match self.recover_lost(&work)? {
            Some(number) => number,
            None => return Ok(Answer::Finished(work.request.session_id)),
        };
        // Once more, because a recovery may have taken long.
        if !self.may_start()? {
            return Ok(Answer::Taken {
                started: number > 1,
            });
        }
        match &work.recipe {
            Err(error) => {
                let outcome = Outcome::failed(ErrorKind::Recipe, error.to_string());
                self.finish(
                    &work.lock,
                    None,
                    None,
                    unstarted(id, Some(&work.request), outcome),
                    None,
                );
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

    /// Whether an attempt may start: not in a paused spool. Where the spool was moved or removed, or its
    /// path cannot be seen, that leads to no recipe of its own, and no task may fail because of that.
    fn may_start(&self) -> Result<bool, IoError> {
        Ok(!self.spool.is_paused()? && self.spool.is_at_its_path())
    }

    fn settle_finished(&self, lock: &TaskLock) -> Result<Answer, IoError> {
        match lock.task().result() {
            Ok(Some(result)) => {
                lock.settle(self.spool, &result, None)?;
                Ok(Answer::Finished(result.session_id))
            }
            // Damaged or newer: kept as it is, reported by every reader, offered again slowly.
            Ok(None) | Err(_) => Ok(Answer::NotYet(None)),
        }
    }

    /// A task whose request cannot be read is kept, marked and left alone.
    fn set_aside(&self, task: TaskDir, error: &ReadError) -> Result<Answer, IoError> {
        let condition = match error {
            ReadError::Newer { .. } => Condition::Newer,
            ReadError::Damaged { .. } => Condition::Damaged,
            ReadError::Io(_) => return Ok(Answer::Taken { started: false }),
        };
        // Where even that is refused, every reader sees it as it is.
        if let Ok(Claim::Locked(lock)) = task.lock(self.spool)
            && let Ok(mut view) = lock.task().view()
            && !view.status.status.is_terminal()
            && view.status.condition != Some(condition)
        {
            // Once, although it is looked at again and again.
            tracing::warn!(task = %lock.task().id(), "left as it is: {error}");
            view.status.condition = Some(condition);
            lock.write_status(&view.status)?;
        }
        Ok(Answer::NotYet(None))
    }

    /// Deals with the attempts that dead runners left. `None` when the task is finished by that,
    /// else the number of the attempt to make.
    fn recover_lost(&mut self, work: &Work) -> Result<Option<u32>, IoError> {
        let past = lost::recover_all(self.spool, &work.lock, &self.boot, &|| true)?;
        let past = past.unwrap_or_default();
        if past.last == 0 || past.is_dealt_with {
            return Ok(Some(past.last + 1));
        }
        let why = match &past.attempt {
            Some(_) => "its runner died, so how the recipe ended is not known",
            None => "its folder was moved or removed, so how the recipe ended is not known",
        };
        self.after_loss(work, past.last, past.attempt.as_ref(), None, why)
    }

    /// Applies the recipe's `on_lost`. `None` when the task failed by it, else the next number.
    fn after_loss(
        &mut self,
        work: &Work,
        number: u32,
        attempt: Option<&Attempt>,
        reserve: Option<ReservedResult>,
        why: &str,
    ) -> Result<Option<u32>, IoError> {
        let run = attempt.and_then(Attempt::run);
        if let (Some(attempt), Some(mut run)) = (attempt, run.clone()) {
            run.lost_at.get_or_insert_with(clock::wall);
            attempt.write_run(&run)?;
        }
        let id = work.lock.task().id();
        let (recipe, session) = (&work.request.recipe, work.request.session_id.as_ref());
        let emit = |what: Happened| {
            let event = Event::of(what, id, Some(recipe), session).of_attempt(number);
            work.lock.emit(self.spool, event);
        };
        emit(Happened::Lost);
        if let Ok(recipe) = &work.recipe
            && recipe.manifest.on_lost == OnLost::Requeue
            && number < recipe.manifest.max_attempts
        {
            let mut status = work.lock.current_status(&work.request);
            status.status = Status::Pending;
            status.condition = Some(Condition::Retrying);
            status.attempt = number;
            work.lock.write_status(&status)?;
            if let Some(attempt) = attempt {
                work.lock.end_part(attempt)?;
            }
            emit(Happened::Retrying);
            return Ok(Some(number + 1));
        }
        let outcome = Outcome::failed(ErrorKind::Lost, format!("attempt {number} was lost: {why}"));
        let mut result = unstarted(id, Some(&work.request), outcome);
        result.attempt = number;
        result.started_at = run.map(|run| run.started_at);
        self.finish(&work.lock, reserve, attempt, result, None);
        if let Some(session) = &work.request.session_id {
            // Whoever held its state is gone.
            self.spool.remove_empty_session(session);
        }
        Ok(None)
    }

    /// One attempt: prepare, spawn, supervise, finish, release.
    fn execute(&mut self, work: &Work, recipe: &Recipe, number: u32) -> Result<Answer, IoError> {
        let mut prepared = match self.prepare(work, recipe, number) {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing ran: the start record must not say otherwise.
                work.lock.drop_attempt(number)?;
                return Err(error);
            }
        };
        let begun = Instant::now();
        let deadline = begun + prepared.timeout;
        let (leader, early) = match self.start(work, recipe, &mut prepared, deadline) {
            Ok(started) => started,
            Err(error) => return self.not_started(work, prepared, error),
        };
        let supervised = self.supervise(work, &prepared, &leader, deadline, early);
        Ok(self.finish_attempt(work, prepared, supervised, begun))
    }

    /// What a start that came to nothing means.
    fn not_started(
        &mut self,
        work: &Work,
        prepared: Prepared,
        error: StartError,
    ) -> Result<Answer, IoError> {
        let number = prepared.attempt.number();
        let outcome = match error {
            StartError::Passing(error) => {
                work.lock.drop_attempt(number)?;
                return Err(error);
            }
            _ if !self.spool.is_at_its_path() => return self.take_back(work, number),
            StartError::Recipe(why) => Outcome::failed(ErrorKind::Recipe, why),
            StartError::Spawn(why) => Outcome::failed(ErrorKind::Spawn, why),
        };
        Ok(self.finish_unspawned(work, prepared, outcome))
    }

    /// The spool was moved in the moment of a start: nothing ran.
    fn take_back(&self, work: &Work, number: u32) -> Result<Answer, IoError> {
        work.lock.drop_attempt(number)?;
        Ok(Answer::Taken {
            started: number > 1,
        })
    }

    fn prepare(&mut self, work: &Work, recipe: &Recipe, number: u32) -> Result<Prepared, IoError> {
        let cgroup = self
            .cgroup()
            .map(Cgroup::path)
            .and_then(Path::to_str)
            .map(str::to_owned);
        let request = &work.request;
        let (attempt, start) = work.lock.start_attempt(self.spool, number, &self.boot)?;
        let reserve = attempt.reserve_result()?;
        let state = match &request.session_id {
            Some(session) => Some(work.lock.session_state(self.spool, session)?),
            None => None,
        };
        let input = request.input.as_ref().map_or("{}", Json::text);
        let files = attempt.create_files(input.as_bytes())?;
        let seconds = request
            .timeout_sec
            .or(recipe.manifest.timeout_sec)
            .unwrap_or(self.spool.settings().timeout_sec);
        let started_at = clock::wall();
        let id = work.lock.task().id();
        let run = RunFile {
            v: FORMAT_VERSION,
            task_id: id,
            attempt: number,
            runner: self.own,
            child: None,
            boot: self.boot.clone(),
            runner_cgroup: match &cgroup {
                Some(_) => None,
                None => proc::own_cgroup(),
            },
            cgroup,
            mark: mark_of(self.spool, id, &attempt)?,
            started_at,
            deadline: Timestamp::from_unix_ms(started_at.unix_ms() + (seconds * 1000.0) as i64),
            timeout_sec: seconds,
            lost_at: None,
        };
        reserve.write_intent(&run)?;
        // The last thing before something may be started.
        start.make_durable()?;
        Ok(Prepared {
            oom_kills: self.is_for_one.then(|| memory::kills(id)).flatten(),
            state,
            attempt,
            files,
            reserve,
            run,
            timeout: Duration::from_secs_f64(seconds),
        })
    }

    /// Records who runs, then watches over it until nothing of it is left.
    fn supervise(
        &mut self,
        work: &Work,
        prepared: &Prepared,
        leader: &group::Leader,
        deadline: Instant,
        early: Option<Ending>,
    ) -> Supervised {
        let mut run = prepared.run.clone();
        run.child = Some(leader.key());
        let mut status = work.lock.first_status(&work.request);
        status.status = Status::Running;
        status.attempt = prepared.attempt.number();
        status.started_at = Some(run.started_at);
        // Not needed for the truth: a task that cannot say so still runs.
        if let Err(error) = prepared.attempt.write_run(&run) {
            tracing::warn!(task = %run.task_id, "{error}");
        }
        let (recipe, session) = (&work.request.recipe, work.request.session_id.as_ref());
        let started = Event {
            attempt: Some(run.attempt),
            pid: Some(leader.key().pid),
            ..Event::of(Happened::Started, run.task_id, Some(recipe), session)
        };
        work.lock.emit(self.spool, started);
        supervise::Supervisor {
            lock: &work.lock,
            attempt: &prepared.attempt,
            files: &prepared.files,
            spool: self.spool,
            settings: self.spool.settings(),
            control: &mut self.control,
            leader,
            cgroup: self.cgroup.as_ref().and_then(Option::as_ref),
            early,
            usage: Usage::default(),
            looks_ended: false,
            deadline,
            status,
            is_told: false,
            reported: None,
            is_report_due: false,
            growth: &mut self.growth,
            progress: ProgressReader::default(),
            foreign: false,
            metrics: Metrics::default(),
            left_out: 0,
        }
        .run()
    }

    fn finish_attempt(
        &mut self,
        work: &Work,
        prepared: Prepared,
        supervised: Supervised,
        begun: Instant,
    ) -> Answer {
        let Supervised {
            ending,
            exit,
            status,
            mut metrics,
        } = supervised;
        let Prepared {
            attempt,
            files,
            reserve,
            run,
            timeout,
            state,
            oom_kills,
        } = prepared;
        // Nothing of the attempt is left.
        if let Some(state) = state {
            state.let_go();
        }
        let outcome = match ending {
            Ending::ByItself => {
                let outcome = memory::outcome(run.task_id, oom_kills, exit);
                with_result(outcome, work.recipe.as_ref().ok(), &attempt)
            }
            Ending::Cancelled => Outcome::Cancelled,
            Ending::TimedOut => Outcome::failed(
                ErrorKind::Timeout,
                format!(
                    "stopped after its timeout of {}",
                    humantime::format_duration(timeout)
                ),
            ),
            Ending::RunnerStopped => {
                let why = "its runner was told to stop";
                let number = attempt.number();
                return match self.after_loss(work, number, Some(&attempt), Some(reserve), why) {
                    Ok(Some(_)) => Answer::Taken { started: true },
                    Ok(None) => Answer::Finished(work.request.session_id.clone()),
                    Err(error) => {
                        tracing::warn!(task = %run.task_id, "{error}");
                        Answer::Taken { started: true }
                    }
                };
            }
        };
        let output = attempt.output().unwrap_or_else(|error| {
            tracing::warn!(task = %run.task_id, "the output stays a file: {error}");
            attempt.unread_output()
        });
        if output.is_not_a_file {
            tracing::warn!(task = %run.task_id, "the recipe's result file is not a regular file: what it printed is the output");
        }
        let size = |file: &std::fs::File| file.metadata().ok().map(|metadata| metadata.len());
        let id = run.task_id;
        let waited = run
            .started_at
            .seconds_since(Timestamp::from_unix_ms(id.unix_ms()));
        metrics.queued_seconds(waited.max(0.0));
        metrics.log_bytes(size(&files.stdout), size(&files.stderr));
        let result = ResultFile {
            output: output.value,
            output_file: output.file,
            output_encoding: output.encoding,
            exit_code: exit.code(),
            signal: exit.signal(),
            attempt: run.attempt,
            started_at: Some(run.started_at),
            duration_seconds: Some(begun.elapsed().as_secs_f64()),
            metrics,
            ..unstarted(id, Some(&work.request), outcome)
        };
        let (reserve, attempt) = (Some(reserve), Some(&attempt));
        self.finish(&work.lock, reserve, attempt, result, Some(status));
        Answer::Finished(work.request.session_id.clone())
    }

    fn finish_unspawned(&mut self, work: &Work, prepared: Prepared, outcome: Outcome) -> Answer {
        let Prepared {
            attempt,
            reserve,
            run,
            state,
            ..
        } = prepared;
        if let Some(state) = state {
            state.let_go();
        }
        let mut result = unstarted(run.task_id, Some(&work.request), outcome);
        result.attempt = run.attempt;
        result.started_at = Some(run.started_at);
        self.finish(&work.lock, Some(reserve), Some(&attempt), result, None);
        Answer::Finished(work.request.session_id.clone())
    }
}
