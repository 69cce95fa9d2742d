//! What a watcher tells the service manager that started it: ready, alive, busy with what.
//!
//! The words are systemd's (`sd_notify(3)`), spoken by the `sd-notify` crate, which reads
//! `NOTIFY_SOCKET` and `WATCHDOG_USEC` itself; without them every call here does nothing. Not the
//! log (`cli/log.rs`). Invariant: a sign of life is sent only from the loop that does the work, so a
//! loop that hangs sends none and is started anew.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The text is sent at most so often: it is for people.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The service manager, as far as a watcher speaks to it.
#[derive(Debug)]
pub(super) struct Service {
    /// Half of the time after which silence counts as hanging; `None` without a watchdog.
    sign_every: Option<Duration>,
    next_sign: Instant,
    is_ready: bool,
    message: Counts,
    reported_at: Option<Instant>,
}

/// What the status line counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tasks that no runner has.
    pub pending: usize,
    /// Tasks that are with a runner, of this watcher or of another.
    pub running: usize,
}

impl Service {
    /// Asks the environment what the manager wants to hear.
    pub fn new() -> Service {
        let mut limit = 0;
        let has_watchdog = sd_notify::watchdog_enabled(false, &mut limit);
        Service {
            sign_every: has_watchdog.then(|| Duration::from_micros(limit) / 2),
            next_sign: Instant::now(),
            is_ready: false,
            message: Counts::default(),
            reported_at: None,
        }
    }

    /// The end of one round of the loop: says that we live, and what there is to do. The first call
    /// says that we are ready, so it must come after the first scan.
    pub fn round_done(&mut self, counts: Counts) {
        let now = Instant::now();
        if self.sign_every.is_some() && now >= self.next_sign {
            tell(&[NotifyState::Watchdog]);
            self.next_sign = now + self.sign_every.unwrap_or_default();
        }
        let is_new = counts != self.message || self.reported_at.is_none();
        let is_due = self.reported_at.is_none_or(|at| at + TELL_EVERY <= now);
        if is_new && is_due {
            let Counts { pending, running } = counts;
            let text = format!("{running} running, {pending} pending");
            tell(&[NotifyState::Status(&text)]);
            self.message = counts;
            self.reported_at = Some(now);
        }
        if !self.is_ready {
            self.is_ready = true;
            tell(&[NotifyState::Ready]);
        }
    }

    /// The settings are about to be read again. The time makes it a reload that the manager can
    /// match with its request (`Type=notify-reload`, systemd 253); older ones ignore it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// They were read.
    pub fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// We are about to leave.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// When the loop must come by here again although nothing happened.
    pub fn wake_at(&self, counts: Counts) -> Option<Instant> {
        let sign = self.sign_every.map(|_| self.next_sign);
        let text = self
            .reported_at
            .filter(|_| counts != self.message)
            .map(|at| at + TELL_EVERY);
        sign.into_iter().chain(text).min()
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to stop working, and it will act on the silence.
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!("the service manager was not reached: {error}");
    }
}
