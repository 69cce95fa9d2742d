//! Keeps the files of a running attempt within their limits, however fast the recipe writes.
//!
//! Does not cut the files (`spool/`). An alarm wakes the runner at the first write after a check. The
//! next check then comes before even the fastest disk can have filled the remaining space. While nothing
//! is written, nothing wakes. Invariant: a log takes at most its cap and [`SLACK`] of disk, if the file
//! system can punch holes, the alarm is available, and this process gets the processor before the fastest
//! disk has filled that space.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::spool::{Attempt, Files, LogCuts, ProgressReader, Stream, WriteAlarm};

/// How far a log may exceed its cap between two checks. A check is planned for half of it.
const SLACK: u64 = 64 << 20;
/// Faster than any disk that was measured, even for writes that only reach memory.
const FASTEST_PER_MS: u64 = 8 << 20;
/// A log that grew by this much since the last check is checked again without waiting for a write.
const MUCH: u64 = 256 << 10;
/// The delay of the first check of an attempt's logs. It is shorter than the usual interval, because many
/// tasks end before that.
const FIRST: Duration = Duration::from_millis(8);
/// The growth of a log that checks are planned for.
const MUCH_AT_ONCE: u64 = 4 << 20;
const PAUSE_MS: (u64, u64) = (1, 20);
const SILENCE: Duration = Duration::from_millis(100);
/// Without an alarm, a log that grew at all is checked again after this time.
const WITHOUT_ALARM: Duration = Duration::from_millis(20);

/// The state that a runner process keeps from task to task.
#[derive(Debug, Default)]
pub(super) struct Growth {
    alarm: WriteAlarm,
    is_limit_reported: bool,
    /// The cuts in the logs of the running attempt.
    cuts: LogCuts,
    logs: u64,
    on_disk: u64,
    /// The size of logs and progress file at the last check.
    seen: u64,
    checked_at: Option<Instant>,
    check_at: Option<Instant>,
    can_cut: bool,
}

impl Growth {
    /// Starts with a new attempt.
    pub fn begin(&mut self) {
        (self.logs, self.on_disk, self.seen) = (0, 0, 0);
        self.cuts = LogCuts::default();
        self.checked_at = None;
        (self.check_at, self.can_cut) = (Some(Instant::now() + FIRST), true);
    }

    /// Ends with the attempt.
    pub fn end(&mut self) {
        self.alarm.clear();
    }

    /// When to check again, apart from the usual checks.
    pub fn check_at(&self) -> Option<Instant> {
        self.check_at
    }

    /// Readable when a file was written to.
    pub fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.fd()
    }

    /// The alarm rang: a file was written to since the last check.
    pub fn rang(&mut self, cap: u64) {
        self.alarm.take();
        if self.check_at.is_some() {
            return;
        }
        // After silence a write may start a burst. A recipe that writes all the time wakes the runner
        // less often.
        let is_after_silence = self.checked_at.is_none_or(|at| at.elapsed() > SILENCE);
        let pause = if is_after_silence {
            Duration::from_millis(PAUSE_MS.0)
        } else {
            self.pause(cap)
        };
        self.check_at = Some(Instant::now() + pause);
    }

    /// Plans the next check after the logs were cut. Also cuts the progress file.
    pub fn plan(
        &mut self,
        attempt: &Attempt,
        files: &Files,
        progress: &mut ProgressReader,
        cap: u64,
    ) {
        let reports = progress.bound(attempt);
        let grown = (self.logs + reports).saturating_sub(self.seen);
        let is_silent_yet = self.seen == 0 && grown == 0 && self.check_at.is_some();
        self.seen = self.logs + reports;
        if !self.can_cut || is_silent_yet {
            self.check_at = None;
        } else if grown >= MUCH {
            // At its present speed the log grows by that much until then.
            let elapsed = self.checked_at.map_or(FIRST, |at| at.elapsed());
            let seconds = elapsed.as_secs_f64() * MUCH_AT_ONCE as f64 / grown as f64;
            let pause = Duration::from_secs_f64(seconds).max(Duration::from_millis(PAUSE_MS.0));
            self.check_at = Some(Instant::now() + pause.min(self.pause(cap)));
        } else if self.alarm.set(attempt, files, reports > 0) {
            self.check_at = None;
        } else {
            self.check_at = (grown > 0).then(|| Instant::now() + WITHOUT_ALARM);
        }
        self.checked_at = Some(Instant::now());
    }

    /// The number of bytes that were cut out of the logs so far.
    pub fn cut_out(&self) -> u64 {
        self.cuts.missing()
    }

    /// Cuts the logs if they are too long.
    pub fn cap_logs(&mut self, attempt: &Attempt, files: &Files, cap: u64) {
        (self.logs, self.on_disk) = (0, 0);
        let logs = [
            (Stream::Stdout, &files.stdout),
            (Stream::Stderr, &files.stderr),
        ];
        for (stream, log) in logs {
            let cap = self.can_cut.then_some(cap);
            match self.cuts.cap(attempt, stream, log, cap) {
                Ok(size) => {
                    self.logs += size.written;
                    self.on_disk = self.on_disk.max(size.on_disk);
                }
                Err(error) => self.cannot_cut(&error),
            }
        }
    }

    fn cannot_cut(&mut self, error: &std::io::Error) {
        let is_lasting = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
        if !Errno::from_io_error(error).is_some_and(|errno| is_lasting.contains(&errno)) {
            return;
        }
        self.can_cut = false;
        if !self.is_limit_reported {
            self.is_limit_reported = true;
            tracing::warn!(
                "the logs of tasks are kept whole, even beyond log_cap_bytes: this file system cannot punch holes into a file ({error})"
            );
        }
    }

    /// How long the remaining space lasts.
    fn pause(&self, cap: u64) -> Duration {
        // A log over its cap was cut by the last check.
        let used = if self.on_disk > cap {
            cap / 2
        } else {
            self.on_disk
        };
        let left = (cap + SLACK / 2).saturating_sub(used);
        Duration::from_millis((left / FASTEST_PER_MS).clamp(PAUSE_MS.0, PAUSE_MS.1))
    }
}
