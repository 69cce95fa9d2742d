//! The check that tasks can be started as the setting `launcher` requires.
//!
//! With `systemd` an ordinary user needs the permission to start, stop and limit the units of tasks. A polkit
//! rule grants it. Invariant: the check uses a unit that never runs, so nothing is started and nothing is
//! stopped.

use std::process::{Command, Stdio};

use crate::config::Launcher;
use crate::spool::{IoError, Spool};
use crate::task::TaskId;

use super::check::Check;
use super::surroundings::Surroundings;

/// Checks that this user may start and stop the units of tasks.
pub(super) fn launcher(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "launcher";
    if manager(spool).is_none() {
        return Ok(vec![Check::ok(NAME, "local: tasks are not systemd units")]);
    }
    if !spool.is_owner() {
        let message = "systemd: only the spool's owner can check whether units may be started";
        let hint = "run `agentspool doctor` as the owner";
        return Ok(vec![Check::warn(NAME, message, hint)]);
    }
    Ok(vec![match launcher_problem(spool) {
        None => Check::ok(
            NAME,
            "systemd: the units of tasks may be started and stopped",
        ),
        Some(why) => {
            let hint = "install systemd/polkit/50-agentspool.rules and the unit \
                        agentspool-task@.service (the package and `agentspool install` do this), or run \
                        `agentspool config set launcher local`";
            Check::problem(
                NAME,
                format!("systemd: no unit may be started: {why}"),
                hint,
            )
        }
    }])
}

/// The arguments that name the manager of the units. `None` if tasks are not units.
fn manager(spool: &Spool) -> Option<&'static [&'static str]> {
    match spool.settings().launcher {
        Launcher::Local => None,
        Launcher::Systemd => Some(&[]),
        Launcher::SystemdUser => Some(&["--user"]),
    }
}

/// Why units may not be started. `None` if there is no problem, or if this user is not the owner.
pub(in crate::client) fn launcher_problem(spool: &Spool) -> Option<String> {
    let manager = manager(spool).filter(|_| spool.is_owner())?;
    try_to_stop(manager).err()
}

/// Tries to stop a task's unit that cannot be running: that of the smallest id.
fn try_to_stop(manager: &[&str]) -> Result<(), String> {
    let unit = format!("agentspool-task@{}.service", TaskId::from_parts(0, 0));
    let tried = Command::new("systemctl")
        .args(manager)
        .args(["--no-ask-password", "stop", &unit])
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("failed to start systemctl: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&tried.stderr);
    Err(text
        .lines()
        .next()
        .unwrap_or("systemctl failed without a message")
        .to_owned())
}
