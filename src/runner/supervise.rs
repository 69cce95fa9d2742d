//! Supervises one attempt: its end, its deadline, its cancellation, its progress, its logs.
//!
//! Waits for the recipe's process, the watcher's pipe and signals, and wakes at intervals for everything
//! that sends no notification. Does not end the processes (`group.rs`). Invariant: it returns only when
//! no process of the attempt is alive.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::control::Control;
use super::group::{self, Leader};
use super::growth::Growth;
use super::progress::{self, Latest};
use crate::config::Settings;
use crate::ending::{report_foreign_result, report_stuck};
use crate::proc::{self, Cgroup, Usage};
use crate::spool::{Attempt, Files, ProgressReader, Spool, TaskLock};
use crate::task::{Event, Exit, Happened, Metrics, StatusFile};

/// How often to check without a notification: often in the first moments of a task, when the watcher does
/// not yet watch its folder, then only as often as people notice.
const CHECKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// The shortest time between two progress events of a task.
const REPORTS: Duration = Duration::from_secs(1);
/// How often to check whether the processes that a recipe left behind still have its output open.
const LEFTOVER_CHECKS: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_millis(100));
/// A machine that shuts down sends TERM to the recipe and to this runner. If the recipe gets it first,
/// the runner gets it within this time.
const SAME_MOMENT: Duration = Duration::from_millis(200);

/// Why the attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The recipe's process ended.
    ByItself,
    /// The cancel marker was found.
    Cancelled,
    /// The deadline passed.
    TimedOut,
    /// This runner was asked to stop. That does not cancel the task.
    RunnerStopped,
}

/// How a supervised attempt ended.
#[derive(Debug)]
pub(super) struct Supervised {
    pub ending: Ending,
    pub exit: Exit,
    /// With the last progress and message.
    pub status: StatusFile,
    /// The metrics that the recipe reported, and the resources that its processes used.
    pub metrics: Metrics,
}

/// Everything supervision needs.
pub(super) struct Supervisor<'a> {
    pub lock: &'a TaskLock,
    pub attempt: &'a Attempt,
    pub files: &'a Files,
    pub spool: &'a Spool,
    pub settings: &'a Settings,
    pub control: &'a mut Control,
    pub leader: &'a Leader,
    /// The cgroup of all its processes, if the runner has one.
    pub cgroup: Option<&'a Cgroup>,
    /// Set if the attempt must end although its recipe has only just started.
    pub early: Option<Ending>,
    /// The resources used by orphans that were already reaped.
    pub usage: Usage,
    pub deadline: Instant,
    pub status: StatusFile,
    /// Whether `status` is on the disk.
    pub is_reported: bool,
    /// Keeps the files that the attempt writes within their limits.
    pub growth: &'a mut Growth,
    /// Whether the leader appears to have ended to `poll` but has not: another process traces it, or one
    /// of its threads is still running.
    pub looks_ended: bool,
    /// The time of the last progress event, and whether there is newer progress.
    pub reported: Option<Instant>,
    pub is_report_due: bool,
    /// Reads the progress file from where the last read ended.
    pub progress: ProgressReader,
    /// Whether a result that no runner wrote was moved aside.
    pub foreign: bool,
    /// The metrics that the recipe has reported so far.
    pub metrics: Metrics,
    /// The number of reports whose metrics did not fit.
    pub left_out: u64,
}

