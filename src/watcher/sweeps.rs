//! Starts sweeps from a watcher, so that a spool without a timer does not grow without limit.
//!
//! Does not sweep (`sweeper/`); a sweep is its own process. Invariant: no sweep is started if there is
//! nothing to remove.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::options::{Options, arguments};
use crate::proc;
use crate::spool::Spool;

/// When the next sweep is due.
#[derive(Debug)]
pub(super) struct Sweeps {
    next: Instant,
}

impl Sweeps {
    pub fn new(spool: &Spool) -> Sweeps {
        Sweeps {
            next: Instant::now() + pause(spool),
        }
    }

    /// Starts a sweep as a process if one is due.
    pub fn start_if_due(&mut self, spool: &Spool, options: &Options) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + pause(spool);
        if !spool.has_anything_to_sweep().unwrap_or(true) {
            return;
        }
        let mut command = Command::new(&options.program);
        let started = proc::as_started(&mut command)
            .args(arguments(spool, options))
            // Nothing reads its summary. `--verbose` logs what it removes, like every other transition.
            .args(["--verbose", "sweep"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        if let Err(error) = started {
            tracing::warn!("failed to start a sweep: {error}");
        }
    }
}

fn pause(spool: &Spool) -> Duration {
    Duration::from_secs_f64(spool.settings().sweep_every_sec)
}
