//! A task as a unit of its own: this runner hands it to systemd and waits for the end.
//!
//! The work is done by `agentspool runner --once ID` in `agentspool-task@ID.service`, which has a
//! cgroup of its own, so that the kernel holds it to the recipe's limits. Here are only the start and
//! the answer. Invariants: no unit is started for a task that could not run now, and whether one ran
//! is read from the disk, never from what systemd says.

use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Runner;
use super::turn::Turn;
use crate::config::Launcher;
use crate::spool::{Claim, IoError};
use crate::task::{Answer, TaskId};

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

impl Runner<'_> {
    /// Like `run_task`, but what must be started is started as a unit.
    pub(super) fn run_as_unit(
        &mut self,
        id: TaskId,
        launcher: Launcher,
    ) -> Result<Answer, IoError> {
        let (task, request, recipe, held) = match self.turn_of(id)? {
            Turn::Over(answer) => return Ok(answer),
            Turn::Ours {
                task,
                request,
                recipe,
                held,
            } => (task, request, recipe, held),
        };
        let limits = match &recipe {
            Ok(recipe) => recipe.manifest.limits,
            // Nothing will be started, so no unit is needed to say so.
            Err(_) => return self.claim_and(task, Some((request, recipe))),
        };
        let started = task.last_attempt()? > 0;
        if matches!(task.lock(self.spool)?, Claim::Busy(_)) {
            return Ok(Answer::Taken { started });
        }
        // The unit's own runner takes all of this again.
        drop(held);
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
            match self.systemctl(launcher, &call) {
                Called::Done => {}
                Called::LeftAlone => return Ok(Answer::Taken { started: true }),
                // Also said when the unit failed, which the disk tells better.
                Called::Failed(why) => return self.answer_of(id, Some(why)),
            }
        }
        self.answer_of(id, None)
    }

    /// What became of a task whose unit has ended.
    fn answer_of(&mut self, id: TaskId, failure: Option<String>) -> Result<Answer, IoError> {
        let Some(task) = self.spool.task(id)? else {
            return Ok(Answer::Finished(None));
        };
        if let Ok(Some(result)) = task.result() {
            return Ok(Answer::Finished(result.session_id));
        }
        let is_started = task.last_attempt()? > 0;
        if matches!(task.lock(self.spool)?, Claim::Busy(_)) {
            return Ok(Answer::Taken { started: true });
        }
        if is_started {
            // Its runner died in the unit: the next one finds out what that means.
            return Ok(Answer::Taken { started: false });
        }
        let Some(why) = failure else {
            return Ok(Answer::Taken { started: false });
        };
        if self.unit_failure.as_ref() != Some(&why) {
            // Once, although it is tried again and again.
            tracing::error!(task = %id, "no unit could be started: {why}");
            self.unit_failure = Some(why);
        }
        // The others would fare no better: all wait a little.
        Ok(Answer::NoSlot(None))
    }

    fn systemctl(&mut self, launcher: Launcher, arguments: &[&str]) -> Called {
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
            Ok(child) => self.wait_for(child),
            Err(error) => Called::Failed(format!("failed to start systemctl: {error}")),
        }
    }

    fn wait_for(&mut self, mut child: Child) -> Called {
        let pid = Pid::from_child(&child);
        // Without a handle the wait is blind to the watcher, no worse.
        while let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
            let mut fds = vec![
                PollFd::new(&handle, PollFlags::IN),
                PollFd::new(self.control.signals(), PollFlags::IN),
            ];
            if let Some(orders) = self.control.orders() {
                fds.push(PollFd::from_borrowed_fd(orders, PollFlags::IN));
            }
            let _ = poll(&mut fds, None);
            if fds[0].revents().contains(PollFlags::IN) {
                break;
            }
            self.control.take_in();
            if self.control.should_stop() || self.control.orders().is_none() {
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
}
