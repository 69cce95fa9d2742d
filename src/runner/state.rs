//! One runner process and what it holds of a task.
//!
//! Not what it does (`run.rs`, `execute.rs`). Invariant: a [`Work`] stands for a lock that is held, a [`Prepared`] for an
//! attempt whose start is recorded.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::Control;
use super::growth::Growth;
use super::nimble;
use super::signals::not_reset_anyway;
use crate::clock::BootId;
use crate::config::Overrides;
use crate::ending::TempLink;
use crate::launcher::Units;
use crate::log_limit::LogLimit;
use crate::proc::{self, Cgroup, ProcessKey};
use crate::recipe::{FindError, Recipe};
use crate::spool::{
    Attempt, Files, IoError, OpenError, PreallocatedResult, RunFile, SessionState, Spool, TaskLock,
};
use crate::task::Request;

/// What a runner needs to know besides the spool.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The umask that the runner was started with.
    pub umask: u32,
    /// The environment recipes begin with, before anything of the task's.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder of the `agentspool` program, found last on a recipe's PATH.
    pub tools: Option<PathBuf>,
}

/// Why a runner does not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Only its owner runs a spool's tasks.
    #[error("only the owner of the spool {} may run its tasks", .0.display())]
    NotOwner(PathBuf),
    /// The spool cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// One runner process.
pub struct Runner {
    pub(super) spool: Spool,
    pub(super) surroundings: Surroundings,
    pub(super) control: Control,
    pub(super) own: ProcessKey,
    pub(super) boot: BootId,
    /// Whether this process is there for one task, and may have a cgroup with it alone.
    pub(super) is_for_one: bool,
    /// The bounds of what tasks write.
    pub(super) growth: Growth,
    /// Units of systemd's, where tasks are those.
    pub(super) units: Units,
    /// Signals that this process was started with ignored, and that no recipe should ignore for that.
    pub(super) ignored: Vec<i32>,
    /// Where recipes are born; looked for at the first of them.
    pub(super) cgroup: Option<Option<Cgroup>>,
    pub(super) log: LogLimit,
}

/// The claim on a task, with what was read of it.
pub(super) struct Work {
    pub lock: TaskLock,
    pub request: Request,
    pub recipe: Result<Recipe, FindError>,
}

/// An attempt that is about to run.
pub(super) struct Prepared {
    pub attempt: Attempt,
    pub files: Files,
    pub preallocated: PreallocatedResult,
    pub run: RunFile,
    pub timeout: Duration,
    /// Where the timeout comes from and how to give a task more, fit behind its message. Nothing where the submitter
    /// chose it.
    pub timeout_from: &'static str,
    pub state: Option<SessionState>,
    /// The task's `PATH`, once its command was put together.
    pub search: Option<OsString>,
    /// The short path of its folder, where that has one; it goes with this value.
    pub temp_link: Option<TempLink>,
    /// The kernel's counter before anything ran.
    pub oom_kills: Option<u64>,
}

impl Runner {
    /// Becomes a runner: a session of its own, and the one that orphans of recipes come back to.
    pub fn open(
        path: &Path,
        overrides: Overrides,
        surroundings: Surroundings,
        control: Control,
    ) -> Result<Runner, RunnerError> {
        let spool = Spool::open(path, overrides)?;
        if !spool.is_owner() {
            return Err(RunnerError::NotOwner(spool.path().to_owned()));
        }
        // Fails only when this process leads a group already, as under a shell with job control;
        // then it is as far from its starter as it can be.
        let _ = rustix::process::setsid();
        // Any pid turns it on: the attribute belongs to the process, not to that pid.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        nimble::be_nimble();
        // Before there is another thread.
        proc::unblock_signals();
        Ok(Runner {
            spool,
            surroundings,
            control,
            own: proc::own_key(),
            boot: BootId::current(),
            is_for_one: false,
            growth: Growth::default(),
            units: Units::default(),
            ignored: not_reset_anyway(proc::ignored_signals()),
            cgroup: None,
            log: LogLimit::default(),
        })
    }

    /// Whether an attempt may start: not in a paused spool. Where the spool was moved or removed, or its
    /// path cannot be seen, that leads to no recipe of its own, and no task may fail because of that.
    pub(super) fn may_start(&self) -> Result<bool, IoError> {
        Ok(!self.spool.is_paused()? && self.spool.is_at_its_path())
    }
}
