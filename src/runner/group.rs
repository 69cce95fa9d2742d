//! The processes of one attempt: started in their own session, and all of them ended.
//!
//! This process is a subreaper: a process that leaves the recipe's group by `setsid` and a double fork
//! becomes a child of this process. Does not end what a runner that was killed left behind
//! (`ending/recover.rs`). Invariant: [`end_tree`] returns only when `wait` reports that this process has
//! no child at all, which does not depend on `/proc`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::proc::{self, Cgroup, ProcessKey, Usage};
use crate::task::Exit;

/// A process that KILL does not end within this time is reported; the wait goes on.
const STUCK_AFTER: Duration = Duration::from_secs(5);
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Processes that fork and exit are chased without a pause for this long, because each step of theirs
/// takes less time than a pause.
const CHASE: Duration = Duration::from_millis(200);

/// The recipe's own process: leader of its session and group. It is reaped only after its tree has ended,
/// so its number cannot be reused before that.
#[derive(Debug)]
pub(super) struct Leader {
    pid: Pid,
    handle: OwnedFd,
    key: ProcessKey,
}

impl Leader {
    /// The leader that was started. Its line of `/proc` is in the record, from `begins` on.
    pub fn new(pid: Pid, handle: OwnedFd, record: &std::fs::File, begins: u64) -> Leader {
        // Not reaped yet, so the number cannot have been reused.
        let number = pid.as_raw_nonzero().get();
        let key = recorded(record, begins)
            .filter(|key| key.pid == number)
            .or_else(|| proc::entry(number).ok()?.map(|entry| entry.key))
            .unwrap_or(ProcessKey {
                pid: number,
                start: 0,
            });
        Leader { pid, handle, key }
    }

    /// Its process number and start time.
    pub fn key(&self) -> ProcessKey {
        self.key
    }

    /// Its process number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Readable once it has ended, sometimes slightly earlier: see [`Leader::has_ended`].
    pub fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Whether it has ended and can be reaped. It stays a zombie. A leader that another process traces,
    /// or that has a running thread, may appear to have ended to `poll` before.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(
            rustix::process::waitid(WaitId::PidFd(self.handle.as_fd()), options),
            Ok(Some(_))
        )
    }

    /// Whether all its threads have ended, even if a process that traces it prevents the reaping. Called
    /// once its handle is readable; that counts if `/proc` cannot be read.
    pub fn is_dead(&self) -> bool {
        let number = self.pid.as_raw_nonzero().get();
        self.has_ended()
            || match proc::entry(number) {
                Ok(entry) => entry.is_none_or(|entry| entry.is_zombie),
                Err(_) => true,
            }
    }

    /// Reaps it, once it has ended.
    fn reap(&self, usage: &mut Usage) -> Exit {
        let number = self.pid.as_raw_nonzero().get();
        loop {
            match proc::reap_any(Some(number), usage) {
                Ok(Some((_, status))) => {
                    let status = ExitStatus::from_raw(status);
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => Exit::Code(code),
                        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
                    };
                }
                // This is called only after the leader has ended.
                Ok(None) => std::thread::sleep(PAUSE.0),
                // Only this function reaps the leader, and only once.
                Err(errno) => unreachable!("the recipe's process cannot be waited for: {errno}"),
            }
        }
    }
}

/// The key that the recipe's process wrote into its record. Reading the record costs less than reading
/// `/proc`.
fn recorded(record: &std::fs::File, begins: u64) -> Option<ProcessKey> {
    let mut line = [0u8; 1024];
    let length = record.read_at(&mut line, begins).ok()?;
    let (entry, _) = proc::parse_stat(line.get(..length)?)?;
    Some(entry.key)
}

