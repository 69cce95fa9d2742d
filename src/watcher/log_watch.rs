//! Keeps the log of an autostarted watcher short while the watcher runs.
//!
//! Does not write the log (`cli/log.rs`). The watcher, its runners and its sweeps all write to it; only
//! the watcher shortens it. Invariant: while nothing is written, this causes no wake-ups.

use std::time::{Duration, Instant};

use crate::spool::Spool;

/// How often to check a log that grows.
const PAUSE: Duration = Duration::from_millis(250);

/// When the log was checked last.
#[derive(Debug)]
pub(super) struct LogWatch {
    /// Whether this watcher shortens the log. Watchers that were not autostarted log to a file that is
    /// not ours.
    is_ours: bool,
    size: u64,
    checked_at: Option<Instant>,
    is_growing: bool,
}

impl LogWatch {
    pub fn new(is_ours: bool) -> LogWatch {
        LogWatch {
            is_ours,
            size: 0,
            checked_at: None,
            is_growing: false,
        }
    }

    /// Shortens the log if it is too long, at most once in each [`PAUSE`].
    pub fn check(&mut self, spool: &Spool) {
        let now = Instant::now();
        if !self.is_ours || self.checked_at.is_some_and(|at| now < at + PAUSE) {
            return;
        }
        self.checked_at = Some(now);
        match spool.bound_watcher_log() {
            Ok(size) => {
                self.is_growing = size != self.size;
                self.size = size;
            }
            Err(error) => {
                self.is_growing = false;
                tracing::debug!("{error}");
            }
        }
    }

    /// When to check again although nothing else happened.
    pub fn wake_at(&self) -> Option<Instant> {
        self.checked_at
            .filter(|_| self.is_growing)
            .map(|at| at + PAUSE)
    }
}
