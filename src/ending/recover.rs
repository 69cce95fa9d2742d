//! Finds and ends what a killed runner left behind, and returns whether the recipe may have run.
//!
//! Does not decide what follows for the task (`lost.rs`). Runs under the task's lock, before its next
//! holder writes anything. If the killed runner had a cgroup, the result is exact; otherwise `search.rs`
//! decides which processes belong to the attempt. A bare number read from the disk is never signalled.
//! Invariant: unless the wait is given up, no process of the attempt is alive on return, and a process
//! that cannot be checked is waited for.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::report::report_stuck;
use super::search::{Scan, Search};
use crate::clock::BootId;
use crate::proc::{self, Cgroup, ProcessKey};
use crate::spool::{Attempt, IoError, Record, RunFile, TaskLock};

/// A process that is still in the way after this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A scan can miss a process that is just forking or being executed, so this many complete scans in a row
/// must find nothing.
const EMPTY_SCANS: u32 = 2;
/// On a busy machine some process always exits during a scan, so no scan is complete. Then this many scans
/// in a row must find nothing: a process that keeps forking is found by one of them.
const EMPTY_PARTIAL_SCANS: u32 = 40;
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));
/// For this long, processes that are found are only stopped, and new ones searched for, before all of
/// them are killed.
const CHASE: Duration = Duration::from_secs(2);

/// What is known about a lost attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The runner ended before it started anything.
    NothingRan,
    /// The recipe may have run, partly or completely.
    MayHaveRun,
    /// The caller stopped waiting. A process may still be alive.
    GivenUp,
}

/// Ends what is left of an attempt. `go_on` is called while a process cannot be killed; false gives up.
pub(super) fn recover(
    lock: &TaskLock,
    attempt: &Attempt,
    tag: &str,
    boot: &BootId,
    go_on: &dyn Fn() -> bool,
) -> Result<Lost, IoError> {
    if !lock.started_in(attempt.number(), boot)? {
        // It ran in another boot, so none of its processes can be alive.
        return Ok(Lost::MayHaveRun);
    }
    if !attempt.may_have_run()? {
        return Ok(Lost::NothingRan);
    }
    // Process numbers count only in their pid namespace, and only if the record is of this spool: in a
    // copy of a spool they belong to running tasks of the original. The search by tag does not depend on
    // them.
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

/// The record of who ran the attempt, if there is one. `None` if the wait was given up. A record that
/// cannot be read may name running processes: after the processes with the tag are ended, it is waited
/// for.
fn recorded(attempt: &Attempt, tag: &str, wait: &mut Wait<'_>) -> Option<Option<RunFile>> {
    let mut has_searched = false;
    loop {
        let path = match attempt.record() {
            Record::Is(run) => return Some(Some(*run)),
            Record::Absent => return Some(None),
            Record::Unreadable(path) => path,
        };
        if !has_searched {
            let mut search = Search::new(attempt.as_fd(), tag, None, false);
            has_searched = kill_all(&mut search, false, wait);
            if !has_searched {
                return None;
            }
        }
        let why = || {
            let path = path.display();
            format!(
                "{path} cannot be read, so a process of the attempt may still be running; remove the file when no such process is running"
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

/// Whether a recorded tag is this tag in the form of version 1 programs: without device and inode, so a
/// copy of the spool has the same one.
fn is_without_place(recorded: &str, tag: &str) -> bool {
    tag.rsplit_once('/')
        .is_some_and(|(before, _)| recorded == before)
}

/// Like [`recover`], for an attempt whose folder was moved or removed.
pub(super) fn recover_gone(lock: &TaskLock, tag: &str, go_on: &dyn Fn() -> bool) -> Lost {
    let mut search = Search::new(lock.task().as_fd(), tag, None, false);
    ended(kill_all(&mut search, false, &mut Wait::new(lock, go_on)))
}

/// The cgroup of a runner that is known to have ended: all processes in it are the attempt's.
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

/// Kills all processes in the cgroup. `None` if the wait was given up, `false` if it cannot be determined
/// whether the cgroup is empty.
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
        if !wait.on(|| "one of its processes cannot be killed".to_owned()) {
            return None;
        }
    }
}

/// Kills the processes that the search finds, until it finds none. `false` if the wait was given up.
fn kill_all(search: &mut Search<'_>, is_emptied: bool, wait: &mut Wait<'_>) -> bool {
    let (mut empty_whole, mut empty_any) = (0, 0);
    let mut stopped: Vec<ProcessKey> = Vec::new();
    let begun = Instant::now();
    while empty_whole < EMPTY_SCANS && empty_any < EMPTY_PARTIAL_SCANS {
        let scan = match search.scan() {
            Ok(scan) => scan,
            // All processes in the cgroup are dead, and those that moved out of it cannot be searched
            // for.
            Err(error) if is_emptied => {
                tracing::debug!("{error}");
                return true;
            }
            Err(error) => {
                (empty_whole, empty_any) = (0, 0);
                if !wait.on(|| format!("its processes cannot be searched for: {error}")) {
                    return false;
                }
                continue;
            }
        };
        if scan.ours.is_empty() && scan.hidden.is_empty() {
            if let Some(doubt) = scan.doubt {
                (empty_whole, empty_any) = (0, 0);
                if !wait.on(|| doubt.to_string()) {
                    return false;
                }
                continue;
            }
            empty_any += 1;
            empty_whole = if scan.is_whole { empty_whole + 1 } else { 0 };
            wait.reset_pause();
            std::thread::sleep(PAUSE.0);
            continue;
        }
        (empty_whole, empty_any) = (0, 0);
        // Processes that fork and exit are stopped first: killed one by one, each would have been
        // replaced.
        let is_new = |key: &ProcessKey| !stopped.contains(key);
        let new: Vec<ProcessKey> = scan.ours.iter().map(|e| e.key).filter(is_new).collect();
        if !new.is_empty() && begun.elapsed() < CHASE {
            for key in new {
                // It may have ended, or may not be signalled: the next scan shows that.
                let _ = proc::signal(key, Signal::STOP);
                stopped.push(key);
            }
            continue;
        }
        kill(&scan);
        if !wait.on(|| "one of its processes cannot be killed".to_owned()) {
            return false;
        }
    }
    true
}

fn kill(scan: &Scan) {
    for entry in &scan.ours {
        let _ = proc::signal(entry.key, Signal::KILL);
    }
    for pid in scan.hidden.iter().copied().filter_map(Pid::from_raw) {
        // The session is read again after the handle was opened.
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

/// Waits for what is in the way.
struct Wait<'a> {
    lock: &'a TaskLock,
    go_on: &'a dyn Fn() -> bool,
    begun: Instant,
    pause: Duration,
    is_reported: bool,
}

impl<'a> Wait<'a> {
    fn new(lock: &'a TaskLock, go_on: &'a dyn Fn() -> bool) -> Wait<'a> {
        Wait {
            lock,
            go_on,
            begun: Instant::now(),
            pause: PAUSE.0,
            is_reported: false,
        }
    }

    fn reset_pause(&mut self) {
        self.pause = PAUSE.0;
    }

    /// Waits a little longer than the last time. `false` if the caller gives up.
    fn on(&mut self, why: impl Fn() -> String) -> bool {
        if !self.is_reported && self.begun.elapsed() > STUCK_AFTER {
            report_stuck(self.lock, &why());
            self.is_reported = true;
        }
        if !(self.go_on)() {
            return false;
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
        true
    }
}
