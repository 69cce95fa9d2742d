//! `tasks/` and `open/` compared, once a boot and once a watcher.
//!
//! Not the scan of `open/` (`run.rs`). Invariant: no task of this boot has to wait for it, but those of a session after a
//! boot, whose order hangs on it.

use super::backlog::Backlog;
use super::markers::LOOKS_AT_ONCE;
use crate::log_limit::LogLimit;
use crate::spool::{IoError, Spool};
use crate::task::TaskId;

/// How far the comparison is.
#[derive(Debug)]
pub(super) struct Reconcile {
    /// The tasks without a hint that were not looked at yet, newest first.
    left: Option<Vec<TaskId>>,
    /// `tasks/` and `open/` are still to be compared, which no task of this boot has to wait for: what was
    /// put back by hand, as from a backup, has no hint.
    compare_later: bool,
    /// They were compared, and the disk refused to note it.
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

    /// Whether some tasks are still to be looked at.
    pub fn is_at_it(&self) -> bool {
        self.left.is_some()
    }

    /// The hints are compared with the tasks, a few at a time; whether one was missing.
    pub fn some(&mut self, spool: &Spool, backlog: &mut Backlog, log: &mut LogLimit) -> bool {
        let Some(left) = &mut self.left else {
            return false;
        };
        let mut has_found = false;
        let first = left.len().saturating_sub(LOOKS_AT_ONCE);
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

    /// Lists once what has no hint: when nothing runs, or at the second rescan.
    pub fn compare_if_due(&mut self, spool: &Spool, is_busy: bool) {
        if is_busy || !std::mem::take(&mut self.compare_later) {
            return;
        }
        match spool.unindexed_ids() {
            Ok(ids) => self.left = Some(ids).filter(|ids| !ids.is_empty()),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Where the disk refused to note it: once more.
    pub fn record_if_refused(&mut self, spool: &Spool) {
        if self.is_unrecorded {
            self.record(spool);
        }
    }

    /// Says that hints and tasks were compared. A full disk may refuse that, and as long as it is
    /// not said, the tasks of a session wait: it is tried again at each rescan.
    fn record(&mut self, spool: &Spool) {
        let recorded = spool.record_reconciled();
        self.is_unrecorded = recorded.is_err();
        if let Err(error) = recorded {
            tracing::warn!("{error}");
        }
    }
}
