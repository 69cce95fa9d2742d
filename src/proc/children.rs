//! The children of this process, its descendants, and the data from reaping them.
//!
//! Not which task they belong to: orphaned descendants become children of a subreaper, so all of them are its
//! own. Invariant: the pid of a child is not reused before the child is reaped, so a child can be signalled
//! without a handle and without `/proc`. Only this file and holders of a child's handle reap children.

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::table::{Entry, check_mounted, entry, numbers, own_pid, read_text};

/// The resources that reaped processes used, as wait4(2) reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system processor time in seconds, including that of processes that they reaped.
    pub cpu_seconds: f64,
    /// The peak memory of the largest process in bytes.
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

/// Whether this process has a running child, even if `/proc` does not show it. A zombie does not count.
pub fn has_living_children() -> bool {
    // This asks for stopped children: running children are a reason to wait, and zombies are not.
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::All, options) {
            Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

/// The pids of all children, including zombies. A child may be missing if others end at the same time. A
/// process that is not a child is never listed.
pub fn children() -> Vec<i32> {
    if check_mounted().is_err() {
        return children_by_asking();
    }
    if let Some(children) = listed_children() {
        return children;
    }
    // The kernel has no CONFIG_PROC_CHILDREN.
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

/// Each thread has a list of the children that it started. Orphans are in the list of the first thread.
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

/// Finds children without `/proc`: a pid is that of a child if it can be waited for. Takes up to a second.
fn children_by_asking() -> Vec<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    (1..=super::highest_number())
        .filter(|pid| {
            Pid::from_raw(*pid)
                .is_some_and(|pid| rustix::process::waitid(WaitId::Pid(pid), options).is_ok())
        })
        .collect()
}

/// All processes that `/proc` shows.
fn table() -> std::io::Result<Vec<Entry>> {
    let numbers = numbers()?;
    Ok(numbers
        .into_iter()
        .filter_map(|pid| entry(pid).ok().flatten())
        .collect())
}

/// All descendants that `/proc` shows, without zombies. The list can be incomplete: to check that no
/// descendant is left, use [`has_living_children`].
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

/// Reaps one ended child: `pid`, or any. Returns its pid and its status as in wait4(2), or `None` if no child
/// has ended.
///
/// # Errors
/// `ECHILD`: there is no such child.
#[expect(unsafe_code, reason = "rustix has no wait4")]
pub fn reap_any(pid: Option<i32>, usage: &mut Usage) -> Result<Option<(i32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel fills in both, and a rusage of zeroes is valid.
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

/// Reaps ended orphans, but not the child `kept`.
pub fn reap_others(kept: Pid, usage: &mut Usage) {
    // The kernel names one ended child. If it is `kept`, the others stay until a later call.
    while let Some(pid) = one_that_ended().filter(|pid| *pid != kept.as_raw_nonzero().get()) {
        if !matches!(reap_any(Some(pid), usage), Ok(Some(_))) {
            return;
        }
    }
}

#[expect(unsafe_code, reason = "waitid in rustix does not return the pid")]
fn one_that_ended() -> Option<i32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel fills it in, and a siginfo of zeroes is valid; its pid is 0.
    let pid = unsafe {
        let mut message: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &mut message, options) != 0 {
            return None;
        }
        message.si_pid()
    };
    (pid > 0).then_some(pid)
}
