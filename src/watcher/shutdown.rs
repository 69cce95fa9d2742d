//! Leaving together with the tasks: `watch --stop-tasks`, and the first process of a container.
//!
//! A watcher that leaves otherwise leaves its runners at work. The first process of a container cannot: when
//! it ends, the kernel kills all others, and nobody would get TERM. Not the ending of a task, which its
//! runner does. Invariant: no task is cancelled by this. A task that is stopped is lost or tried again, as its
//! recipe's `on_lost` says.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::launcher::Launcher;
use super::{Signals, Watcher, reap_strangers};
use crate::proc;

/// What a runner needs beyond the grace to write down how its task ended.
const TO_WRITE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Whether this process is the first one of its pid namespace.
pub(super) fn is_first_process() -> bool {
    rustix::process::getpid().is_init()
}

impl Watcher {
    /// Passes TERM on to the runners and waits for them, and as the first process to all others as well.
    /// A second signal ends the wait.
    pub(super) fn stop_tasks(&mut self) {
        let grace = Duration::from_secs_f64(self.spool.settings().cancel_grace_sec);
        let until = Instant::now() + grace + TO_WRITE;
        tracing::info!(running = self.running(), "stopping the tasks");
        self.launcher.stop();
        let go_on = || Instant::now() < until && !Signals::came(&self.signals.stop);
        while self.launcher.has_runners() && go_on() {
            let mut fds: Vec<PollFd<'_>> = self
                .launcher
                .fds()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            fds.push(PollFd::new(&self.signals.stop, PollFlags::IN));
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: Duration::from_millis(200).subsec_nanos().into(),
            };
            let _ = poll(&mut fds, Some(&timeout));
            self.launcher.answers();
        }
        if is_first_process() {
            stop_others(go_on);
        }
        reap_strangers();
    }
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
