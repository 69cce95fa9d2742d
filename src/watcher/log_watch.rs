//! The log of an autostarted watcher kept short while it lives.
//!
//! Not what is written to it (`cli/log.rs`). The watcher, its runners and its sweeps all write to it;
//! only the watcher shortens it. Invariant: while nobody writes, nobody wakes for it.

use std::time::{Duration, Instant};

use crate::spool::Spool;

/// How often a log that grows is looked at.
const PAUSE: Duration = Duration::from_millis(250);

/// When the log was looked at last.
#[derive(Debug)]
pub(super) struct LogWatch {
    /// Whether it is ours to look after: the log of other watchers is somebody else's file.
    is_ours: bool,
    size: u64,
    looked_at: Option<Instant>,
    is_growing: bool,
}

impl LogWatch {
    pub fn new(is_ours: bool) -> LogWatch {
        LogWatch {
            is_ours,
            size: 0,
            looked_at: None,
            is_growing: false,
        }
    }

    /// Shortens the log where it is long; at most so often as it makes sense.
    pub fn look(&mut self, spool: &Spool) {
        let now = Instant::now();
        if !self.is_ours || self.looked_at.is_some_and(|at| now < at + PAUSE) {
            return;
        }
        self.looked_at = Some(now);
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

    /// When to look again although nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        self.looked_at
            .filter(|_| self.is_growing)
            .map(|at| at + PAUSE)
    }
}
