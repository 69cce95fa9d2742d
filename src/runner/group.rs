//! The processes of one attempt: started in a session of their own, ended to the last one.
//!
//! This process is a subreaper, so whatever escapes from the recipe's group by `setsid` and double
//! forks comes back here as a child. Invariant: [`end_tree`] returns only when `waitpid` says that
//! this process has no child at all.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

use super::command::Command;
use super::spawn::{self, Setting};
use crate::proc::{self, ProcessKey};
use crate::task::Exit;

/// A process that KILL does not end within this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The recipe's own process: leader of its session and group, not reaped before its tree is gone,
/// so that its numbers cannot become somebody else's.
#[derive(Debug)]
pub(super) struct Leader {
    pid: Pid,
    handle: OwnedFd,
    key: ProcessKey,
}

impl Leader {
    /// Its number and start time.
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Readable once it has ended.
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Whether it has ended; it stays a zombie.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(
            rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), options),
            Ok(Some(_))
        )
    }

    fn reap(&self) -> Exit {
        loop {
            let ended = WaitId::PidFd(self.handle.as_fd());
            match rustix::process::waitid(ended, WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Exit::Code(code),
                        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
                    };
                }
                Ok(None) | Err(Errno::INTR) => {}
                // Only this function reaps the leader, and only once.
                Err(errno) => unreachable!("the recipe's process cannot be waited for: {errno}"),
            }
        }
    }
}

/// Starts the recipe. Its process writes its line of `/proc` into the record before it is the recipe:
/// should this runner die before it has written anything of it down, the session that all of the
/// recipe begins in is known all the same.
pub(super) fn start(command: &Command<'_>, setting: &Setting<'_>) -> std::io::Result<Leader> {
    let begins = rustix::fs::tell(setting.record)?;
    let (pid, handle) = spawn::spawn(command, setting)?;
    // Not reaped yet, so the number is its own.
    let number = pid.as_raw_nonzero().get();
    let key = recorded(setting.record, begins)
        .filter(|key| key.pid == number)
        .or_else(|| proc::entry(number).map(|entry| entry.key))
        .unwrap_or(ProcessKey {
            pid: number,
            start: 0,
        });
    Ok(Leader { pid, handle, key })
}

/// What the recipe's process wrote into its record; the record is read here instead of `/proc`
/// because that costs less.
fn recorded(record: &std::fs::File, begins: u64) -> Option<ProcessKey> {
    let mut line = [0u8; 1024];
    let length = record.read_at(&mut line, begins).ok()?;
    let line = std::str::from_utf8(line.get(..length)?).ok()?;
    Some(proc::parse_stat(line)?.key)
}

/// Whether a start failed for want of something that may be there again soon.
pub(super) fn is_passing(error: &std::io::Error) -> bool {
    let passing = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::INTR,
        Errno::SRCH,
        // Somebody is writing the recipe's program this very moment.
        Errno::TXTBSY,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// Ends everything: TERM and CONT to all, `grace` to heed them, then KILL until nothing is left.
/// A leader that ended by itself and left nobody is only reaped.
pub(super) fn end_tree(leader: &Leader, grace: Duration, mut on_stuck: impl FnMut()) -> Exit {
    if !is_alone(leader) {
        end_others(leader, grace, &mut on_stuck);
    }
    let exit = leader.reap();
    end_unlisted(&mut on_stuck);
    exit
}

/// Ends the leader and everybody with it, until [`is_alone`].
fn end_others(leader: &Leader, grace: Duration, on_stuck: &mut impl FnMut()) {
    signal_all(leader, Signal::TERM);
    // A stopped process does not see TERM before it goes on.
    signal_all(leader, Signal::CONT);
    let deadline = Instant::now() + grace;
    let mut pause = PAUSE.0;
    while !is_alone(leader) && Instant::now() < deadline {
        wait_for(leader, pause.min(deadline - Instant::now()));
        pause = (pause * 2).min(PAUSE.1);
    }
    let begun = Instant::now();
    let mut told = false;
    let mut pause = PAUSE.0;
    while !is_alone(leader) {
        signal_all(leader, Signal::KILL);
        wait_for(leader, pause);
        pause = (pause * 2).min(PAUSE.1);
        if !told && begun.elapsed() > STUCK_AFTER {
            on_stuck();
            told = true;
        }
    }
}

/// The proof that nothing is left. The kernel's list of children may leave one out while others
/// end; `wait` leaves out nobody.
fn end_unlisted(mut on_stuck: impl FnMut()) {
    let begun = Instant::now();
    let mut told = false;
    let mut pause = PAUSE.0;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => {}
            Err(_) => return,
        }
        // The leader is reaped and its group's number no longer ours: each is signalled by itself.
        for entry in proc::descendants() {
            if let Some(handle) = proc::open(entry.key) {
                let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
        if !told && begun.elapsed() > STUCK_AFTER {
            on_stuck();
            told = true;
        }
    }
}

/// Whether the leader has ended and this process has no other child. Reaps the others.
fn is_alone(leader: &Leader) -> bool {
    let mut others = false;
    let children = proc::children().unwrap_or_else(|| {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        proc::all()
            .iter()
            .filter(|e| e.parent == me)
            .map(|e| e.key.pid)
            .collect()
    });
    for child in children.into_iter().filter_map(Pid::from_raw) {
        if child != leader.pid {
            let reaped = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
            others |= !matches!(reaped, Ok(Some(_)));
            // Its own children came to this process just now and were not in the list.
            others |= matches!(reaped, Ok(Some(_)));
        }
    }
    !others && leader.has_ended()
}

/// Signals the leader's group and every descendant that left it.
fn signal_all(leader: &Leader, signal: Signal) {
    // The leader is not reaped, so the group is its own.
    let _ = rustix::process::kill_process_group(leader.pid, signal);
    let group = leader.pid.as_raw_nonzero().get();
    for entry in proc::descendants()
        .into_iter()
        .filter(|entry| entry.group != group)
    {
        if let Some(handle) = proc::open(entry.key) {
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
    }
}

/// Waits until the leader ends, or the time is over.
fn wait_for(leader: &Leader, time: Duration) {
    if leader.has_ended() {
        std::thread::sleep(time);
        return;
    }
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = poll(
        &mut [PollFd::new(&leader.handle, PollFlags::IN)],
        Some(&timeout),
    );
}
