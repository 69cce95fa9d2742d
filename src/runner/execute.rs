//! One attempt of a task: prepared, started, supervised, finished.
//!
//! Does not decide whether to make an attempt (`run.rs`) or build its result (`result.rs`). Invariant:
//! nothing is started before the start is recorded, and before the result is written no process of the
//! attempt is alive.

use std::path::Path;
use std::time::{Duration, Instant};

use super::group::Leader;
use super::result;
use super::start::StartError;
use super::state::{Prepared, Runner, Work};
use super::supervise::{Ending, Supervised, Supervisor};
use crate::clock;
use crate::ending::{self, TempLink, tag_of, unstarted};
use crate::launcher;
use crate::proc::{self, Cgroup, Usage};
use crate::recipe::Recipe;
use crate::spool::{IoError, ProgressReader, RunFile};
use crate::task::{
    Answer, Condition, ErrorKind, Event, FORMAT_VERSION, Happened, Json, Metrics, Outcome, Request,
    Status, Timestamp, When, Why,
};

impl Runner {
    /// Runs one attempt: prepare, spawn, supervise, finish, release.
    pub(super) fn execute(
        &mut self,
        work: &Work,
        recipe: &Recipe,
        number: u32,
    ) -> Result<Answer, IoError> {
        let mut prepared = match self.prepare(work, recipe, number) {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nothing ran, so the record of the start must be removed.
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

    /// What follows from a start that failed.
    fn not_started(
        &mut self,
        work: &Work,
        prepared: Prepared,
        error: StartError,
    ) -> Result<Answer, IoError> {
        let number = prepared.attempt.number();
        let outcome = match error {
            StartError::Passing(error) => {
                take_back(work, number)?;
                return Err(error);
            }
            // The spool was moved just now.
            _ if !self.spool.is_at_its_path() => {
                take_back(work, number)?;
                return Ok(Answer::retry(number > 1, Why::NoStarts));
            }
            StartError::Ended(ending) => match result::outcome_of_early(ending, &prepared) {
                Some(outcome) => outcome,
                None => {
                    take_back(work, number)?;
                    return Ok(Answer::Retry(When::AtScan, Why::RunnerStopped));
                }
            },
            StartError::Recipe(why) => Outcome::failed(ErrorKind::Recipe, why),
            StartError::Spawn(why) => Outcome::failed(ErrorKind::Spawn, why),
        };
        Ok(self.finish_unspawned(work, prepared, outcome))
    }

    fn prepare(&mut self, work: &Work, recipe: &Recipe, number: u32) -> Result<Prepared, IoError> {
        let cgroup = self
            .cgroup()
            .map(Cgroup::path)
            .and_then(Path::to_str)
            .map(str::to_owned);
        let request = &work.request;
        let (attempt, start) = work.lock.start_attempt(&self.spool, number, &self.boot)?;
        let preallocated = attempt.preallocate_result()?;
        let state = match &request.session_id {
            Some(session) => Some(work.lock.session_state(&self.spool, session)?),
            None => None,
        };
        let input = request.input.as_ref().map_or("{}", Json::text);
        let files = attempt.create_files(input.as_bytes())?;
        let (seconds, timeout_from) = self.timeout_of(request, recipe);
        let started_at = clock::wall();
        let id = work.lock.task().id();
        let temp_link = TempLink::plan(id, &attempt);
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
            temp_link: temp_link.as_ref().and_then(as_text),
            tag: tag_of(&self.spool, id, &attempt)?,
            started_at,
            deadline: Timestamp::from_unix_ms(started_at.unix_ms() + (seconds * 1000.0) as i64),
            timeout_sec: seconds,
            lost_at: None,
        };
        preallocated.write_intent(&run)?;
        // Must be the last step before anything can be started.
        start.make_durable()?;
        Ok(Prepared {
            oom_kills: self.is_for_one.then(|| launcher::kills(id)).flatten(),
            state,
            search: None,
            temp_link: temp_link.and_then(TempLink::make),
            attempt,
            files,
            preallocated,
            run,
            timeout: Duration::from_secs_f64(seconds),
            timeout_from,
        })
    }

    /// The time limit of a task in seconds, and for the message at the limit which setting it is from.
    fn timeout_of(&self, request: &Request, recipe: &Recipe) -> (f64, &'static str) {
        match (request.timeout_sec, recipe.manifest.timeout_sec) {
            (Some(seconds), _) => (seconds, ""),
            (None, Some(seconds)) => (
                seconds,
                " (`timeout` in recipe.toml; to give one task more time, use `--timeout`)",
            ),
            (None, None) => (
                self.spool.settings().timeout_sec,
                " (the spool's `timeout_sec`; to give more time, use `--timeout` for one task or `timeout` in recipe.toml for a recipe)",
            ),
        }
    }

    /// Records the recipe's process, then supervises it until nothing of the attempt is left.
    fn supervise(
        &mut self,
        work: &Work,
        prepared: &Prepared,
        leader: &Leader,
        deadline: Instant,
        early: Option<Ending>,
    ) -> Supervised {
        let mut run = prepared.run.clone();
        run.child = Some(leader.key());
        let mut status = work.lock.first_status(&work.request);
        status.status = Status::Running;
        status.attempt = prepared.attempt.number();
        status.started_at = Some(run.started_at);
        // Only a report: the task runs even if it cannot be written.
        if let Err(error) = prepared.attempt.write_run(&run) {
            tracing::warn!(task = %run.task_id, "{error}");
        }
        let (recipe, session) = (&work.request.recipe, work.request.session_id.as_ref());
        let started = Event {
            attempt: Some(run.attempt),
            pid: Some(leader.key().pid),
            ..Event::of(Happened::Started, run.task_id, Some(recipe), session)
        };
        work.lock.emit(&self.spool, started);
        Supervisor {
            lock: &work.lock,
            attempt: &prepared.attempt,
            files: &prepared.files,
            spool: &self.spool,
            settings: self.spool.settings(),
            control: &mut self.control,
            leader,
            cgroup: self.cgroup.as_ref().and_then(Option::as_ref),
            early,
            usage: Usage::default(),
            looks_ended: false,
            deadline,
            status,
            is_reported: false,
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
        mut prepared: Prepared,
        supervised: Supervised,
        begun: Instant,
    ) -> Answer {
        // No process of the attempt is left.
        if let Some(state) = prepared.state.take() {
            state.let_go();
        }
        let Some(outcome) = result::outcome_of(&supervised, work.recipe.as_ref().ok(), &prepared)
        else {
            return self.after_stop(work, prepared);
        };
        let Supervised {
            exit,
            status,
            metrics,
            ..
        } = supervised;
        let result = result::of_attempt(&work.request, &prepared, outcome, exit, metrics, begun);
        let (preallocated, attempt) = (Some(prepared.preallocated), Some(&prepared.attempt));
        ending::finish(
            &self.spool,
            &work.lock,
            preallocated,
            attempt,
            result,
            Some(status),
        );
        Answer::Finished(work.request.session_id.clone())
    }

    /// The runner was stopped, which ends the attempt and not the task.
    fn after_stop(&mut self, work: &Work, prepared: Prepared) -> Answer {
        let why = "its runner was stopped";
        let (attempt, preallocated) = (&prepared.attempt, Some(prepared.preallocated));
        match self.after_loss(work, attempt.number(), Some(attempt), preallocated, why) {
            Ok(Some(_)) => Answer::Retry(When::AtScan, Why::RunnerStopped),
            Ok(None) => Answer::Finished(work.request.session_id.clone()),
            Err(error) => {
                tracing::warn!(task = %prepared.run.task_id, "{error}");
                Answer::Retry(When::AtScan, Why::Disk)
            }
        }
    }

    fn finish_unspawned(&mut self, work: &Work, prepared: Prepared, outcome: Outcome) -> Answer {
        let Prepared {
            attempt,
            preallocated,
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
        ending::finish(
            &self.spool,
            &work.lock,
            Some(preallocated),
            Some(&attempt),
            result,
            None,
        );
        Answer::Finished(work.request.session_id.clone())
    }
}

fn as_text(link: &TempLink) -> Option<String> {
    link.path().to_str().map(str::to_owned)
}

/// Removes an attempt of which nothing ran. The status may say that its start hung; that is removed too.
fn take_back(work: &Work, number: u32) -> Result<(), IoError> {
    work.lock.drop_attempt(number)?;
    if let Some(mut status) = work.lock.task().status_file()
        && status.condition == Some(Condition::Stuck)
    {
        status.condition = None;
        work.lock.write_status(&status)?;
    }
    Ok(())
}
