//! Decides whether a watcher has anything left to do.
//!
//! Does not exit (`run.rs`). Invariant: tasks that only a person can fix do not keep a watcher running;
//! everything else does.

use super::backlog::Backlog;
use super::markers::Markers;
use super::reconcile::Reconcile;
use crate::intake::Admitter;
use crate::launcher::LocalPool;
use crate::spool::{IoError, Spool};

/// What a watcher knows about its work.
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
        let is_held_by_pause =
            self.is_paused && self.markers.is_over() && !self.backlog.has_hurried();
        (self.backlog.is_empty() || is_held_by_pause)
            && self
                .launcher
                .running()
                .all(|(id, _)| self.backlog.is_broken(id))
            && !self.reconcile.is_running()
            && !self.admitter.is_waiting()
    }

    /// The number of tasks that wait in a paused spool, if there is nothing else. The watcher cannot run
    /// these tasks. Drops are taken in even then.
    pub fn waits_paused(&self) -> Option<usize> {
        let waiting = self.waiting().ok()?;
        let has_drops = self.has_new_drops().ok()?;
        let is_paused = self.spool.is_paused().ok()?;
        (waiting > 0 && is_paused && !has_drops).then_some(waiting)
    }

    /// Whether the disk shows tasks or drops that the watcher does not know yet.
    pub fn something_came(&self) -> Result<bool, IoError> {
        let open = self.spool.open_ids()?;
        let is_open = open.into_iter().any(|id| !self.backlog.is_broken(id));
        Ok(is_open || self.has_new_drops()?)
    }

    /// The number of open tasks that no process works on.
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
