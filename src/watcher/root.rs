//! Whether the spool is still where it was.
//!
//! Not what follows (`run.rs` leaves). Invariant: a spool that was removed while its watcher waits is noticed, although a
//! folder that is held open is removed without a word.

use std::time::{Duration, Instant};

use crate::spool::{PathLeads, Seen, Spool};

/// Something left the root: for so long it is looked at so often whether the root goes as well.
const LOOKS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(50));

/// What is known of the spool's root.
#[derive(Debug, Default)]
pub(super) struct RootWatch {
    /// Until when it is looked often whether the root is still there.
    in_doubt: Option<Instant>,
}

impl RootWatch {
    /// Whether the spool's path leads elsewhere or nowhere by now, or the spool was emptied.
    pub fn has_moved(&mut self, spool: &Spool, seen: &Seen) -> bool {
        let now = Instant::now();
        if seen.root {
            self.in_doubt = Some(now + LOOKS.0);
        }
        let is_in_doubt = self.in_doubt.is_some_and(|until| now < until);
        if !is_in_doubt {
            self.in_doubt = None;
        }
        spool.path_leads() == PathLeads::Elsewhere || (is_in_doubt && spool.is_emptied())
    }

    /// When to look again although nothing happens.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.in_doubt.map(|_| now + LOOKS.1)
    }
}
