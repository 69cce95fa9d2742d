//! Watching over one attempt: its end, its deadline, its cancellation, its progress, its logs.
//!
//! Waits on the recipe's process, the watcher's pipe and signals; wakes by itself only to look at
//! what nobody tells it. Invariant: it returns when nothing of the attempt is alive.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::control::Control;
use super::finish::FOREIGN_RESULT;
use super::group::{self, Leader};
use super::growth::Growth;
use super::progress::{self, Latest};
use super::recover::report_stuck;
use crate::config::Settings;
use crate::spool::{Attempt, Files, ProgressReader, TaskLock};
use crate::task::{Exit, Metrics, StatusFile};

/// How often to look unasked: soon in a task's first moments, in which the watcher does not yet
/// listen to its folder, later only as often as people notice.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// What a recipe left behind when it ended by itself gets this long to heed TERM.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// A recipe ended by TERM may have got it from a machine that goes down; then ours comes this soon.
const SAME_MOMENT: Duration = Duration::from_millis(200);

/// Why the attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The recipe's process ended.
    ByItself,
    /// The marker was there.
    Cancelled,
    /// The deadline passed.
    TimedOut,
    /// This runner was told to stop; that cancels nothing.
    RunnerStopped,
}

/// What there is to say when all is over.
#[derive(Debug)]
pub(super) struct Supervised {
    pub ending: Ending,
    pub exit: Exit,
    /// With the last progress and message.
    pub status: StatusFile,
    /// What the recipe reported of itself.
    pub metrics: Metrics,
}

/// Everything supervision needs.
pub(super) struct Supervisor<'a> {
    pub lock: &'a TaskLock,
    pub attempt: &'a Attempt,
    pub files: &'a Files,
    pub settings: &'a Settings,
    pub control: &'a mut Control,
    pub leader: &'a Leader,
    pub deadline: Instant,
    pub status: StatusFile,
    /// Whether `status` stands on the disk.
    pub is_told: bool,
    /// The bounds of what it writes.
    pub growth: &'a mut Growth,
    /// How far the progress file was read.
    pub progress: ProgressReader,
    /// Whether a result that is not ours was set aside.
    pub foreign: bool,
    /// What the recipe reported of itself so far.
    pub metrics: Metrics,
}

