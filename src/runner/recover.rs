//! What a dead runner left: find it, end it, and say whether anything may have run.
//!
//! Runs under the task's lock, before its next holder writes anything. A bare number found on the
//! disk is never signalled: pid and start time, the whole mark in the environment, or the recorded
//! session together with the attempt's folder prove whose a
//! process is. Invariant: unless it is given up, no process of the attempt is alive when this
//! returns.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::clock::BootId;
use crate::proc::{self, Look, ProcessKey};
use crate::spool::{Attempt, IoError, TaskLock};
use crate::task::Condition;

/// The variable that marks everything an attempt started.
pub(super) const MARK: &str = "AGENTSPOOL_MARK";
/// A process that KILL does not end within this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A look can miss a process that is just forking or being executed. So many in a row that find
/// nothing are a proof, where each of them saw everybody to the end; on a busy machine some process
/// always leaves in between, and then so many, because one that forks on and on is met by chance.
const LOOKS_IN_VAIN: u32 = 2;
const PARTIAL_LOOKS_IN_VAIN: u32 = 40;
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// What is known of a lost attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The runner died before it started anything.
    NothingRan,
    /// The recipe may have run, in part or to its end.
    MayHaveRun,
    /// The caller did not want to wait any longer: something may still be alive.
    GivenUp,
}

/// Ends what is left of an attempt. `go_on` is asked while something does not die.
pub(super) fn recover(
    lock: &TaskLock,
    attempt: &Attempt,
    mark: &str,
    boot: &BootId,
    go_on: &dyn Fn() -> bool,
) -> Result<Lost, IoError> {
    if !lock.started_in(attempt.number(), boot)? {
        // Another boot: nothing of it can be alive.
        return Ok(Lost::MayHaveRun);
    }
    if !attempt.may_have_run()? {
        return Ok(Lost::NothingRan);
    }
    // Numbers count only in the pid namespace that gave them, and only if they are this spool's:
    // in a copy of a spool they are another one's living tasks. The mark finds what it finds.
    let child = attempt
        .run()
        .filter(|run| run.boot == *boot && run.mark == mark)
        .and_then(|run| run.child);
    if kill_all(child, mark, attempt, go_on, || report_stuck(lock)) {
        Ok(Lost::MayHaveRun)
    } else {
        Ok(Lost::GivenUp)
    }
}

/// Kills the recorded group and session and everything that carries the mark, until none is left.
/// `false` when `go_on` ended it before.
fn kill_all(
    child: Option<ProcessKey>,
    mark: &str,
    attempt: &Attempt,
    go_on: &dyn Fn() -> bool,
    on_stuck: impl Fn(),
) -> bool {
    let begun = Instant::now();
    let mut told = false;
    let mut pause = PAUSE.0;
    let (mut whole_in_vain, mut in_vain) = (0, 0);
    while whole_in_vain < LOOKS_IN_VAIN && in_vain < PARTIAL_LOOKS_IN_VAIN {
        let look = left_alive(child, mark, attempt);
        if look.found.is_empty() {
            in_vain += 1;
            whole_in_vain = if look.is_whole { whole_in_vain + 1 } else { 0 };
            pause = PAUSE.0;
        } else {
            (whole_in_vain, in_vain) = (0, 0);
            pause = (pause * 2).min(PAUSE.1);
        }
        for entry in look.found {
            if let Some(handle) = proc::open(entry.key) {
                // Gone in between, or not ours to signal: the next look tells.
                let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
            }
        }
        if !told && begun.elapsed() > STUCK_AFTER {
            on_stuck();
            told = true;
        }
        if in_vain == 0 && !go_on() {
            return false;
        }
        std::thread::sleep(pause);
    }
    true
}

fn left_alive(child: Option<ProcessKey>, mark: &str, attempt: &Attempt) -> Look {
    let mut look = proc::with_environment(MARK, mark);
    let Some(child) = child else { return look };
    // The group's number cannot be anybody else's while its leader is exactly this process. Once
    // it is gone, its session's number alone proves nothing: what a recipe started without an
    // environment is then known by the attempt's folder.
    let leader_lives = proc::is_alive(child);
    look.found.extend(proc::all().into_iter().filter(|entry| {
        let in_group = leader_lives && entry.group == child.pid;
        let in_session = entry.session == child.pid && entry.key.start >= child.start;
        !entry.is_zombie && (in_group || (in_session && proc::is_at(entry.key.pid, attempt)))
    }));
    look
}

/// Says in the task's status that a process of it does not die.
pub(super) fn report_stuck(lock: &TaskLock) {
    tracing::error!(task = %lock.task().id(), "a process of this task does not die");
    if let Some(mut status) = lock.task().status_file() {
        status.condition = Some(Condition::Stuck);
        // Best effort: the held lock says the same to everybody who counts.
        let _ = lock.write_status(&status);
    }
}
