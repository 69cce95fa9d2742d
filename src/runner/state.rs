//! One runner process and what it holds of a task.
//!
//! Does not run the task (`run.rs`, `execute.rs`). Invariant: a [`Work`] means that the task's lock is
//! held, a [`Prepared`] that the start of the attempt is recorded.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// The environment that recipes start with, before the task's own variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder of the `agentspool` program, added last to a recipe's PATH.
    pub tools: Option<PathBuf>,
}

/// Why a runner cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The caller is not the owner of the spool.
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
    /// Whether this process runs one task only, and may have a cgroup of its own.
    pub(super) is_for_one: bool,
    /// Keeps the files that tasks write within their limits.
    pub(super) growth: Growth,
    /// The systemd units, if tasks run as units.
    pub(super) units: Units,
    /// Signals that this process was started with ignored. A recipe does not inherit that.
    pub(super) ignored: Vec<i32>,
    /// The cgroup in which recipes are started. Searched for at the first recipe.
    pub(super) cgroup: Option<Option<Cgroup>>,
    pub(super) log: LogLimit,
    /// Whether the folder of our own program is closed to others, and when that was checked.
    pub(super) closed_tools: Cell<Option<(Instant, bool)>>,
}

/// A locked task, with what was read of it.
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
    /// Where the timeout comes from and how to give a task more, worded to follow the timeout message.
    /// Empty if the submitter chose the timeout.
    pub timeout_from: &'static str,
    pub state: Option<SessionState>,
    /// The task's `PATH`, known once its command is built.
    pub search: Option<OsString>,
    /// The short path of its folder, if it has one. Removed when this value is dropped.
    pub temp_link: Option<TempLink>,
    /// The kernel's out-of-memory counter before the recipe starts.
    pub oom_kills: Option<u64>,
}

impl Runner {
    /// Turns this process into a runner: leader of its own session, and the parent that orphans of
    /// recipes are given to.
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
        // Fails only if this process already leads a group, as under a shell with job control. Then it is
        // separated enough.
        let _ = rustix::process::setsid();
        // Any pid enables it: the attribute belongs to the process, not to that pid.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        nimble::be_nimble();
        // Must run before a second thread is started.
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
            closed_tools: Cell::new(None),
        })
    }

    /// Whether an attempt may start. It may not if the spool is paused. It also may not if the spool was
    /// moved or removed or its path is not accessible: the recipe would not be found, and no task may
    /// fail because of that.
    pub(super) fn may_start(&self) -> Result<bool, IoError> {
        Ok(!self.spool.is_paused()? && self.spool.is_at_its_path())
    }
}
