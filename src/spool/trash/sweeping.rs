//! The lock and the clocks of a sweep.
//!
//! Not what is swept (`sweeper/`). Invariant: only one process at a time sweeps a spool.

use serde::{Deserialize, Serialize};

use crate::clock::BootId;
use crate::spool::disk::{Flock, IoResult, LockLevel};
use crate::spool::layout::{SMALL_FILE, name};
use crate::spool::open::Spool;
use crate::task::{Timestamp, to_pretty};

/// `sweep.json`: the clocks at the last pass, so that a jump of the wall clock is noticed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepClock {
    /// Format version.
    pub v: u32,
    /// The wall clock.
    pub wall: Timestamp,
    /// Seconds since the boot, including suspend.
    pub boottime_sec: f64,
    /// The boot.
    pub boot: BootId,
    /// Ages are counted from this time at the earliest: the last jump of the clock that was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_from: Option<Timestamp>,
}

impl Spool {
    /// Takes the sweeper's lock; `None` if another process is sweeping.
    pub fn lock_sweep(&self) -> IoResult<Option<Flock>> {
        self.root()?.try_lock(LockLevel::Sweep, name::SWEEP_LOCK)
    }

    /// The clocks of the last pass; `None` if there was no pass or they cannot be read.
    pub fn sweep_clock(&self) -> IoResult<Option<SweepClock>> {
        let bytes = self.root()?.read(name::SWEEP, SMALL_FILE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes the clocks of this pass.
    pub fn record_sweep_clock(&self, clock: &SweepClock) -> IoResult<()> {
        self.root()?.replace(name::SWEEP, &to_pretty(clock))
    }

    /// Whether there is anything that a sweep could check. Called once a minute, so it must be cheap.
    pub fn has_anything_to_sweep(&self) -> IoResult<bool> {
        for folder in [
            name::TASKS,
            name::REJECTED,
            name::STAGING,
            name::TRASH,
            name::SESSIONS,
        ] {
            if !self.folder(folder)?.is_empty()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
