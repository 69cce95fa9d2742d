//! What a watcher listens to: the spool's folders, and those of tasks that run for longer.
//!
//! Not what follows from what is heard (`run.rs`). Invariant: what came before a folder was listened to is looked at after
//! that, so nothing is missed for longer than a rescan.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::launcher::LocalPool;
use crate::spool::{IoError, Seen, Spool, Wake};
use crate::task::TaskId;

/// A task that runs longer than this has its folder listened to; until then its runner looks at
/// the marker often by itself, and most tasks need no watch at all.
const LISTEN_AFTER: Duration = Duration::from_millis(25);

/// The folders that are listened to.
pub(super) struct Listener {
    wake: Wake,
    /// The running tasks whose folders are among them.
    tasks: Vec<TaskId>,
}

impl Listener {
    pub fn new(spool: &Spool) -> Result<Listener, IoError> {
        let wake = Wake::for_watcher(spool)?;
        warn_if_deaf(&wake, spool);
        Ok(Listener {
            wake,
            tasks: Vec::new(),
        })
    }

    /// What was heard since the last call.
    pub fn take(&mut self) -> Seen {
        self.wake.take()
    }

    /// Before the scan, as at the start: what is not heard yet is scanned.
    pub fn begin_anew_if_astray(&mut self, spool: &Spool) {
        if !self.wake.is_astray() {
            return;
        }
        let was_deaf = self.wake.is_deaf().is_some();
        match Wake::for_watcher(spool) {
            Ok(wake) if wake.is_deaf().is_none() => {
                tracing::info!("listening anew");
                self.wake = wake;
                // The running tasks' folders follow as they did at first.
                self.tasks.clear();
            }
            Ok(wake) => {
                if !was_deaf {
                    warn_if_deaf(&wake, spool);
                }
                self.wake = wake;
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Listens for the markers of tasks that are not over at once.
    pub fn listen_to_running(&mut self, launcher: &mut LocalPool) {
        let old_enough: Vec<TaskId> = launcher
            .running()
            .filter(|(id, since)| since.elapsed() >= LISTEN_AFTER && !self.tasks.contains(id))
            .map(|(id, _)| id)
            .collect();
        for id in old_enough {
            self.wake.watch_task(id);
            self.tasks.push(id);
            // What came before the watch was heard by nobody.
            launcher.look(id);
        }
    }

    /// A task is not with a runner any more.
    pub fn leave_task(&mut self, id: TaskId) {
        if let Some(at) = self.tasks.iter().position(|listened| *listened == id) {
            self.tasks.swap_remove(at);
            self.wake.unwatch_task(id);
        }
    }

    /// When the next running task is to be listened to.
    pub fn wake_at(&self, launcher: &LocalPool) -> Option<Instant> {
        let running = launcher.running();
        let unlistened = running.filter(|(id, _)| !self.tasks.contains(id));
        unlistened.map(|(_, since)| since + LISTEN_AFTER).min()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

fn warn_if_deaf(wake: &Wake, spool: &Spool) {
    if let Some(why) = wake.is_deaf() {
        let pause = spool.settings().rescan_sec;
        tracing::warn!("looking by the clock only, every {pause} s: {why}");
    }
}
