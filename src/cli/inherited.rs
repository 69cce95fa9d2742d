//! Stops inherited open files from being passed on to the processes that this process starts.
//!
//! A watcher that outlives the command that started it must not keep that command's lock files, pipes and
//! sockets open: `flock file agentspool submit …` would hold the lock for an hour. Invariant: only stdin,
//! stdout and stderr are passed on, and the code that starts a process chooses them.
#![expect(clippy::disallowed_methods, reason = "/proc/self/fd is not the spool")]

use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::FdFlags;

/// Sets close-on-exec for every open file above stderr.
#[expect(
    unsafe_code,
    reason = "inherited files have no owner in this process, so they can only be borrowed by number"
)]
pub(super) fn keep_from_children() {
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in open.into_iter().filter(|number| *number > 2) {
        // SAFETY: the number is only used for this one fcntl(2), which does not touch memory. If
        // the file was closed since the listing, as the listing's own was, the call fails.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}