/// Whether a start failed because a resource was short. A later try may work.
pub(super) fn is_passing(error: &std::io::Error) -> bool {
    let passing = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::INTR,
        Errno::SRCH,
        // The recipe's program is open for writing.
        Errno::TXTBSY,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// The outcome of ending a tree.
#[derive(Debug)]
pub(super) struct Ended {
    /// How the leader ended.
    pub exit: Exit,
    /// The resources that all of them used.
    pub usage: Usage,
    /// The number of processes other than the leader that had to be ended.
    pub others: usize,
}

/// Ends all processes: TERM and CONT to all, then up to `grace` for them to exit, then KILL until none is
/// left. A leader that ended by itself and left no process is only reaped.
pub(super) fn end_tree(
    leader: &Leader,
    cgroup: Option<&Cgroup>,
    grace: Duration,
    mut usage: Usage,
    mut on_stuck: impl FnMut(),
) -> Ended {
    let mut others = 0;
    if !is_alone(leader) {
        others = end_others(leader, cgroup, grace, &mut usage, &mut on_stuck);
    }
    let exit = leader.reap(&mut usage);
    end_unlisted(cgroup, &mut usage, &mut on_stuck);
    Ended {
        exit,
        usage,
        others,
    }
}

/// Ends the leader and all other processes, until [`is_alone`]. Returns the number of others.
fn end_others(
    leader: &Leader,
    cgroup: Option<&Cgroup>,
    grace: Duration,
    usage: &mut Usage,
    on_stuck: &mut impl FnMut(),
) -> usize {
    let others = signal_all(leader, Signal::TERM);
    // A stopped process handles TERM only after it continues.
    signal_all(leader, Signal::CONT);
    let deadline = Instant::now() + grace;
    let mut pause = PAUSE.0;
    while !is_alone(leader) && Instant::now() < deadline {
        wait_for(
            leader,
            pause.min(deadline.saturating_duration_since(Instant::now())),
        );
        proc::reap_others(leader.pid, usage);
        pause = (pause * 2).min(PAUSE.1);
    }
    let mut chase = Chase::new(cgroup);
    while !is_alone(leader) {
        // The leader is not reaped, so the group is still its own.
        let _ = rustix::process::kill_process_group(leader.pid, Signal::KILL);
        chase.kill_all(on_stuck);
        proc::reap_others(leader.pid, usage);
    }
    others
}

/// Reaps every child until the kernel reports that there is none, and kills those that are left.
fn end_unlisted(cgroup: Option<&Cgroup>, usage: &mut Usage, mut on_stuck: impl FnMut()) {
    let mut chase = Chase::new(cgroup);
    loop {
        match proc::reap_any(None, usage) {
            Ok(Some(_)) => {}
            // The leader is reaped, so its group's number may be reused: each process is signalled by its
            // own number.
            Ok(None) => chase.kill_all(&mut on_stuck),
            Err(_) => return,
        }
    }
}

/// Kills processes until none is left.
struct Chase<'a> {
    cgroup: Option<&'a Cgroup>,
    begun: Instant,
    pause: Duration,
    is_reported: bool,
}

impl<'a> Chase<'a> {
    fn new(cgroup: Option<&'a Cgroup>) -> Chase<'a> {
        Chase {
            cgroup,
            begun: Instant::now(),
            pause: PAUSE.0,
            is_reported: false,
        }
    }

    /// Kills all processes that exist now. Processes that they leave behind become children of this
    /// process and are killed by the next call.
    fn kill_all(&mut self, on_stuck: &mut impl FnMut()) {
        if let Some(cgroup) = self.cgroup {
            // An error does not matter: the children are also killed one by one.
            let _ = cgroup.kill();
        }
        for pid in proc::children().into_iter().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if self.begun.elapsed() > CHASE {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(PAUSE.1);
        } else {
            std::thread::yield_now();
        }
        if !self.is_reported && self.begun.elapsed() > STUCK_AFTER {
            on_stuck();
            self.is_reported = true;
        }
    }
}

/// Whether the leader has ended and no other child of this process is running.
pub(super) fn is_alone(leader: &Leader) -> bool {
    leader.has_ended() && !proc::has_living_children()
}

/// Signals the leader's group and every descendant that left it. Returns the number of processes other
/// than the leader.
fn signal_all(leader: &Leader, signal: Signal) -> usize {
    let group = leader.pid.as_raw_nonzero().get();
    let descendants = proc::descendants();
    let children = proc::children();
    // The leader is not reaped, so the group is still its own.
    let _ = rustix::process::kill_process_group(leader.pid, signal);
    // Children are signalled by their numbers, which works even if /proc shows no process.
    for pid in children.iter().copied().filter_map(Pid::from_raw) {
        if pid != leader.pid && rustix::process::getpgid(Some(pid)) != Ok(leader.pid) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
    for entry in &descendants {
        if entry.group != group && !children.contains(&entry.key.pid) {
            // It may have ended, or its number may have been reused. KILL reaches it later as a child.
            let _ = proc::signal(entry.key, signal);
        }
    }
    let others = descendants.iter().filter(|entry| entry.key.pid != group);
    others.count()
}

/// Waits until the leader ends, or the time is over.
fn wait_for(leader: &Leader, time: Duration) {
    if leader.is_dead() {
        std::thread::sleep(time);
        return;
    }
    let timeout = Timespec::try_from(time).ok();
    let _ = poll(
        &mut [PollFd::new(&leader.handle, PollFlags::IN)],
        timeout.as_ref(),
    );
}
