//! Watching over one attempt: its end, its deadline, its cancellation, its progress, its logs.
//!
//! Waits on the recipe's process, the watcher's pipe and signals; wakes by itself only to look at
//! what nobody tells it. Not the ending of its processes (`group.rs`). Invariant: it returns when nothing of the attempt is alive.

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

/// How often to look unasked: soon in a task's first moments, in which the watcher does not yet
/// listen to its folder, later only as often as people notice.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How often the progress of a task is an event.
const REPORTS: Duration = Duration::from_secs(1);
/// How often it is looked whether what a recipe left behind still holds its output.
const LEFTOVER_LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
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
    /// What the recipe reported of itself, and what its processes used.
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
    /// Where all its processes are, if the runner has one.
    pub cgroup: Option<&'a Cgroup>,
    /// Why it is to be ended already, although it was only started.
    pub early: Option<Ending>,
    /// What orphans that were reaped by now used.
    pub usage: Usage,
    pub deadline: Instant,
    pub status: StatusFile,
    /// Whether `status` stands on the disk.
    pub is_reported: bool,
    /// The bounds of what it writes.
    pub growth: &'a mut Growth,
    /// Whether the leader looks ended to `poll` without having ended: somebody traces it, or a thread of it
    /// lives.
    pub looks_ended: bool,
    /// When its progress was last made known, and whether there is newer one.
    pub reported: Option<Instant>,
    pub is_report_due: bool,
    /// How far the progress file was read.
    pub progress: ProgressReader,
    /// Whether a result that is not ours was set aside.
    pub foreign: bool,
    /// What the recipe reported of itself so far.
    pub metrics: Metrics,
    /// How many of its reports had metrics for which there was no room.
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
            report_stuck(self.lock, "a process of it does not die");
        });
        let exit = ended.exit;
        // Nobody writes any more.
        self.look_at_progress_and_logs();
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

    /// What a recipe leaves behind may still carry its last words, as long as it holds the task's own stdout
    /// or stderr. It is waited for, but not if somebody wants the end.
    fn wait_for_leftovers(&mut self) {
        let patience = Duration::from_secs_f64(self.settings.leftover_wait_sec);
        let until = (Instant::now() + patience).min(self.deadline);
        let mut pause = LEFTOVER_LOOKS.0;
        while !group::is_alone(self.leader) && self.is_output_held() && Instant::now() < until {
            self.wait_for_signal(pause.min(until.saturating_duration_since(Instant::now())));
            proc::reap_others(self.leader.pid(), &mut self.usage);
            pause = (pause * 2).min(LEFTOVER_LOOKS.1);
            if self.control.should_stop() || self.lock.task().cancel_requested().unwrap_or(false) {
                return;
            }
            self.look_at_progress_and_logs();
        }
    }

    /// Whether a process besides the recipe's own has the logs open, or may have.
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

    /// Once a task, because a recipe can report as fast as it writes.
    fn report_left_out(&self) {
        if self.left_out > 0 {
            let (most, count) = (Metrics::MAX_REPORTED_BYTES, self.left_out);
            tracing::warn!(
                task = %self.status.task_id,
                "metrics beyond {most} bytes are left out, in {count} of its reports"
            );
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
        // Longer than the kernel can count is for ever.
        let timeout = Timespec::try_from(time).ok();
        let _ = poll(
            &mut [PollFd::new(self.control.signals(), PollFlags::IN)],
            timeout.as_ref(),
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
            if self.leader.has_ended() || (self.looks_ended && self.leader.is_dead()) {
                return Ending::ByItself;
            }
            // Only then is there a reason to look what woke us.
            self.looks_ended |= is_called && is_readable(self.leader.handle());
            proc::reap_others(self.leader.pid(), &mut self.usage);
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
            // cost it as much as all its other files together (docs/design/0010).
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
                .cap_logs(self.attempt, self.files, self.settings.log_cap_bytes);
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

    /// Sleeps until the process ends, the watcher or a signal says something, or the time is over;
    /// or until something is written, which is no reason to look at anything else.
    fn wait(&mut self, time: Duration) -> bool {
        // Longer than the kernel can count is for ever.
        let timeout = Timespec::try_from(time).ok();
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.control.signals().as_fd(),
            PollFlags::IN,
        )];
        // Seen to look ended without having ended, it would only keep this spinning.
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

    fn look_at_progress_and_logs(&mut self) {
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
            self.tell();
        }
    }

    /// At most once in [`REPORTS`], because a recipe can report as fast as it writes.
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

    /// Writes the status where the one on the disk says something else. Best effort: it can be
    /// derived.
    fn tell(&mut self) {
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
