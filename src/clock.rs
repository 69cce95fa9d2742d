//! The clocks: which one answers which question.
//!
//! Not a date library: formatting lives in [`crate::task::Timestamp`]. The rule this file keeps:
//! **wall time is for people, never for correctness.** Timeouts run on `CLOCK_MONOTONIC` (a
//! suspended machine does not use up a task's time), ages on `CLOCK_BOOTTIME` where a decision
//! hangs on them, and "is that process still of this life of the machine" on the boot identity.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::task::{BootMoment, Timestamp};

/// The wall clock, for people and for ids. It may jump.
pub fn wall() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    Timestamp::from_unix_ms(now.tv_sec * 1000 + i64::from(now.tv_nsec as i32) / 1_000_000)
}

/// Time since boot, suspend included. Compares only within one [`BootId`].
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Now, within this boot: an age counted from here is right whatever the wall clock does meanwhile.
pub fn boot_moment() -> BootMoment {
    BootMoment {
        boot: BootId::current().kernel().to_owned(),
        boottime_sec: boottime().as_secs_f64(),
    }
}

/// One life of the machine, as seen from one pid namespace and one time namespace: a pid recorded under another value
/// means nothing here. The namespace belongs to it because a container's restart keeps the
/// kernel's boot id but starts pids anew (SPOOL-SAFETY hazard 45).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// The running kernel's boot id and this process's pid namespace, as `<uuid>/<inode>`. In a time namespace of
    /// its own, that follows, as `<uuid>/<inode>/<inode>`: there processes seem to have started at other times.
    /// Where `/proc` does not tell, the part is empty, which equals only another empty part.
    ///
    /// Asked once: a process never sees another one, and each asking opens two files.
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

    /// The kernel's part alone: what the page cache, clocks and files live and die with. Pid
    /// namespaces come and go within it, and mean nothing but to pids.
    pub fn kernel(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl std::fmt::Display for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
