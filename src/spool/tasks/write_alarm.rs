//! Wakes the runner at the first write to the files of a running attempt, with one inotify instance.
//!
//! Not `wake.rs`, which watches folders for created and removed names. Each watch is for one write and is set
//! again after each check, so that a recipe that writes all the time does not fill the event queue.
//! Invariant: nothing depends on it; without inotify the runner checks the files at intervals.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::attempt::{Attempt, Files};
use crate::spool::layout::name;

/// The alarm of one runner process.
#[derive(Debug, Default)]
pub struct WriteAlarm {
    instance: Option<OwnedFd>,
    is_refused: bool,
    is_set: bool,
    has_progress: bool,
    watches: Vec<i32>,
}

impl WriteAlarm {
    /// Sets the alarm for the next write to a log or to the progress file; `false` if that is not possible.
    pub fn set(&mut self, attempt: &Attempt, files: &Files, has_progress: bool) -> bool {
        if self.is_set && (self.has_progress || !has_progress) {
            return true;
        }
        if self.instance.is_none() && !self.is_refused {
            let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
            self.instance = inotify::init(flags).ok();
            self.is_refused = self.instance.is_none();
        }
        let Some(instance) = &self.instance else {
            return false;
        };
        self.watches.clear();
        let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT | WatchFlags::DONT_FOLLOW;
        self.has_progress = has_progress;
        if has_progress {
            let progress = handle_path(&attempt.dir).join(name::PROGRESS);
            self.watches
                .extend(inotify::add_watch(instance, &progress, flags));
        }
        // These two paths are links in `/proc` to the open files, so links are followed here.
        let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT;
        let mut is_complete = true;
        for log in [&files.stdout, &files.stderr] {
            let watch = inotify::add_watch(instance, handle_path(log), flags);
            is_complete &= watch.is_ok();
            self.watches.extend(watch);
        }
        self.is_set = is_complete;
        is_complete
    }

    /// The file descriptor, which is readable after a write; `None` without inotify.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.instance.as_ref().map(AsFd::as_fd)
    }

    /// Reads all waiting events. The alarm must be set again after that.
    pub fn take(&mut self) {
        self.is_set = false;
        if let Some(instance) = &self.instance {
            let mut events = [0u8; 4096];
            while rustix::io::read(instance, &mut events).is_ok_and(|read| read > 0) {}
        }
    }

    /// Removes the watches on the files of an attempt that is over.
    pub fn clear(&mut self) {
        let Some(instance) = &self.instance else {
            return;
        };
        for watch in self.watches.drain(..) {
            // Fails for a watch that has fired, because it is for one event.
            let _ = inotify::remove_watch(instance, watch);
        }
        self.take();
    }
}

/// A path to an open file, valid while this process keeps the file open.
fn handle_path(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}
