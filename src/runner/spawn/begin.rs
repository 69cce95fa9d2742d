//! A start that is under way: begun, waited for, and what came of it.
//!
//! Not how long it may take (`runner/start.rs`). Invariant: what the child borrows is given back only once it has left
//! it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::plan::{Plan, Setting};
use super::sys;
use crate::runner::command::Command;

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
    /// `None` once it was handed on.
    handle: Option<OwnedFd>,
    /// What the child borrows.
    loan: sys::Loan,
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
                handle: Some(handle),
                loan,
            }),
            Err(errno) if !has_cgroup || is_short(errno) => Err(errno.into()),
            Err(errno) => Err(SpawnError::Cgroup(errno.into())),
        }
    }

    /// Waits so long until the child is the recipe or gone; whether it is.
    pub fn is_over(&self, time: Duration) -> bool {
        self.loan.is_over(time)
    }

    /// Kills the child, also where a filter of system calls refuses handles: nobody has reaped it yet.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// The recipe's number and a handle of it. Waits until the start is over.
    ///
    /// # Errors
    /// The kernel's reason why it did not become the recipe: nothing of it runs then.
    pub fn finish(mut self) -> Result<(Pid, OwnedFd), SpawnError> {
        self.loan.wait();
        let plan = self.loan.plan();
        let failed = plan.failed.load(Ordering::Acquire);
        let error = if failed != 0 {
            SpawnError::from(Errno::from_raw_os_error(failed))
        } else if plan.cgroup.is_some() && !plan.has_begun.load(Ordering::Acquire) {
            // Killed as it was born: its cgroup is being killed, or was before (Linux 6.6 and newer).
            SpawnError::Cgroup(Errno::CANCELED.into())
        } else if let Some(handle) = self.handle.take() {
            return Ok((self.pid, handle));
        } else {
            SpawnError::from(Errno::BADF)
        };
        // It has ended, and is reaped here: nobody else knows of it.
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
        Err(error)
    }
}

/// Whether something was short that has nothing to do with the cgroup.
fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::INTR)
}
