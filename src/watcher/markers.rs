//! Cancellation markers that were made with `touch`, which nobody hears of.
//!
//! Not those of running tasks (`listen.rs`). Invariant: so few tasks are looked at between two rounds of the loop that
//! nothing waits for it.

use super::backlog::Backlog;
use crate::spool::Spool;
use crate::task::TaskId;

/// Pending tasks whose marker is looked for after a rescan; the CLI's `cancel` needs no such look.
const MARKERS: usize = 1000;
/// How many tasks are looked at, for markers or after a boot for hints, before others are dispatched:
/// where nothing is in memory yet, each look waits for the disk.
pub(super) const LOOKS_AT_ONCE: usize = 100;

/// Pending tasks whose marker is to be looked for.
#[derive(Debug, Default)]
pub(super) struct Markers {
    /// The last one first.
    unlooked: Vec<TaskId>,
}

impl Markers {
    /// After a scan: the oldest pending tasks.
    pub fn begin(&mut self, backlog: &Backlog) {
        self.unlooked = backlog.pending().take(MARKERS).collect();
        self.unlooked.reverse();
    }

    /// Whether all of them were looked at.
    pub fn is_over(&self) -> bool {
        self.unlooked.is_empty()
    }

    /// Finds markers, a few at a time and only once what can run runs; whether one was there.
    pub fn look(&mut self, spool: &Spool, backlog: &mut Backlog) -> bool {
        let mut has_found = false;
        let left = self.unlooked.len().saturating_sub(LOOKS_AT_ONCE);
        for id in self.unlooked.split_off(left).into_iter().rev() {
            // One that cannot be looked at is a runner's to report; the others wait for nothing.
            if let Ok(Some(task)) = spool.task(id)
                && task.cancel_requested().unwrap_or(false)
            {
                backlog.hurry(id);
                has_found = true;
            }
        }
        has_found
    }
}
