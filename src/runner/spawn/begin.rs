//! One start of a recipe's process: started, waited for, and its outcome.
//!
//! Does not limit how long it may take (`runner/start.rs`). Invariant: memory that the child borrows is
//! freed only after the child has left it.

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

/// How often to try to reap a child that ended.
const REAPS: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(20));

/// Why no process was started.
#[derive(Debug, thiserror::Error)]
pub(in crate::runner) enum SpawnError {
    /// The kernel refused to start a process in that cgroup. Nothing ran. A start without the cgroup may
    /// work.
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

/// A process that is being started: the kernel reads the program, which takes as long as the disk needs.
pub(in crate::runner) struct Start {
    pid: Pid,
    handle: OwnedFd,
    /// What the child borrows.
    loan: sys::Loan,
    is_reaped: bool,
}

impl Start {
    /// Starts the command as the leader of its own session. The kernel kills it if the calling thread
    /// ends.
    ///
    /// # Errors
    /// The command contains a zero byte, or the kernel cannot create the process. Nothing runs then.
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

    /// Waits at most `time` for the child to become the recipe, or to end and be reaped. Returns whether
    /// it did. A process that traces the child can delay the reaping without limit.
    pub fn is_over(&mut self, time: Duration) -> bool {
        let begun = Instant::now();
        if !self.loan.is_over(time) {
            return false;
        }
        let mut pause = REAPS.0;
        while self.error().is_some() && !self.is_reaped {
            // Only this function knows the child. An error means that there is no such child.
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

    /// Whether the start failed and the child cannot be reaped yet.
    pub fn is_kept(&self) -> bool {
        !self.is_reaped && self.loan.is_over(Duration::ZERO) && self.error().is_some()
    }

    /// Kills the child by its number, which works even if a system call filter refuses handles. The child
    /// is not reaped yet, so the number is its own.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// The recipe's process number and a handle of it. Call it once the start is over.
    ///
    /// # Errors
    /// The kernel's reason why the child did not become the recipe. Nothing of the recipe runs then.
    pub fn finish(self) -> Result<(Pid, OwnedFd), SpawnError> {
        match self.error() {
            Some(error) => Err(error),
            None => Ok((self.pid, self.handle)),
        }
    }

    /// Why the child did not become the recipe. Valid once the child has left this memory.
    fn error(&self) -> Option<SpawnError> {
        let plan = self.loan.plan();
        let failed = plan.failed.load(Ordering::Acquire);
        if failed != 0 {
            return Some(Errno::from_raw_os_error(failed).into());
        }
        // Killed at creation: its cgroup is being killed or was killed before (Linux 6.6 and newer).
        let was_killed_at_creation =
            plan.cgroup.is_some() && !plan.has_begun.load(Ordering::Acquire);
        was_killed_at_creation.then(|| SpawnError::Cgroup(Errno::CANCELED.into()))
    }
}

/// Whether a resource was short that has nothing to do with the cgroup.
fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::NOMEM | Errno::INTR)
}
