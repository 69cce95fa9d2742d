//! The files of a running attempt kept under their bounds, however fast the recipe writes.
//!
//! An alarm wakes at the first write after a look; then the next look comes before even the fastest
//! disk can have used up the room that is left. While nobody writes, nobody wakes. Invariant: a log
//! takes at most its cap and [`ROOM`] of disk, where the file system can punch holes, the alarm can be
//! had, and the kernel gives us the processor before the fastest disk has used up the room.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::spool::{Attempt, Files, LogCuts, ProgressReader, Stream, WriteAlarm};

/// How far a log may go beyond its cap between two looks. A look aims at half of it.
const ROOM: u64 = 64 << 20;
/// Faster than writes into the memory of any disk that was measured.
const FASTEST_PER_MS: u64 = 8 << 20;
/// A log that grew by this much since the last look is looked at again without waiting for a write.
const MUCH: u64 = 256 << 10;
/// The first look at an attempt's logs comes before the first usual one: many a task is over by then.
const FIRST: Duration = Duration::from_millis(8);
/// What a log that is being written to may grow by between two looks.
const MUCH_AT_ONCE: u64 = 4 << 20;
const PAUSE_MS: (u64, u64) = (1, 20);
const SILENCE: Duration = Duration::from_millis(100);
/// Without an alarm a log that grew at all is looked at again this soon.
const WITHOUT_ALARM: Duration = Duration::from_millis(20);

/// What a runner process keeps from task to task.
#[derive(Debug, Default)]
pub(super) struct Growth {
    alarm: WriteAlarm,
    has_said_whole: bool,
    /// Of the attempt that runs.
    cuts: LogCuts,
    logs: u64,
    on_disk: u64,
    /// Logs and progress at the last look.
    seen: u64,
    seen_at: Option<Instant>,
    look_at: Option<Instant>,
    can_cut: bool,
}

impl Growth {
    /// A new attempt begins.
    pub fn begin(&mut self) {
        (self.logs, self.on_disk, self.seen) = (0, 0, 0);
        self.cuts = LogCuts::default();
        self.seen_at = None;
        (self.look_at, self.can_cut) = (Some(Instant::now() + FIRST), true);
    }

    /// The attempt is over.
    pub fn end(&mut self) {
        self.alarm.clear();
    }

    /// When to look again, apart from the usual looks.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Readable when something was written.
    pub fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.fd()
    }

    /// The alarm rang: something was written since the last look.
    pub fn rang(&mut self, cap: u64) {
        self.alarm.take();
        if self.look_at.is_some() {
            return;
        }
        // After silence a write may begin a burst; one that writes all the time wakes less often.
        let is_after_silence = self.seen_at.is_none_or(|at| at.elapsed() > SILENCE);
        let pause = if is_after_silence {
            Duration::from_millis(PAUSE_MS.0)
        } else {
            self.pause(cap)
        };
        self.look_at = Some(Instant::now() + pause);
    }

    /// Says when to look again, now that the logs were cut; the progress file is bounded here.
    pub fn plan(
        &mut self,
        attempt: &Attempt,
        files: &Files,
        progress: &mut ProgressReader,
        cap: u64,
    ) {
        let reports = progress.bound(attempt);
        let grown = (self.logs + reports).saturating_sub(self.seen);
        let is_silent_yet = self.seen == 0 && grown == 0 && self.look_at.is_some();
        self.seen = self.logs + reports;
        if !self.can_cut || is_silent_yet {
            self.look_at = None;
        } else if grown >= MUCH {
            // As fast as it writes now, it writes so much until then.
            let elapsed = self.seen_at.map_or(FIRST, |at| at.elapsed());
            let so_much = elapsed.as_secs_f64() * MUCH_AT_ONCE as f64 / grown as f64;
            let pause = Duration::from_secs_f64(so_much).max(Duration::from_millis(PAUSE_MS.0));
            self.look_at = Some(Instant::now() + pause.min(self.pause(cap)));
        } else if self.alarm.set(attempt, files, reports > 0) {
            self.look_at = None;
        } else {
            self.look_at = (grown > 0).then(|| Instant::now() + WITHOUT_ALARM);
        }
        self.seen_at = Some(Instant::now());
    }

    /// Bytes that are cut out of the logs by now.
    pub fn cut_out(&self) -> u64 {
        self.cuts.missing()
    }

    /// Cuts the logs where they are too long.
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
        if !self.has_said_whole {
            self.has_said_whole = true;
            tracing::warn!(
                "the logs of tasks are kept whole, also beyond log_cap_bytes: this file system cannot punch holes into a file ({error})"
            );
        }
    }

    /// How long the room that is left lasts.
    fn pause(&self, cap: u64) -> Duration {
        // What was over the cap at the last look was cut by it.
        let used = if self.on_disk > cap {
            cap / 2
        } else {
            self.on_disk
        };
        let left = (cap + ROOM / 2).saturating_sub(used);
        Duration::from_millis((left / FASTEST_PER_MS).clamp(PAUSE_MS.0, PAUSE_MS.1))
    }
}
