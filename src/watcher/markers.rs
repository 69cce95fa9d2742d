//! Finds cancel markers that were created with `touch`, which causes no event that a watcher receives.
//!
//! Does not check running tasks (`listen.rs`). Invariant: one round of the loop checks so few tasks that
//! nothing else is delayed.

use super::backlog::Backlog;
use crate::spool::Spool;
use crate::task::TaskId;

/// The number of pending tasks that are checked for a marker after a rescan. The command `cancel` does
/// not need this check.
const MARKERS: usize = 1000;
/// The number of tasks that are checked, for markers or after a boot for index entries, before other
/// tasks are dispatched. If nothing is cached yet, each check waits for the disk.
pub(super) const CHECKS_AT_ONCE: usize = 100;

/// Pending tasks that are still to be checked for a marker.
#[derive(Debug, Default)]
pub(super) struct Markers {
    /// In reverse order.
    unchecked: Vec<TaskId>,
}

impl Markers {
    /// Starts again after a scan, with the oldest pending tasks.
    pub fn begin(&mut self, backlog: &Backlog) {
        self.unchecked = backlog.pending().take(MARKERS).collect();
        self.unchecked.reverse();
    }

    /// Whether all of them were checked.
    pub fn is_over(&self) -> bool {
        self.unchecked.is_empty()
    }

    /// Checks a few tasks for markers. Called after tasks were dispatched. Returns whether there was a
    /// marker.
    pub fn check_some(&mut self, spool: &Spool, backlog: &mut Backlog) -> bool {
        let mut has_found = false;
        let left = self.unchecked.len().saturating_sub(CHECKS_AT_ONCE);
        for id in self.unchecked.split_off(left).into_iter().rev() {
            // A runner reports a task that cannot be read. The other tasks are checked nevertheless.
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
