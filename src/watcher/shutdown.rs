//! Stops the tasks before the watcher exits: for `watch --stop-tasks`, and for the first process of a
//! container.
//!
//! Does not end a task; its runner does. Usually runners keep working when a watcher exits. That is not
//! possible for the first process of a container: when it exits, the kernel kills all other processes
//! without a TERM. Invariant: no task is cancelled here. A task that is stopped is lost or tried again,
//! as its recipe's `on_lost` defines.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions};

use crate::launcher::LocalPool;
use crate::proc;
use crate::spool::Spool;
use crate::sys::SignalPipe;

/// The time that a runner needs after the grace period to write how its task ended.
const TO_WRITE: Duration = Duration::from_secs(5);
/// How often to check whether a runner is left.
const CHECK_EVERY: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(20);

/// Whether this process is the first one of its pid namespace.
pub(super) fn is_first_process() -> bool {
    rustix::process::getpid().is_init()
}

/// Sends TERM to the runners and waits for them. The first process of a container does so for all other
/// processes too. A second signal ends the wait.
pub(super) fn stop_tasks(spool: &Spool, launcher: &mut LocalPool, stop: &SignalPipe) {
    let grace = Duration::from_secs_f64(spool.settings().cancel_grace_sec);
    let until = Instant::now() + grace + TO_WRITE;
    tracing::info!(running = launcher.running().count(), "stopping the tasks");
    launcher.stop();
    let go_on = || Instant::now() < until && !stop.came();
    let timeout = Timespec::try_from(CHECK_EVERY).ok();
    while launcher.has_runners() && go_on() {
        let mut fds: Vec<PollFd<'_>> = launcher
            .fds()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(stop, PollFlags::IN));
        let _ = poll(&mut fds, timeout.as_ref());
        launcher.answers();
    }
    if is_first_process() {
        stop_others(go_on);
    }
    reap_strangers();
}

/// Reaps runners and sweeps that ended. The first process of a container also reaps the processes that it
/// adopted, whatever their group.
pub(super) fn reap_strangers() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Stops all other processes in the container, for example those that a person started there.
fn stop_others(go_on: impl Fn() -> bool) {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let others = || {
        reap_strangers();
        let numbers = proc::numbers().unwrap_or_default();
        let entries = numbers.into_iter().filter_map(|pid| proc::entry(pid).ok()?);
        entries
            .filter(|entry| entry.key.pid != me && !entry.is_zombie && entry.session != 0)
            .collect::<Vec<_>>()
    };
    for entry in others() {
        // It may be of another user. Then the kernel ends it with this process.
        let _ = proc::signal(entry.key, Signal::TERM);
    }
    while !others().is_empty() && go_on() {
        std::thread::sleep(PAUSE);
    }
}