impl Supervisor<'_> {
    pub fn run(mut self) -> Supervised {
        self.growth.begin();
        let ending = self.early.unwrap_or_else(|| self.wait_for_an_ending());
        if ending == Ending::ByItself {
            self.wait_for_leftovers();
        }
        let grace = Duration::from_secs_f64(self.settings.cancel_grace_sec);
        let ended = group::end_tree(self.leader, self.cgroup, grace, self.usage, || {
            report_stuck(self.lock, "one of its processes cannot be killed");
        });
        let exit = ended.exit;
        // Nothing writes to the files any more.
        self.read_progress_and_cap_logs();
        self.growth.end();
        self.report_left_out();
        if ending == Ending::ByItself {
            self.report_leftovers(ended.others);
        }
        let Usage {
            cpu_seconds,
            peak_rss_bytes,
        } = ended.usage;
        self.metrics.usage(cpu_seconds, peak_rss_bytes);
        if self.foreign {
            self.set_foreign_result_aside();
            self.lock.bound_foreign_result(Some(self.attempt));
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

    /// Waits for processes that the recipe left behind, as long as one of them has the task's stdout or
    /// stderr open: it may still write output. Returns early on a cancellation or a request to stop.
    fn wait_for_leftovers(&mut self) {
        let patience = Duration::from_secs_f64(self.settings.leftover_wait_sec);
        let until = (Instant::now() + patience).min(self.deadline);
        let mut pause = LEFTOVER_CHECKS.0;
        while !group::is_alone(self.leader) && self.is_output_held() && Instant::now() < until {
            self.wait_for_signal(pause.min(until.saturating_duration_since(Instant::now())));
            proc::reap_others(self.leader.pid(), &mut self.usage);
            pause = (pause * 2).min(LEFTOVER_CHECKS.1);
            if self.control.should_stop() || self.lock.task().cancel_requested().unwrap_or(false) {
                return;
            }
            self.read_progress_and_cap_logs();
        }
    }

    /// Whether a process other than the recipe's own has a log open. An error counts as yes.
    fn is_output_held(&self) -> bool {
        let logs = [&self.files.stdout, &self.files.stderr];
        proc::check_mounted().is_err()
            || proc::descendants()
                .iter()
                .any(|entry| proc::writes_to(entry, &logs).unwrap_or(true))
    }

    fn report_leftovers(&mut self, count: usize) {
        self.metrics.leftover_processes(count);
        let processes = match count {
            0 => return,
            1 => "1 process",
            _ => &format!("{count} processes"),
        };
        tracing::info!(
            task = %self.status.task_id,
            "ended {processes} that the recipe left behind"
        );
    }

    /// At most one message for each task, because a recipe can report very often.
    fn report_left_out(&self) {
        if self.left_out > 0 {
            let (most, count) = (Metrics::MAX_REPORTED_BYTES, self.left_out);
            tracing::warn!(
                task = %self.status.task_id,
                "the metrics of {count} reports were ignored: a task keeps at most {most} bytes of metrics"
            );
        }
    }

    /// Whether the recipe failed at the moment this runner was asked to stop. A machine that shuts down
    /// sends TERM to both, in any order, and that is not a failure of the recipe.
    fn was_stopped_with(&mut self, exit: Exit) -> bool {
        self.control.take_in();
        if exit == Exit::Signal(Signal::TERM.as_raw()) && !self.control.should_stop() {
            self.wait_for_signal(SAME_MOMENT);
        }
        exit != Exit::Code(0) && self.control.should_stop()
    }

    fn wait_for_signal(&mut self, time: Duration) {
        // A time too long for the kernel becomes no timeout.
        let timeout = Timespec::try_from(time).ok();
        let _ = poll(
            &mut [PollFd::new(self.control.signals(), PollFlags::IN)],
            timeout.as_ref(),
        );
        self.control.take_in();
    }

    fn wait_for_an_ending(&mut self) -> Ending {
        let mut pause = CHECKS.0;
        let mut full_check = Instant::now() + pause;
        loop {
            let until = full_check.min(self.deadline);
            let soon = self.growth.check_at().map_or(until, |at| at.min(until));
            let is_called = self.wait(soon.saturating_duration_since(Instant::now()));
            if !is_called && Instant::now() < until {
                self.keep_bounds();
                continue;
            }
            if self.leader.has_ended() || (self.looks_ended && self.leader.is_dead()) {
                return Ending::ByItself;
            }
            // The leader has not ended, so find out whether its handle woke us.
            self.looks_ended |= is_called && is_readable(self.leader.handle());
            proc::reap_others(self.leader.pid(), &mut self.usage);
            if self.control.should_stop() {
                return Ending::RunnerStopped;
            }
            // An error is not a cancellation.
            if self.lock.task().cancel_requested().unwrap_or(false) {
                return Ending::Cancelled;
            }
            if Instant::now() >= self.deadline {
                return Ending::TimedOut;
            }
            self.set_foreign_result_aside();
            self.read_progress_and_cap_logs();
            self.plan_check();
            // Only after the first check: a short task then never writes a running status, which would
            // cost it as much as all its other files together (docs/design/0010).
            self.write_status_if_changed();
            pause = (pause * 2).min(CHECKS.1);
            full_check = Instant::now() + pause;
        }
    }

    /// Between two full checks: cuts the logs if that is due.
    fn keep_bounds(&mut self) {
        let is_due = |at| Instant::now() >= at;
        if self.growth.check_at().is_some_and(is_due) {
            self.growth
                .cap_logs(self.attempt, self.files, self.settings.log_cap_bytes);
            self.plan_check();
        }
    }

    fn plan_check(&mut self) {
        let cap = self.settings.log_cap_bytes;
        self.growth
            .plan(self.attempt, self.files, &mut self.progress, cap);
    }

    /// Every reader would take a result that the recipe wrote as the end of the task.
    fn set_foreign_result_aside(&mut self) {
        match self.lock.set_foreign_result_aside(Some(self.attempt)) {
            Ok(false) => {}
            Ok(true) => {
                if !self.foreign {
                    report_foreign_result(self.status.task_id);
                }
                self.foreign = true;
            }
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// Sleeps until the process ends, an order or a signal arrives, or the time is over; returns true
    /// then. Also returns, with false, when a log is written to, which is no reason for other checks.
    fn wait(&mut self, time: Duration) -> bool {
        // A time too long for the kernel becomes no timeout.
        let timeout = Timespec::try_from(time).ok();
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.control.signals().as_fd(),
            PollFlags::IN,
        )];
        // Once its handle is readable although it has not ended, polling it would return at once every
        // time.
        if !self.looks_ended {
            fds.push(PollFd::new(self.leader.handle(), PollFlags::IN));
        }
        if let Some(orders) = self.control.orders() {
            fds.push(PollFd::from_borrowed_fd(orders, PollFlags::IN));
        }
        let others = fds.len();
        if let Some(alarm) = self.growth.alarm() {
            fds.push(PollFd::from_borrowed_fd(alarm, PollFlags::IN));
        }
        let polled = poll(&mut fds, timeout.as_ref());
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let is_called = polled.is_err() || fds[..others].iter().any(is_ready);
        if polled.is_ok() && fds[others..].iter().any(is_ready) {
            self.growth.rang(self.settings.log_cap_bytes);
        }
        self.control.take_in();
        is_called
    }

    fn read_progress_and_cap_logs(&mut self) {
        let lines = self.progress.lines(self.attempt);
        let Latest {
            progress,
            message,
            metrics,
        } = progress::latest(&lines);
        let mut changed = progress.is_some() || message.is_some() || !metrics.is_empty();
        self.is_report_due |= progress.is_some() || message.is_some();
        for reported in metrics {
            if !self.metrics.report(reported) {
                self.left_out += 1;
            }
        }
        self.status.progress = progress.unwrap_or(self.status.progress);
        self.status.message = message.or(self.status.message.take());
        self.report_progress();
        let cap = self.settings.log_cap_bytes;
        self.growth.cap_logs(self.attempt, self.files, cap);
        let dropped = self.growth.cut_out();
        changed |= dropped != self.status.log_bytes_dropped;
        self.status.log_bytes_dropped = dropped;
        if changed {
            self.is_reported = false;
            self.write_status_if_changed();
        }
    }

    /// At most one event in each [`REPORTS`], because a recipe can report very often.
    fn report_progress(&mut self) {
        let is_early = self.reported.is_some_and(|at| at.elapsed() < REPORTS);
        if !self.is_report_due || is_early {
            return;
        }
        (self.is_report_due, self.reported) = (false, Some(Instant::now()));
        let status = &self.status;
        let (recipe, session) = (status.recipe.as_ref(), status.session_id.as_ref());
        let event = Event {
            attempt: Some(status.attempt),
            progress: Some(status.progress),
            message: status.message.clone(),
            ..Event::of(Happened::Progress, status.task_id, recipe, session)
        };
        self.lock.emit(self.spool, event);
    }

    /// Writes the status if the one on the disk differs. Best effort: the status can be derived.
    fn write_status_if_changed(&mut self) {
        if self.is_reported {
            return;
        }
        self.is_reported = true;
        if let Err(error) = self.lock.write_status(&self.status) {
            tracing::debug!("{error}");
        }
    }
}

fn is_readable(handle: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
