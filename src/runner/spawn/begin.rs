//! A start that is under way: begun, waited for, and what came of it.
//!
//! Not how long it may take (`runner/start.rs`). Invariant: what the child borrows is given back only once it has left
//! it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use super::plan::{Plan, Setting};
use super::sys;
use crate::runner::command::Command;

/// How often it is asked whether a child that ended can be reaped.
const REAPS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(20));

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(in crate::runner) enum SpawnError {
    /// The kernel refuses to start one in that cgroup. Nothing ran; without the cgroup it may work.
    #[error("failed to start a process in the runner's cgroup: {0}")]
    Cgroup(io::Error),
    /// The kernel's reason.
    #[error(transparent)]
    Other(#[from] io::Error),
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> SpawnError {
        SpawnError::Other(errno.into())
    }
}

/// A process that is on its way to the recipe: the kernel reads the program, which takes as long as its disk.
pub(in crate::runner) struct Start {
    pid: Pid,
    handle: OwnedFd,
    /// What the child borrows.
    loan: sys::Loan,
    is_reaped: bool,
}

impl Start {
    /// Begins to start the command as the leader of a session of its own, which the kernel kills should the
    /// calling thread end.
    ///
    /// # Errors
    /// A text that no program can be given, or the kernel's reason why there is no such process: nothing runs
    /// then.
    pub fn begin(command: &Command<'_>, setting: &Setting<'_>) -> Result<Start, SpawnError> {
        let plan = Plan::new(command, setting, sys::no_signals())?;
        let has_cgroup = plan.cgroup.is_some();
        match sys::clone_child(Rc::new(plan)) {
            Ok((pid, handle, loan)) => Ok(Start {
                pid,
                handle,
                loan,
                is_reaped: false,
            }),
            Err(errno) if !has_cgroup || is_short(errno) => Err(errno.into()),
            Err(errno) => Err(SpawnError::Cgroup(errno.into())),
        }
    }

    /// Waits so long until the child is the recipe, or has ended and is reaped; whether it is. Somebody who traces
    /// it can keep it from being reaped for as long as he likes.
    pub fn is_over(&mut self, time: Duration) -> bool {
        let begun = Instant::now();
        if !self.loan.is_over(time) {
            return false;
        }
        let mut pause = REAPS.0;
        while self.error().is_some() && !self.is_reaped {
            // Reaped here: nobody else knows of it. An error says that there is no such child.
            let asked = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG);
            self.is_reaped = !matches!(asked, Ok(None) | Err(Errno::INTR));
            let left = time.saturating_sub(begun.elapsed());
            if !self.is_reaped && left.is_zero() {
                return false;
            }
            if !self.is_reaped {
                std::thread::sleep(pause.min(left));
                pause = (pause * 2).min(REAPS.1);
            }
        }
        true
    }

    /// Whether nothing of the recipe runs or will, and the child cannot be reaped yet.
    pub fn is_kept(&self) -> bool {
        !self.is_reaped && self.loan.is_over(Duration::ZERO) && self.error().is_some()
    }

    /// Kills the child, also where a filter of system calls refuses handles: nobody has reaped it yet.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// The recipe's number and a handle of it, once the start is over.
    ///
    /// # Errors
    /// The kernel's reason why it did not become the recipe: nothing of it runs then.
    pub fn finish(self) -> Result<(Pid, OwnedFd), SpawnError> {
        match self.error() {
            Some(error) => Err(error),
            None => Ok((self.pid, self.handle)),
        }
    }

    /// Why the child did not become the recipe, once it has left this memory.
    fn error(&self) -> Option<SpawnError> {
        let plan = self.loan.plan();
        let failed = plan.failed.load(Ordering::Acquire);
        if failed != 0 {
            return Some(Errno::from_raw_os_error(failed).into());
        }
        // Killed as it was born: its cgroup is being killed, or was before (Linux 6.6 and newer).
        let is_stillborn = plan.cgroup.is_some() && !plan.has_begun.load(Ordering::Acquire);
        is_stillborn.then(|| SpawnError::Cgroup(Errno::CANCELED.into()))
    }
}

/// Whether something was short that has nothing to do with the cgroup.
fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::INTR)
}
