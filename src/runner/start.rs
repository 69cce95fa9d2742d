//! Starts a recipe within its deadline.
//!
//! Executing a program waits for its disk, and a network disk that is gone never responds. While it
//! waits, the runner checks the deadline and the cancel marker. Does not create the process (`spawn/`).
//! Invariant: a start is waited for to its end, so nothing of it runs when it is reported as failed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::command;
use super::group::{self, Leader};
use super::spawn::{Setting, SpawnError, Start};
use super::state::{Prepared, Runner, Work};
use super::supervise::Ending;
use crate::ending::report_stuck;
use crate::proc::{self, Cgroup};
use crate::recipe::{PathOf, Recipe, Search};
use crate::spool::IoError;

/// How often to check whether a start that hangs must still go on.
const CHECKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// A child that KILL does not end within this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Why a recipe's program cannot run, if a reason can be found now, and what to do.
pub(super) fn explained(recipe: &Recipe, prepared: &Prepared) -> Option<String> {
    let search = Search {
        path: prepared.search.clone().unwrap_or_default(),
        of: PathOf::Task,
    };
    let error = recipe.check_program(&search).err()?;
    Some(format!("{}; {}", error.problem(), error.fix()))
}

/// A start that is under way.
struct Begun {
    start: Result<Start, SpawnError>,
    /// The program as messages name it.
    program: String,
    /// The task's `PATH`.
    search: Option<OsString>,
}

type Started = Result<(Pid, OwnedFd), SpawnError>;

/// Why a recipe was not started. Nothing of it ran.
#[derive(Debug)]
pub(super) enum StartError {
    /// A resource was short. A later try may work.
    Passing(IoError),
    /// The recipe or a file that it names cannot be used.
    Recipe(String),
    /// Its program cannot be executed.
    Spawn(String),
    /// The attempt had to end before the recipe started.
    Ended(Ending),
}

impl Runner {
    /// The cgroup in which this runner starts its recipes, if it can have one.
    pub(super) fn cgroup(&mut self) -> Option<&Cgroup> {
        let own = self.own;
        if let Some(Some(cgroup)) = &self.cgroup
            && cgroup.was_killed()
        {
            self.cgroup = None;
        }
        self.cgroup
            .get_or_insert_with(|| Cgroup::make(own))
            .as_ref()
    }

    /// Starts the recipe. A start that takes too long is ended for the same reasons as a running recipe.
    /// If the recipe was started nevertheless, the reason is returned with it.
    pub(super) fn start(
        &mut self,
        work: &Work,
        recipe: &Recipe,
        prepared: &mut Prepared,
        deadline: Instant,
    ) -> Result<(Leader, Option<Ending>), StartError> {
        loop {
            let failed =
                |doing, error| StartError::Passing(IoError::new(doing, &recipe.path, error));
            let begins = rustix::fs::tell(prepared.preallocated.record())
                .map_err(|errno| failed("start the recipe", errno.into()))?;
            let Begun {
                start,
                program,
                search,
            } = self.begin(work, recipe, prepared)?;
            prepared.search = search;
            let (started, early) = match start {
                Ok(start) => self.wait_for_start(start, work, deadline),
                Err(error) => (Err(error), None),
            };
            if let (Err(_), Some(ending)) = (&started, early) {
                return Err(StartError::Ended(ending));
            }
            match started {
                Ok((pid, handle)) => {
                    let leader = Leader::new(pid, handle, prepared.preallocated.record(), begins);
                    return Ok((leader, early));
                }
                Err(SpawnError::Cgroup(error)) => {
                    // Start without the cgroup from now on, and record that for this attempt before it
                    // starts.
                    tracing::debug!("{error}");
                    self.cgroup = Some(None);
                    prepared.run.cgroup = None;
                    prepared.run.runner_cgroup = proc::own_cgroup();
                    let recorded = prepared.preallocated.rewrite_intent(&prepared.run);
                    recorded.map_err(StartError::Passing)?;
                }
                Err(SpawnError::Other(error)) if group::is_passing(&error) => {
                    return Err(failed("start the recipe", error));
                }
                Err(SpawnError::Other(error)) => {
                    let mut why = format!("failed to start {program}: {error}");
                    if let Some(known) = explained(recipe, prepared) {
                        why = format!("{why}; {known}");
                    }
                    return Err(StartError::Spawn(why));
                }
            }
        }
    }

    /// Builds the command and starts it.
    fn begin(
        &self,
        work: &Work,
        recipe: &Recipe,
        prepared: &Prepared,
    ) -> Result<Begun, StartError> {
        let command = command::build(self, work, recipe, prepared).map_err(|error| match error
            .passing()
        {
            Ok(error) => StartError::Passing(error),
            Err(error) => StartError::Recipe(error.to_string()),
        })?;
        let setting = Setting {
            files: &prepared.files,
            umask: self.umask(),
            record: prepared.preallocated.record(),
            is_alone: prepared.oom_kills.is_some(),
            ignored: &self.ignored,
            cgroup: match &self.cgroup {
                Some(Some(cgroup)) => Some(cgroup.as_fd()),
                _ => None,
            },
        };
        let program = command.program.display().to_string();
        let search = command.environment.get(OsStr::new("PATH"));
        Ok(Begun {
            search: search.map(|path| path.clone().into_owned()),
            start: Start::begin(&command, &setting),
            program,
        })
    }

    /// In a group spool no file of a recipe may be writable by submitters. In a private spool the
    /// stricter of the setting and the umask of the watcher counts.
    fn umask(&self) -> u32 {
        let asked = self.spool.settings().umask_bits();
        if self.spool.is_group() {
            asked | 0o022
        } else {
            asked | self.surroundings.umask
        }
    }

    fn wait_for_start(
        &mut self,
        mut start: Start,
        work: &Work,
        deadline: Instant,
    ) -> (Started, Option<Ending>) {
        let mut pause = CHECKS.0;
        let mut early = None;
        // Since when the wait is for a child that should have ended.
        let mut since = None;
        let mut is_reported = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let time = if early.is_some() {
                pause
            } else {
                pause.min(left)
            };
            if start.is_over(time) {
                return (start.finish(), early);
            }
            self.control.take_in();
            let why = if self.control.should_stop() {
                Some(Ending::RunnerStopped)
            } else if work.lock.task().cancel_requested().unwrap_or(false) {
                Some(Ending::Cancelled)
            } else {
                (Instant::now() >= deadline).then_some(Ending::TimedOut)
            };
            if let Some(why) = why {
                early.get_or_insert(why);
                start.kill();
            }
            if early.is_some() || start.is_kept() {
                let since = *since.get_or_insert_with(Instant::now);
                if !is_reported && since.elapsed() > STUCK_AFTER {
                    let why = "the start of its recipe hangs and cannot be ended";
                    report_stuck(&work.lock, why);
                    is_reported = true;
                }
            }
            pause = (pause * 2).min(CHECKS.1);
        }
    }
}
