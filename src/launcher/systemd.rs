//! Runs a task as its own systemd unit and waits for its end.
//!
//! The work is done by `agentspool runner --once ID` in `agentspool-task@ID.service`, which has its own
//! cgroup, so the kernel applies the recipe's limits. This file only starts the unit and returns the
//! outcome. The caller decides whether the task may run now. Invariants: no unit is started for a task
//! that cannot run now; whether the task ran is read from the disk, never from systemd's answer.

use std::os::fd::BorrowedFd;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::config::Launcher;
use crate::recipe::Limits;
use crate::spool::{Claim, IoError, Spool};
use crate::task::{Answer, Blocker, Holder, TaskId, When, Why};

/// A caller that waits for a unit and may be interrupted.
pub(crate) trait Waiter {
    /// Descriptors that become readable when [`Waiter::goes_on`] must be called.
    fn calls(&self) -> Vec<BorrowedFd<'_>>;
    /// Whether to go on waiting. Called after one of the descriptors was readable.
    fn goes_on(&mut self) -> bool;
}

/// The units that one process starts, one after another.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// The last error of systemd, so that it is reported once.
    failure: Option<String>,
}

/// The name of a task's unit.
pub(super) fn name_of(id: TaskId) -> String {
    format!("agentspool-task@{id}.service")
}

/// How a call of `systemctl` ended.
enum Called {
    Done,
    Failed(String),
    /// The watcher exited or a signal arrived: the unit goes on, and the caller does not wait for it.
    LeftAlone,
}

impl Units {
    /// Starts a task's unit and waits for its end. The unit takes slots and locks itself; the caller must
    /// not hold them.
    pub fn run(
        &mut self,
        spool: &Spool,
        id: TaskId,
        limits: Limits,
        launcher: Launcher,
        waiter: &mut dyn Waiter,
    ) -> Result<Answer, IoError> {
        let unit = name_of(id);
        let mut calls = Vec::new();
        let properties = limits.properties();
        if !properties.is_empty() {
            let mut call = vec!["set-property", "--runtime", &unit];
            call.extend(properties.iter().map(String::as_str));
            calls.push(call);
        }
        calls.push(vec!["start", "--wait", &unit]);
        for call in calls {
            match systemctl(launcher, &call, waiter) {
                Called::Done => {}
                Called::LeftAlone => return Ok(Answer::Retry(When::AtScan, Why::UnitLeft)),
                // A failed unit is reported the same way; the disk has the details.
                Called::Failed(why) => return self.answer_of(spool, id, Some(why)),
            }
        }
        self.answer_of(spool, id, None)
    }

    /// The outcome of a task whose unit has ended.
    fn answer_of(
        &mut self,
        spool: &Spool,
        id: TaskId,
        failure: Option<String>,
    ) -> Result<Answer, IoError> {
        let Some(task) = spool.task(id)? else {
            return Ok(Answer::Finished(None));
        };
        if let Ok(Some(result)) = task.result() {
            return Ok(Answer::Finished(result.session_id));
        }
        let is_started = task.last_attempt()? > 0;
        if matches!(task.lock(spool)?, Claim::Busy(_)) {
            return Ok(Answer::Held(Holder::Runner));
        }
        let Some(why) = failure.filter(|_| !is_started) else {
            // There is an attempt, so its runner ended in the unit. The next runner handles that.
            return Ok(Answer::Retry(When::Soon, Why::UnitEnded));
        };
        if self.failure.as_ref() != Some(&why) {
            // Reported once, although it is tried again and again.
            tracing::error!(task = %id, "no unit could be started: {why}");
            self.failure = Some(why);
        }
        // Other tasks would fail in the same way, so all of them wait.
        Ok(Answer::Blocked(Blocker::Slot))
    }
}

fn systemctl(launcher: Launcher, arguments: &[&str], waiter: &mut dyn Waiter) -> Called {
    let mut command = Command::new("systemctl");
    command.args(["--no-ask-password", "--quiet"]);
    if launcher == Launcher::SystemdUser {
        command.arg("--user");
    }
    let started = command
        .args(arguments)
        // It must not notify the service manager as if it were this process.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    match started {
        Ok(child) => wait_for(child, waiter),
        Err(error) => Called::Failed(format!("failed to start systemctl: {error}")),
    }
}

fn wait_for(mut child: Child, waiter: &mut dyn Waiter) -> Called {
    let pid = Pid::from_child(&child);
    // Without a handle the wait does not notice the watcher's exit.
    while let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
        let mut fds = vec![PollFd::new(&handle, PollFlags::IN)];
        let calls = waiter.calls().into_iter();
        fds.extend(calls.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let _ = poll(&mut fds, None);
        if fds[0].revents().contains(PollFlags::IN) {
            break;
        }
        drop(fds);
        if !waiter.goes_on() {
            let _ = child.kill();
            let _ = child.wait();
            return Called::LeftAlone;
        }
    }
    match child.wait_with_output() {
        Ok(output) if output.status.success() => Called::Done,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said.lines().map(str::trim).collect();
            Called::Failed(format!(
                "systemctl: {} ({})",
                said.join("; "),
                output.status
            ))
        }
        Err(error) => Called::Failed(format!("failed to wait for systemctl: {error}")),
    }
}
