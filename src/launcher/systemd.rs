//! A task as a unit of its own: it is handed to systemd, and its end is waited for.
//!
//! The work is done by `agentspool runner --once ID` in `agentspool-task@ID.service`, which has a
//! cgroup of its own, so that the kernel holds it to the recipe's limits. Here are only the start and
//! the answer; whether the task may run now is for the caller to know. Invariants: no unit is started for a task that could not run now, and whether one ran
//! is read from the disk, never from what systemd says.

use std::os::fd::BorrowedFd;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::config::Launcher;
use crate::recipe::Limits;
use crate::spool::{Claim, IoError, Spool};
use crate::task::{Answer, Blocker, Holder, TaskId, When, Why};

/// Who waits for a unit, and may be called away.
pub(crate) trait Waiter {
    /// Becomes readable when there is a reason to ask.
    fn calls(&self) -> Vec<BorrowedFd<'_>>;
    /// Whether to go on waiting; asked after one of them was readable.
    fn goes_on(&mut self) -> bool;
}

/// The units that one process starts, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Units {
    /// What systemd last refused, so that it is told once.
    failure: Option<String>,
}

/// The unit of a task.
pub(super) fn name_of(id: TaskId) -> String {
    format!("agentspool-task@{id}.service")
}

/// How a call of `systemctl` ended.
enum Called {
    Done,
    Failed(String),
    /// The watcher went or a signal came: nobody waits for an answer, and the unit goes on.
    LeftAlone,
}

impl Units {
    /// Starts a task's unit, which takes slots and locks itself, and waits for its end. Nobody holds them for it.
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
                // Also said when the unit failed, which the disk tells better.
                Called::Failed(why) => return self.answer_of(spool, id, Some(why)),
            }
        }
        self.answer_of(spool, id, None)
    }

    /// What became of a task whose unit has ended.
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
            // Where an attempt stands its runner died in the unit: the next one finds out what that means.
            return Ok(Answer::Retry(When::Soon, Why::UnitEnded));
        };
        if self.failure.as_ref() != Some(&why) {
            // Once, although it is tried again and again.
            tracing::error!(task = %id, "no unit could be started: {why}");
            self.failure = Some(why);
        }
        // The others would fare no better: all wait a little.
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
        // It has nothing to say to the manager in our name.
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
    // Without a handle the wait is blind to the watcher, no worse.
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
