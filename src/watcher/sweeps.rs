//! Sweeps that a watcher starts, so that a spool without a timer stays bounded.
//!
//! Not the sweep itself (`sweeper/`), which is a process of its own. Invariant: no sweep is started where there is nothing
//! to remove.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::options::Options;
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

    /// Starts one now and then, as a process.
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
            .args(&options.arguments)
            // Its summary is nobody's; what it removes is told like every other transition.
            .args(["--verbose", "sweep"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        if let Err(error) = started {
            tracing::warn!("no sweep could be started: {error}");
        }
    }
}

fn pause(spool: &Spool) -> Duration {
    Duration::from_secs_f64(spool.settings().sweep_every_sec)
}
