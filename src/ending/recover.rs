//! What a dead runner left: find it, end it, and say whether anything may have run.
//!
//! Runs under the task's lock, before its next holder writes anything. Where the dead runner had a
//! cgroup, that is exact; else `search.rs` says whose a process is. A bare number found on the disk is
//! never signalled. Invariant: unless it is given up, no process of the attempt is alive when this
//! returns, and what cannot be looked at is waited for.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::report::report_stuck;
use super::search::{Look, Search};
use crate::clock::BootId;
use crate::proc::{self, Cgroup, ProcessKey};
use crate::spool::{Attempt, IoError, Record, RunFile, TaskLock};

/// What still stands in the way after this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A look can miss a process that is just forking or being executed. So many in a row that find
/// nothing are a proof, where each of them saw everybody to the end; on a busy machine some process
/// always leaves in between, and then so many, because one that forks on and on is met by chance.
const LOOKS_IN_VAIN: u32 = 2;
const PARTIAL_LOOKS_IN_VAIN: u32 = 40;
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// For so long what is found is stopped and the rest followed, before all of it is killed.
const CHASE: Duration = Duration::from_secs(2);

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
    tag: &str,
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
    // in a copy of a spool they are another one's living tasks. The tag finds what it finds.
    let mut wait = Wait::new(lock, go_on);
    let Some(run) = recorded(attempt, tag, &mut wait) else {
        return Ok(Lost::GivenUp);
    };
    let run = run.filter(|run| run.boot == *boot);
    let run = run.filter(|run| run.tag == tag || is_without_place(&run.tag, tag));
    let cgroup = run.as_ref().and_then(cgroup_of_dead);
    let is_emptied = match &cgroup {
        Some(cgroup) => match empty(cgroup, &mut wait) {
            Some(is_emptied) => is_emptied,
            None => return Ok(Lost::GivenUp),
        },
        None => false,
    };
    let mut search = Search::new(attempt.as_fd(), tag, run.as_ref(), is_emptied);
    if run.as_ref().is_some_and(|run| run.tag != tag) {
        search.ask_for_place(tag);
    }
    Ok(ended(kill_all(&mut search, is_emptied, &mut wait)))
}

/// Who ran it, where somebody said so; `None` when the wait was given up. What cannot be read may name living
/// processes: it is waited for, after what the tag finds was ended.
fn recorded(attempt: &Attempt, tag: &str, wait: &mut Wait<'_>) -> Option<Option<RunFile>> {
    let mut has_looked = false;
    loop {
        let path = match attempt.record() {
            Record::Is(run) => return Some(Some(*run)),
            Record::Absent => return Some(None),
            Record::Unreadable(path) => path,
        };
        if !has_looked {
            let mut search = Search::new(attempt.as_fd(), tag, None, false);
            has_looked = kill_all(&mut search, false, wait);
            if !has_looked {
                return None;
            }
        }
        let why = || {
            let path = path.display();
            format!(
                "{path} cannot be read, so a process of it may be alive; remove it once none is"
            )
        };
        if !wait.on(why) {
            return None;
        }
    }
}

fn ended(is_ended: bool) -> Lost {
    if is_ended {
        Lost::MayHaveRun
    } else {
        Lost::GivenUp
    }
}

/// Whether a recorded tag is this one as programs of version 1 wrote it: without device and inode, so that a copy
/// of the spool has the same.
fn is_without_place(recorded: &str, tag: &str) -> bool {
    tag.rsplit_once('/')
        .is_some_and(|(before, _)| recorded == before)
}

/// Like [`recover`], for an attempt whose folder somebody moved or removed.
pub(super) fn recover_gone(lock: &TaskLock, tag: &str, go_on: &dyn Fn() -> bool) -> Lost {
    let mut search = Search::new(lock.task().as_fd(), tag, None, false);
    ended(kill_all(&mut search, false, &mut Wait::new(lock, go_on)))
}

/// The cgroup of a runner that is known to be dead: all that is in it is the attempt's.
fn cgroup_of_dead(run: &RunFile) -> Option<Cgroup> {
    let path = run.cgroup.as_deref()?;
    if !matches!(proc::is_alive(run.runner), Ok(false)) {
        return None;
    }
    Cgroup::find(Path::new(path), run.runner).unwrap_or_else(|error| {
        tracing::debug!("the cgroup {path} is not used: {error}");
        None
    })
}

