//! The thread that starts recipes, so that the runner goes on while a start hangs.
//!
//! Executing a program waits for its disk, and a network disk that is gone answers never. Whoever makes
//! the child waits with it, so that is not the runner's main thread, which keeps the deadline and looks
//! for a cancellation. Not the start itself (`spawn.rs`). Invariants: the thread lives as long as the
//! runner, because the kernel ends a recipe's process with the thread that made it; and a start that was
//! begun is waited for before anything that its plan names is closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::group::{self, Leader};
use super::recover::report_stuck;
use super::spawn::{self, Plan, Setting, SpawnError};
use super::supervise::Ending;
use super::{Prepared, Runner, Work, command};
use crate::proc::{self, Cgroup};
use crate::recipe::Recipe;
use crate::spool::IoError;

/// The stack of the thread: it makes system calls.
const STACK_BYTES: usize = 128 << 10;

/// How often it is looked whether a start that hangs is still wanted.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// A child that KILL does not end within this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);

type Started = Result<(Pid, OwnedFd), SpawnError>;

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Starter {
    plans: Sender<Plan>,
    started: Receiver<Started>,
    /// The handle of the child that is not a recipe yet.
    handle: Arc<AtomicI32>,
}

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn new() -> io::Result<Starter> {
        let (plans, orders) = channel::<Plan>();
        let (answers, started) = channel();
        std::thread::Builder::new()
            .name("starter".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                while let Ok(plan) = orders.recv() {
                    if answers.send(spawn::spawn(plan)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Starter {
            plans,
            started,
            handle: Arc::new(AtomicI32::new(-1)),
        })
    }

    /// Begins a start. It must be waited for.
    pub fn begin(&mut self, plan: Plan) {
        self.handle = plan.handle();
        // It lives as long as this does: it catches nothing and panics nowhere.
        let _ = self.plans.send(plan);
    }

    /// What came of it; `None` when it takes longer.
    pub fn wait(&self, time: Duration) -> Option<Started> {
        match self.started.recv_timeout(time) {
            Ok(started) => Some(started),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let gone = io::Error::other("the thread that starts recipes is gone");
                Some(Err(gone.into()))
            }
        }
    }

    /// Kills the child that hangs on its way to the recipe.
    #[expect(
        unsafe_code,
        reason = "a handle that the kernel wrote for another thread"
    )]
    pub fn kill(&self) {
        let handle = self.handle.load(Ordering::Acquire);
        if handle < 0 {
            return;
        }
        // SAFETY: the thread closes it only after it has answered, which nobody has heard yet.
        let handle = unsafe { BorrowedFd::borrow_raw(handle) };
        if rustix::process::pidfd_send_signal(handle, Signal::KILL).is_ok() {
            return;
        }
        // Refused by a filter of system calls. There is no other child at this time.
        for pid in proc::children().into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Why a recipe was not started. Nothing of it ran.
#[derive(Debug)]
pub(super) enum StartError {
    /// Something was short that may be there again soon.
    Passing(IoError),
    /// The recipe or a file that it names cannot be used.
    Recipe(String),
    /// Its program cannot be executed.
    Spawn(String),
}

impl Runner<'_> {
    /// The cgroup in which this runner's recipes are born, if it can have one.
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

    /// Starts the recipe. A start that takes long is ended like the recipe itself would be; then the
    /// reason comes with it.
    pub(super) fn start(
        &mut self,
        work: &Work,
        recipe: &Recipe,
        prepared: &mut Prepared,
        deadline: Instant,
    ) -> Result<(Leader, Option<Ending>), StartError> {
        loop {
            let (plan, program) = self.plan(work, recipe, prepared)?;
            let failed =
                |doing, error| StartError::Passing(IoError::new(doing, &recipe.path, error));
            let begins = rustix::fs::tell(prepared.reserve.record())
                .map_err(|errno| failed("start the recipe", errno.into()))?;
            let mut starter = match self.starter.take() {
                Some(starter) => starter,
                None => Starter::new().map_err(|error| failed("start a thread for", error))?,
            };
            starter.begin(plan);
            let (started, early) = self.wait_for_start(&starter, work, deadline);
            self.starter = Some(starter);
            match started {
                Ok((pid, handle)) => {
                    let leader = Leader::new(pid, handle, prepared.reserve.record(), begins);
                    return Ok((leader, early));
                }
                Err(SpawnError::Cgroup(error)) => {
                    // Said of all that this runner starts from now on, and of this attempt before it begins.
                    tracing::debug!("{error}");
                    self.cgroup = Some(None);
                    prepared.run.cgroup = None;
                    prepared.run.runner_cgroup = proc::own_cgroup();
                    let said = prepared.reserve.rewrite_intent(&prepared.run);
                    said.map_err(StartError::Passing)?;
                }
                Err(SpawnError::Other(error)) if group::is_passing(&error) => {
                    return Err(failed("start the recipe", error));
                }
                Err(SpawnError::Other(error)) => {
                    let why = format!("failed to start {program}: {error}");
                    return Err(StartError::Spawn(why));
                }
            }
        }
    }

    /// Everything that the start needs, and the program as it is called in messages.
    fn plan(
        &self,
        work: &Work,
        recipe: &Recipe,
        prepared: &Prepared,
    ) -> Result<(Plan, String), StartError> {
        let command = command::build(self, work, recipe, prepared).map_err(|error| match error
            .passing()
        {
            Ok(error) => StartError::Passing(error),
            Err(error) => StartError::Recipe(error.to_string()),
        })?;
        let setting = Setting {
            files: &prepared.files,
            umask: self.umask(),
            record: prepared.reserve.record(),
            is_alone: prepared.oom_kills.is_some(),
            ignored: &self.ignored,
            cgroup: match &self.cgroup {
                Some(Some(cgroup)) => Some(cgroup.as_fd()),
                _ => None,
            },
        };
        let program = command.program.display().to_string();
        match Plan::new(&command, &setting) {
            Ok(plan) => Ok((plan, program)),
            Err(error) => Err(StartError::Spawn(format!(
                "failed to start {program}: {error}"
            ))),
        }
    }

    /// In a group spool no file of a recipe may be written by those who submit.
    fn umask(&self) -> u32 {
        let asked = self.spool.settings().umask_bits();
        if self.spool.is_group() {
            asked | 0o022
        } else {
            asked
        }
    }

    fn wait_for_start(
        &mut self,
        starter: &Starter,
        work: &Work,
        deadline: Instant,
    ) -> (Started, Option<Ending>) {
        let mut pause = LOOKS.0;
        let mut early: Option<(Ending, Instant)> = None;
        let mut told = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let time = if early.is_some() {
                pause
            } else {
                pause.min(left)
            };
            if let Some(started) = starter.wait(time) {
                return (started, early.map(|(ending, _)| ending));
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
                let (_, since) = *early.get_or_insert((why, Instant::now()));
                starter.kill();
                if !told && since.elapsed() > STUCK_AFTER {
                    report_stuck(
                        &work.lock,
                        "the start of its recipe hangs and cannot be ended",
                    );
                    told = true;
                }
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    }
}
