//! Reports to the service manager that started the watcher: ready, alive, and what it works on.
//!
//! Does not write the log (`cli/log.rs`). The protocol is systemd's (`sd_notify(3)`), implemented by the
//! `sd-notify` crate, which reads `NOTIFY_SOCKET` and `WATCHDOG_USEC` itself. Without these variables
//! every call here does nothing. Invariant: the watchdog signal is sent only from the loop that does the
//! work, so a loop that hangs sends none and the watcher is restarted.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The shortest time between two status texts, which are for people.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The connection of a watcher to the service manager.
#[derive(Debug)]
pub(super) struct Service {
    /// Half of the watchdog's timeout; `None` without a watchdog.
    watchdog_every: Option<Duration>,
    next_watchdog: Instant,
    is_ready: bool,
    reported: Counts,
    reported_at: Option<Instant>,
}

/// What the status line counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// The number of tasks that no runner has.
    pub pending: usize,
    /// The number of tasks that a runner has, of this watcher or of another.
    pub running: usize,
}

impl Service {
    /// Reads from the environment what the manager expects.
    pub fn new() -> Service {
        let mut limit = 0;
        let has_watchdog = sd_notify::watchdog_enabled(false, &mut limit);
        Service {
            watchdog_every: has_watchdog.then(|| Duration::from_micros(limit) / 2),
            next_watchdog: Instant::now(),
            is_ready: false,
            reported: Counts::default(),
            reported_at: None,
        }
    }

    /// Called at the end of a round: sends the watchdog signal and the counts. The first call reports
    /// that the watcher is ready, so it must come after the first scan.
    pub fn round_done(&mut self, counts: Counts) {
        let now = Instant::now();
        if self.watchdog_every.is_some() && now >= self.next_watchdog {
            send(&[NotifyState::Watchdog]);
            self.next_watchdog = now + self.watchdog_every.unwrap_or_default();
        }
        let is_new = counts != self.reported || self.reported_at.is_none();
        let is_due = self.reported_at.is_none_or(|at| at + STATUS_EVERY <= now);
        if is_new && is_due {
            let Counts { pending, running } = counts;
            let text = format!("{running} running, {pending} pending");
            send(&[NotifyState::Status(&text)]);
            self.reported = counts;
            self.reported_at = Some(now);
        }
        if !self.is_ready {
            self.is_ready = true;
            send(&[NotifyState::Ready]);
        }
    }

    /// Reports that the settings are about to be read again. With the time, the manager can match the
    /// reload with its request (`Type=notify-reload`, systemd 253). Older managers ignore it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// Reports that the settings were read.
    pub fn reloaded(&self) {
        send(&[NotifyState::Ready]);
    }

    /// Reports that the watcher is about to exit.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// When the loop must call [`Service::round_done`] again although nothing happened.
    pub fn wake_at(&self, counts: Counts) -> Option<Instant> {
        let watchdog = self.watchdog_every.map(|_| self.next_watchdog);
        let text = self
            .reported_at
            .filter(|_| counts != self.reported)
            .map(|at| at + STATUS_EVERY);
        watchdog.into_iter().chain(text).min()
    }
}

fn send(state: &[NotifyState<'_>]) {
    // An error is no reason to stop working. The manager acts on a missing watchdog signal by itself.
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!("failed to notify the service manager: {error}");
    }
}
