//! Checks whether the spool is still at its path.
//!
//! Does not act on it (`run.rs` exits). Invariant: the removal of a spool is noticed while its watcher
//! waits, although the kernel sends no event when a folder that is open is removed.

use std::time::{Duration, Instant};

use crate::spool::{PathLeads, Seen, Spool};

/// After something was removed from the root, for how long and how often to check whether the root is
/// removed too.
const CHECKS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(50));

/// What is known about the spool's root.
#[derive(Debug, Default)]
pub(super) struct RootWatch {
    /// Until when to check often whether the root still exists.
    in_doubt: Option<Instant>,
}

impl RootWatch {
    /// Whether the spool's path leads elsewhere or nowhere now, or the spool was emptied.
    pub fn has_moved(&mut self, spool: &Spool, seen: &Seen) -> bool {
        let now = Instant::now();
        if seen.root {
            self.in_doubt = Some(now + CHECKS.0);
        }
        let is_in_doubt = self.in_doubt.is_some_and(|until| now < until);
        if !is_in_doubt {
            self.in_doubt = None;
        }
        spool.path_leads() == PathLeads::Elsewhere || (is_in_doubt && spool.is_emptied())
    }

    /// When to check again although nothing happened.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.in_doubt.map(|_| now + CHECKS.1)
    }
}