impl Supervisor<'_> {
    pub fn run(mut self) -> Supervised {
        self.growth.begin();
        let ending = self.wait_for_an_ending();
        let grace = match ending {
            Ending::ByItself => LEFTOVER_GRACE,
            Ending::Cancelled | Ending::TimedOut | Ending::RunnerStopped => {
                Duration::from_secs_f64(self.settings.cancel_grace_sec)
            }
        };
        let exit = group::end_tree(self.leader, grace, || report_stuck(self.lock));
        // Nobody writes any more.
        self.look_at_progress_and_logs();
        self.growth.end();
        if self.foreign {
            self.set_foreign_result_aside();
            self.lock.bound_foreign_result(self.attempt);
        }
        let is_cut_off = ending == Ending::ByItself && self.was_stopped_with(exit);
        Supervised {
            ending: if is_cut_off {
                Ending::RunnerStopped
            } else {
                ending
            },
            exit,
            status: self.status,
            metrics: self.metrics,
        }
    }

    /// Whether the recipe failed in the moment in which this runner was told to stop: a machine that
    /// goes down sends TERM to both, in any order, and that is no failure of the recipe's own.
    fn was_stopped_with(&mut self, exit: Exit) -> bool {
        self.control.take_in();
        if exit == Exit::Signal(Signal::TERM.as_raw()) && !self.control.should_stop() {
            self.wait_for_signal(SAME_MOMENT);
        }
        exit != Exit::Code(0) && self.control.should_stop()
    }

    fn wait_for_signal(&mut self, time: Duration) {
        let timeout = Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let _ = poll(
            &mut [PollFd::new(self.control.signals(), PollFlags::IN)],
            Some(&timeout),
        );
        self.control.take_in();
    }

    fn wait_for_an_ending(&mut self) -> Ending {
        let mut pause = LOOKS.0;
        let mut full_look = Instant::now() + pause;
        loop {
            let until = full_look.min(self.deadline);
            let soon = self.growth.look_at().map_or(until, |at| at.min(until));
            let is_called = self.wait(soon.saturating_duration_since(Instant::now()));
            if !is_called && Instant::now() < until {
                self.keep_bounds();
                continue;
            }
            if self.leader.has_ended() {
                return Ending::ByItself;
            }
            if self.control.should_stop() {
                return Ending::RunnerStopped;
            }
            // An error here is "unknown", and unknown is not cancelled.
            if self.lock.task().cancel_requested().unwrap_or(false) {
                return Ending::Cancelled;
            }
            if Instant::now() >= self.deadline {
                return Ending::TimedOut;
            }
            self.set_foreign_result_aside();
            self.look_at_progress_and_logs();
            self.plan_look();
            // Not at once: a task that is over by now never has to say that it runs, which would
            // cost it as much as all its other files together (docs/design/0020).
            self.tell();
            pause = (pause * 2).min(LOOKS.1);
            full_look = Instant::now() + pause;
        }
    }

    /// Between two usual looks: what is written is cut, if it is time for that.
    fn keep_bounds(&mut self) {
        let is_due = |at| Instant::now() >= at;
        if self.growth.look_at().is_some_and(is_due) {
            self.growth
                .cap_logs(self.files, self.settings.log_cap_bytes);
            self.plan_look();
        }
    }

    fn plan_look(&mut self) {
        let cap = self.settings.log_cap_bytes;
        self.growth
            .plan(self.attempt, self.files, &mut self.progress, cap);
    }

    /// A result that the recipe wrote would end the task for all readers.
    fn set_foreign_result_aside(&mut self) {
        match self.lock.set_foreign_result_aside(self.attempt) {
            Ok(false) => {}
            Ok(true) => {
                if !self.foreign {
                    tracing::warn!(task = %self.status.task_id, "{FOREIGN_RESULT}");
                }
                self.foreign = true;
            }
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// Sleeps until the process ends, the watcher or a signal says something, or the time is over;
    /// or until something is written, which is no reason to look at anything else.
    fn wait(&mut self, time: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::new(self.leader.handle(), PollFlags::IN)];
        fds.push(PollFd::from_borrowed_fd(
            self.control.signals().as_fd(),
            PollFlags::IN,
        ));
        if let Some(orders) = self.control.orders() {
            fds.push(PollFd::from_borrowed_fd(orders, PollFlags::IN));
        }
        let others = fds.len();
        if let Some(alarm) = self.growth.alarm() {
            fds.push(PollFd::from_borrowed_fd(alarm, PollFlags::IN));
        }
        let polled = poll(&mut fds, Some(&timeout));
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let is_called = polled.is_err() || fds[..others].iter().any(is_ready);
        if polled.is_ok() && fds[others..].iter().any(is_ready) {
            self.growth.rang(self.settings.log_cap_bytes);
        }
        self.control.take_in();
        is_called
    }

    fn look_at_progress_and_logs(&mut self) {
        let lines = self.progress.lines(self.attempt);
        let Latest {
            progress,
            message,
            metrics,
        } = progress::latest(&lines);
        let mut changed = progress.is_some() || message.is_some() || !metrics.is_empty();
        for reported in metrics {
            if !self.metrics.report(reported) {
                let most = Metrics::MAX_REPORTED_BYTES;
                tracing::warn!(task = %self.status.task_id, "metrics beyond {most} bytes are left out");
            }
        }
        self.status.progress = progress.unwrap_or(self.status.progress);
        self.status.message = message.or(self.status.message.take());
        let cap = self.settings.log_cap_bytes;
        self.growth.cap_logs(self.files, cap);
        let dropped = self.growth.cut_out(self.files, cap);
        changed |= dropped != self.status.log_bytes_dropped;
        self.status.log_bytes_dropped = dropped;
        if changed {
            self.is_told = false;
            self.tell();
        }
    }

    /// Writes the status where the one on the disk says something else. Best effort: it can be
    /// derived.
    fn tell(&mut self) {
        if self.is_told {
            return;
        }
        self.is_told = true;
        if let Err(error) = self.lock.write_status(&self.status) {
            tracing::debug!("{error}");
        }
    }
}
