//! Whether anything is left to do for a watcher.
//!
//! Not the leaving itself (`run.rs`). Invariant: what only a person can mend keeps no watcher, and everything else does.

use super::backlog::Backlog;
use super::markers::Markers;
use super::reconcile::Reconcile;
use crate::intake::Admitter;
use crate::launcher::LocalPool;
use crate::spool::{IoError, Spool};

/// What a watcher knows of its work.
pub(super) struct Work<'a> {
    pub spool: &'a Spool,
    pub backlog: &'a Backlog,
    pub admitter: &'a Admitter,
    pub launcher: &'a LocalPool,
    pub markers: &'a Markers,
    pub reconcile: &'a Reconcile,
    pub is_paused: bool,
}

impl Work<'_> {
    pub fn is_idle(&self) -> bool {
        let waits_for_nobody =
            self.is_paused && self.markers.is_over() && !self.backlog.has_hurried();
        (self.backlog.is_empty() || waits_for_nobody)
            && self
                .launcher
                .running()
                .all(|(id, _)| self.backlog.is_broken(id))
            && !self.reconcile.is_at_it()
            && !self.admitter.is_waiting()
    }

    /// How many tasks wait in a paused spool, where they are all that there is. What waits there is nobody's work;
    /// drops are taken in all the same.
    pub fn waits_paused(&self) -> Option<usize> {
        let waiting = self.waiting().ok()?;
        let has_drops = self.has_new_drops().ok()?;
        let is_paused = self.spool.is_paused().ok()?;
        (waiting > 0 && is_paused && !has_drops).then_some(waiting)
    }

    /// Whether something came that was not known, as the disk shows it.
    pub fn something_came(&self) -> Result<bool, IoError> {
        let open = self.spool.open_ids()?;
        let is_open = open.into_iter().any(|id| !self.backlog.is_broken(id));
        Ok(is_open || self.has_new_drops()?)
    }

    /// Open tasks that nobody works on.
    fn waiting(&self) -> Result<usize, IoError> {
        let mut waiting = 0;
        for id in self.spool.open_ids()? {
            if let Some(task) = self.spool.task(id)? {
                waiting += usize::from(!task.is_worked_on()?);
            }
        }
        Ok(waiting)
    }

    fn has_new_drops(&self) -> Result<bool, IoError> {
        let files = self.spool.in_box()?;
        let is_new = |drop| !self.admitter.has_given_up(drop);
        Ok(files.drops.iter().any(is_new) || self.admitter.may_see(files.unseen.len()))
    }
}