/// Kills all that is in it. `None` when the wait was given up, `false` when it cannot be told.
fn empty(cgroup: &Cgroup, wait: &mut Wait<'_>) -> Option<bool> {
    loop {
        match cgroup.is_empty() {
            Ok(true) => return Some(true),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!("{error}");
                return Some(false);
            }
        }
        if let Err(error) = cgroup.kill() {
            tracing::debug!("the cgroup cannot be killed: {error}");
            return Some(false);
        }
        if !wait.on(|| "a process of it does not die".to_owned()) {
            return None;
        }
    }
}

/// Kills what the search finds, until it finds nobody. `false` when that was given up before.
fn kill_all(search: &mut Search<'_>, is_emptied: bool, wait: &mut Wait<'_>) -> bool {
    let (mut whole_in_vain, mut in_vain) = (0, 0);
    let mut stopped: Vec<ProcessKey> = Vec::new();
    let begun = Instant::now();
    while whole_in_vain < LOOKS_IN_VAIN && in_vain < PARTIAL_LOOKS_IN_VAIN {
        let look = match search.look() {
            Ok(look) => look,
            // All that was in it is dead, and what moved out of it cannot be looked for.
            Err(error) if is_emptied => {
                tracing::debug!("{error}");
                return true;
            }
            Err(error) => {
                (whole_in_vain, in_vain) = (0, 0);
                if !wait.on(|| format!("its processes cannot be looked for: {error}")) {
                    return false;
                }
                continue;
            }
        };
        if look.ours.is_empty() && look.hidden.is_empty() {
            if let Some(doubt) = look.doubt {
                (whole_in_vain, in_vain) = (0, 0);
                if !wait.on(|| doubt.to_string()) {
                    return false;
                }
                continue;
            }
            in_vain += 1;
            whole_in_vain = if look.is_whole { whole_in_vain + 1 } else { 0 };
            wait.begin_anew();
            std::thread::sleep(PAUSE.0);
            continue;
        }
        (whole_in_vain, in_vain) = (0, 0);
        // What forks and leaves is stopped first: killed one by one, each would be replaced in time.
        let is_new = |key: &ProcessKey| !stopped.contains(key);
        let new: Vec<ProcessKey> = look.ours.iter().map(|e| e.key).filter(is_new).collect();
        if !new.is_empty() && begun.elapsed() < CHASE {
            for key in new {
                // Gone in between, or not ours to signal: the next look tells.
                let _ = proc::signal(key, Signal::STOP);
                stopped.push(key);
            }
            continue;
        }
        kill(&look);
        if !wait.on(|| "a process of it does not die".to_owned()) {
            return false;
        }
    }
    true
}

fn kill(look: &Look) {
    for entry in &look.ours {
        let _ = proc::signal(entry.key, Signal::KILL);
    }
    for pid in look.hidden.iter().copied().filter_map(Pid::from_raw) {
        // Its session is asked for once more after the handle was taken.
        let session = rustix::process::getsid(Some(pid));
        let _ = rustix::process::pidfd_open(pid, PidfdFlags::empty()).and_then(|handle| {
            if rustix::process::getsid(Some(pid)) == session {
                rustix::process::pidfd_send_signal(&handle, Signal::KILL)
            } else {
                Ok(())
            }
        });
    }
}

/// Waiting for what stands in the way.
struct Wait<'a> {
    lock: &'a TaskLock,
    go_on: &'a dyn Fn() -> bool,
    begun: Instant,
    pause: Duration,
    message: bool,
}

impl<'a> Wait<'a> {
    fn new(lock: &'a TaskLock, go_on: &'a dyn Fn() -> bool) -> Wait<'a> {
        Wait {
            lock,
            go_on,
            begun: Instant::now(),
            pause: PAUSE.0,
            message: false,
        }
    }

    fn begin_anew(&mut self) {
        self.pause = PAUSE.0;
    }

    /// Waits a little longer than the last time; `false` when the caller does not want to.
    fn on(&mut self, why: impl Fn() -> String) -> bool {
        if !self.message && self.begun.elapsed() > STUCK_AFTER {
            report_stuck(self.lock, &why());
            self.message = true;
        }
        if !(self.go_on)() {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
        true
    }
}
