//! The children of this process, its descendants, and what reaping them tells.
//!
//! Not whose they are: what a subreaper's children leave behind becomes its child, so all are its own.
//! Invariant: a child's number is its own until it is reaped, so that it may be signalled without a handle and without
//! `/proc`; and nobody reaps one but this file and those who hold a handle of it.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::table::{Entry, check_mounted, entry, numbers, own_pid, read_text};

/// What reaped processes used, as wait4(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time of them and of all that they reaped, user and system, in seconds.
    pub cpu_seconds: f64,
    /// The most memory that one of them had, in bytes.
    pub peak_rss_bytes: u64,
}

impl Usage {
    fn add(&mut self, usage: &libc::rusage) {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        self.cpu_seconds += seconds(usage.ru_utime) + seconds(usage.ru_stime);
        // In KiB (getrusage(2)).
        let peak = u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10;
        self.peak_rss_bytes = self.peak_rss_bytes.max(peak);
    }
}

/// Whether a child of this process lives, whatever `/proc` shows. One that has ended and was not reaped
/// does not count.
pub fn has_living_children() -> bool {
    // Asked for stopped ones: those that live are reason to wait, and zombies are not.
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::All, options) {
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

/// The numbers of all children, zombies included. One may be missing while others end; none is
/// somebody else's.
pub fn children() -> Vec<i32> {
    if check_mounted().is_err() {
        return children_by_asking();
    }
    if let Some(children) = listed_children() {
        return children;
    }
    // A kernel without CONFIG_PROC_CHILDREN.
    let me = own_pid();
    match table() {
        Ok(table) => table
            .iter()
            .filter(|entry| entry.parent == me)
            .map(|entry| entry.key.pid)
            .collect(),
        Err(_) => children_by_asking(),
    }
}

/// Each thread has its own list: that of the one that started them, and orphans with the first.
fn listed_children() -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in super::table::numbers_in("/proc/self/task").ok()? {
        let list = read_text(format!("/proc/self/task/{thread}/children"))?;
        children.extend(
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    Some(children)
}

/// Without `/proc`: a number is a child's if it can be waited for. Takes up to a second.
fn children_by_asking() -> Vec<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    (1..=super::highest_number())
        .filter(|pid| {
            Pid::from_raw(*pid)
                .is_some_and(|pid| rustix::process::waitid(WaitId::Pid(pid), options).is_ok())
        })
        .collect()
}

/// All processes that can be read.
fn table() -> std::io::Result<Vec<Entry>> {
    let numbers = numbers()?;
    Ok(numbers
        .into_iter()
        .filter_map(|pid| entry(pid).ok().flatten())
        .collect())
}

/// All descendants of this process that can be seen, zombies left out. Whether none is left is not
/// told by this but by [`has_living_children`].
pub fn descendants() -> Vec<Entry> {
    let Ok(table) = table() else {
        return Vec::new();
    };
    let mut family = vec![own_pid()];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        for entry in table.iter().filter(|entry| entry.parent == parent) {
            family.push(entry.key.pid);
            if !entry.is_zombie {
                found.push(*entry);
            }
        }
    }
    found
}

/// Reaps one child that has ended, `pid` or any; its number and status as wait4(2) gives them.
/// `None` when none has.
///
/// # Errors
/// `ECHILD`: there is no such child.
#[expect(unsafe_code, reason = "wait4, which rustix has no form of")]
pub fn reap_any(pid: Option<i32>, usage: &mut Usage) -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel fills in both, and zeroes are a whole rusage.
    let (answer, used) = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        let answer = libc::wait4(pid.unwrap_or(-1), &mut status, libc::WNOHANG, &mut used);
        (answer, used)
    };
    match answer {
        0 => Ok(None),
        reaped if reaped > 0 => {
            usage.add(&used);
            Ok(Some((reaped, status)))
        }
        _ => match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::INTR) => Ok(None),
            errno => Err(errno.unwrap_or(Errno::IO)),
        },
    }
}

/// Reaps the orphans that have ended, and leaves one child alone.
pub fn reap_others(kept: Pid, usage: &mut Usage) {
    // The kernel names one of those that ended; where it is the kept one, the rest waits for the end.
    while let Some(pid) = one_that_ended().filter(|pid| *pid != kept.as_raw_nonzero().get()) {
        if !matches!(reap_any(Some(pid), usage), Ok(Some(_))) {
            return;
        }
    }
}

#[expect(
    unsafe_code,
    reason = "waitid, whose answer names nobody in rustix's form"
)]
fn one_that_ended() -> Option<i32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel fills it in, and zeroes are a whole siginfo, in which nobody is named.
    let pid = unsafe {
        let mut message: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &mut message, options) != 0 {
            return None;
        }
        message.si_pid()
    };
    (pid > 0).then_some(pid)
}
