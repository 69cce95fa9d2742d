//! The folders that a watcher listens to: those of the spool, and those of tasks that run longer.
//!
//! Does not act on events (`run.rs`). Invariant: a folder is scanned after listening to it started, so an
//! event is missed for at most one rescan interval.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::launcher::LocalPool;
use crate::spool::{IoError, Seen, Spool, Wake};
use crate::task::TaskId;

/// The watcher listens to the folder of a task that runs longer than this. Until then its runner checks
/// the marker often, and most tasks end before that.
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

    /// The events since the last call.
    pub fn take(&mut self) -> Seen {
        self.wake.take()
    }

    /// Starts to listen again if events may be missing. Called before a scan, which then finds changes
    /// that caused no event.
    pub fn restart_if_astray(&mut self, spool: &Spool) {
        if !self.wake.is_astray() {
            return;
        }
        let was_deaf = self.wake.is_deaf().is_some();
        match Wake::for_watcher(spool) {
            Ok(wake) if wake.is_deaf().is_none() => {
                tracing::info!("listening for changes again");
                self.wake = wake;
                // The folders of running tasks are added again, as at first.
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

    /// Listens for the markers of tasks that have run for a while.
    pub fn listen_to_running(&mut self, launcher: &mut LocalPool) {
        let old_enough: Vec<TaskId> = launcher
            .running()
            .filter(|(id, since)| since.elapsed() >= LISTEN_AFTER && !self.tasks.contains(id))
            .map(|(id, _)| id)
            .collect();
        for id in old_enough {
            self.wake.watch_task(id);
            self.tasks.push(id);
            // A marker that was created earlier caused no event.
            launcher.check_marker(id);
        }
    }

    /// Stops listening to a task that no runner has any more.
    pub fn leave_task(&mut self, id: TaskId) {
        if let Some(at) = self.tasks.iter().position(|listened| *listened == id) {
            self.tasks.swap_remove(at);
            self.wake.unwatch_task(id);
        }
    }

    /// When to start listening to the next running task.
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
        tracing::warn!("changes are noticed only every {pause} s: {why}");
    }
}
