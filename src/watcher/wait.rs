//! How long a round of the watcher waits, and for what.
//!
//! Not what it does then (`run.rs`). Invariant: it wakes no later than the next thing that is due.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::run::Watcher;

impl Watcher {
    /// When the loop must continue although nothing happened.
    pub(super) fn wake_at(&self, now: Instant) -> Instant {
        let mut until = self.next_rescan;
        // Without a free runner nothing can be offered, and an answer wakes us. A time that has passed
        // would only keep the loop spinning.
        if self.paused.is_none() && self.launcher.has_room(self.most_at_once()) {
            until = until.min(self.backlog.wake_at().unwrap_or(until));
        }
        until = until.min(self.admitter.wake_at().unwrap_or(until));
        until = until.min(self.root.wake_at(now).unwrap_or(until));
        until = until.min(self.log_watch.wake_at().unwrap_or(until));
        until = until.min(self.listener.wake_at(&self.launcher).unwrap_or(until));
        if self.options.autostarted && self.work().is_idle() {
            let patience = Duration::from_secs_f64(self.spool.settings().idle_exit_sec);
            until = until.min(self.busy_at + patience);
        }
        if let Some(service) = &self.service {
            until = until.min(service.wake_at(self.counts()).unwrap_or(until));
        }
        if self.reconcile.is_running() || !self.markers.is_over() || self.admitter.has_more() {
            until = now;
        }
        until
    }

    pub(super) fn wait(&self) {
        let now = Instant::now();
        let left = self.wake_at(now).saturating_duration_since(now);
        // A time too long for the kernel becomes no timeout.
        let timeout = Timespec::try_from(left).ok();
        let mut fds: Vec<PollFd<'_>> = [
            self.listener.as_fd(),
            self.signals.stop.as_fd(),
            self.signals.reload.as_fd(),
            self.signals.child.as_fd(),
        ]
        .into_iter()
        .chain(self.launcher.fds())
        .map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
        // Interrupted or failed: the loop checks everything again in both cases.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}
