//! Leaving together with the tasks: `watch --stop-tasks`, and the first process of a container.
//!
//! A watcher that leaves otherwise leaves its runners at work. The first process of a container cannot: when
//! it ends, the kernel kills all others, and nobody would get TERM. Not the ending of a task, which its
//! runner does. Invariant: no task is cancelled by this. A task that is stopped is lost or tried again, as its
//! recipe's `on_lost` says.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions};

use crate::launcher::LocalPool;
use crate::proc;
use crate::spool::Spool;
use crate::sys::SignalPipe;

/// What a runner needs beyond the grace to write down how its task ended.
const TO_WRITE: Duration = Duration::from_secs(5);
/// How often it is looked whether a runner is left.
const LOOKS: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(20);

/// Whether this process is the first one of its pid namespace.
pub(super) fn is_first_process() -> bool {
    rustix::process::getpid().is_init()
}

/// Passes TERM on to the runners and waits for them, and as the first process to all others as well.
/// A second signal ends the wait.
pub(super) fn stop_tasks(spool: &Spool, launcher: &mut LocalPool, stop: &SignalPipe) {
    let grace = Duration::from_secs_f64(spool.settings().cancel_grace_sec);
    let until = Instant::now() + grace + TO_WRITE;
    tracing::info!(running = launcher.running().count(), "stopping the tasks");
    launcher.stop();
    let go_on = || Instant::now() < until && !stop.came();
    let timeout = Timespec::try_from(LOOKS).ok();
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

/// Reaps runners and sweeps that ended, and, as a container's first process, whoever came to us:
/// any child, of whatever group.
pub(super) fn reap_strangers() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// All that is left in the container, as what somebody started in it by hand.
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
        // Of another user, perhaps: the kernel ends it with this process.
        let _ = proc::signal(entry.key, Signal::TERM);
    }
    while !others().is_empty() && go_on() {
        std::thread::sleep(PAUSE);
    }
}
