//! Files that whoever started this process left open: they go no further.
//!
//! A shell's `flock 9`, a pipe, a log: a watcher started by `submit` would hold them for hours, and
//! every task after it. Invariant: what this process starts gets the three standard files and what
//! it is given on purpose, and nothing else.

use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::FdFlags;

/// Marks every open file above stderr so that programs started from here do not get it.
#[expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "/proc tells plain numbers, and it is not the spool"
)]
pub(super) fn keep_from_children() {
    // Without /proc nothing is known of such files, and nothing is lost but this courtesy.
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<RawFd> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        // SAFETY: nothing is owned or closed through it, and it is used for this one call. A
        // number that is no longer open, as the listing's own, is refused by the kernel.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}
