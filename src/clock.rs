//! The clocks, and which of them to use for what.
//!
//! Not a date library: [`crate::task::Timestamp`] formats times. Invariant: **wall time is shown to people;
//! correctness never depends on it.** Timeouts use `CLOCK_MONOTONIC`, so that a suspended machine does not
//! use up a task's time. Ages that decide something use `CLOCK_BOOTTIME`. Whether a recorded process belongs
//! to the current boot is decided by the boot identity.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::task::{BootMoment, Timestamp};

/// The wall clock, for people and for ids. It may jump.
pub fn wall() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    Timestamp::from_unix_ms(now.tv_sec * 1000 + i64::from(now.tv_nsec as i32) / 1_000_000)
}

/// Time since boot, including suspended time. Two values can be compared only within one [`BootId`].
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Now, within this boot. An age that is counted from this moment is right even if the wall clock jumps.
pub fn boot_moment() -> BootMoment {
    BootMoment {
        boot: BootId::current().kernel().to_owned(),
        boottime_sec: boottime().as_secs_f64(),
    }
}

/// One boot of the machine, as seen from one pid namespace and one time namespace. A pid that was recorded
/// under another value means nothing here. The namespace is included because a restarted container has the
/// same kernel boot id but starts pids again from 1 (docs/hazards.md, 45).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The kernel's boot id and this process's pid namespace, as `<uuid>/<inode>`. In a time namespace other
    /// than the initial one, its inode is added, as `<uuid>/<inode>/<inode>`: there, processes seem to have
    /// started at other times. A part that `/proc` does not show is empty, and equals only an empty part.
    ///
    /// It is read once, because reading it opens files and it does not change while a process runs.
    pub fn current() -> BootId {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        CURRENT.get_or_init(BootId::ask).clone()
    }

    fn ask() -> BootId {
        let boot = crate::proc::read_text("/proc/sys/kernel/random/boot_id");
        let namespace = crate::proc::pid_namespace();
        let time =
            crate::proc::time_namespace().map_or_else(String::new, |time| format!("/{time}"));
        let boot = boot.unwrap_or_default();
        BootId(format!("{}/{namespace}{time}", boot.trim()))
    }

    /// The kernel's boot id alone, for what lasts as long as the kernel runs: the page cache and the clocks.
    /// The pid namespace matters only for pids.
    pub fn kernel(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
