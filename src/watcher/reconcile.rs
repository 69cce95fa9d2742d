//! Compares `tasks/` with `open/`, once for each boot and once for each watcher.
//!
//! Does not scan `open/` (`run.rs`). Invariant: no task of this boot waits for the comparison; after a
//! boot, the tasks of a session do, because their order depends on it.

use super::backlog::Backlog;
use super::markers::CHECKS_AT_ONCE;
use crate::log_limit::LogLimit;
use crate::spool::{IoError, Spool};
use crate::task::TaskId;

/// The progress of the comparison.
#[derive(Debug)]
pub(super) struct Reconcile {
    /// Tasks without an index entry that are still to be checked, newest first.
    left: Option<Vec<TaskId>>,
    /// Whether `tasks/` and `open/` are still to be compared. No task of this boot waits for that: only
    /// tasks that a person put back, for example from a backup, have no index entry.
    compare_later: bool,
    /// Whether they were compared but an I/O error prevented recording it.
    is_unrecorded: bool,
}

impl Reconcile {
    pub fn new(spool: &Spool) -> Result<Reconcile, IoError> {
        let compare_later = spool.is_reconciled()?;
        let left = if compare_later {
            None
        } else {
            Some(spool.unindexed_ids()?)
        };
        Ok(Reconcile {
            left,
            compare_later,
            is_unrecorded: false,
        })
    }

    /// Whether some tasks are still to be checked.
    pub fn is_running(&self) -> bool {
        self.left.is_some()
    }

    /// Checks a few tasks for missing index entries. Returns whether one was missing.
    pub fn check_some(&mut self, spool: &Spool, backlog: &mut Backlog, log: &mut LogLimit) -> bool {
        let Some(left) = &mut self.left else {
            return false;
        };
        let mut has_found = false;
        let first = left.len().saturating_sub(CHECKS_AT_ONCE);
        // The list is newest first: its end holds the oldest, which have waited longest.
        for id in left.split_off(first).into_iter().rev() {
            match spool.reconcile_entry(id) {
                Ok(true) => {
                    backlog.add([id]);
                    has_found = true;
                }
                Ok(false) => {}
                Err(error) if log.allows("tasks that cannot be compared") => {
                    tracing::warn!("{error}");
                }
                Err(_) => {}
            }
        }
        if left.is_empty() {
            self.left = None;
            self.record(spool);
        }
        has_found
    }

    /// Lists tasks without an index entry once: when nothing runs, or at the second rescan.
    pub fn compare_if_due(&mut self, spool: &Spool, is_busy: bool) {
        if is_busy || !std::mem::take(&mut self.compare_later) {
            return;
        }
        match spool.unindexed_ids() {
            Ok(ids) => self.left = Some(ids).filter(|ids| !ids.is_empty()),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Records the comparison again if an I/O error prevented it.
    pub fn record_if_refused(&mut self, spool: &Spool) {
        if self.is_unrecorded {
            self.record(spool);
        }
    }

    /// Records that index entries and tasks were compared. A full disk may prevent that. Until it is
    /// recorded, the tasks of a session wait, so every rescan tries again.
    fn record(&mut self, spool: &Spool) {
        let recorded = spool.record_reconciled();
        self.is_unrecorded = recorded.is_err();
        if let Err(error) = recorded {
            tracing::warn!("{error}");
        }
    }
}
