//! Checks of watchers and sweeps, and of the limits that the machine sets for them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::clock;
use crate::proc;
use crate::spool::{IoError, Spool, Wake, WatcherFile};
use crate::task::quote_path;

use super::check::{Check, count};
use super::surroundings::Surroundings;

const TIMER: &str = "agentspool-sweep.timer";
const SERVICE: &str = "agentspool.service";
/// The spool of the system service.
const SYSTEM_SPOOL: &str = "/var/spool/agentspool";
const DAY_SEC: f64 = 86_400.0;
/// The open files of a watcher and its runners: for each running task, and in addition.
const FILES_PER_TASK: u64 = 4;
const FILES_BESIDES: u64 = 64;

/// Checks that a watcher is running, and that it has the version of this program.
pub(super) fn watcher(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "watcher";
    if !spool.is_owner() {
        // A user of the group can see that a watcher is running, but not which one.
        return Ok(vec![match spool.sees_watcher()? {
            Some(true) => Check::ok(NAME, "a watcher is running"),
            Some(false) => {
                let hint = "ask the spool's owner to start one";
                Check::problem(NAME, "no watcher is running, so no task starts", hint)
            }
            None => {
                let hint = "ask the spool's owner whether a watcher is running";
                let why = "failed to check for a watcher: the system's table of locks is too long";
                Check::warn(NAME, why, hint)
            }
        }]);
    }
    let watchers = spool.living_watchers()?;
    if watchers.is_empty() {
        return Ok(vec![no_watcher(spool)?]);
    }
    let checks = watchers.iter().map(|watcher: &WatcherFile| {
        let WatcherFile {
            pid,
            started_at,
            version,
            ..
        } = watcher;
        let message = format!("pid {pid} since {started_at}, version {version}");
        let ours = env!("CARGO_PKG_VERSION");
        if version == ours {
            return Check::ok(NAME, message);
        }
        let hint = "restart it; running tasks continue";
        Check::warn(
            NAME,
            format!("{message}, but this program is version {ours}"),
            hint,
        )
    });
    Ok(checks.collect())
}

fn no_watcher(spool: &Spool) -> Result<Check, IoError> {
    const NAME: &str = "watcher";
    let hint = format!(
        "start one with `agentspool --spool {} watch`",
        quote_path(spool.path())
    );
    let waiting = spool.open_ids()?.len();
    if waiting > 0 {
        let message = format!("none, and {} open", count(waiting, "task"));
        return Ok(Check::problem(NAME, message, hint));
    }
    let dropped = spool.in_box()?.waiting();
    if dropped > 0 {
        let message = format!("none, and {} in the drop box", count(dropped, "file"));
        return Ok(Check::problem(NAME, message, hint));
    }
    if spool.settings().autostart && !spool.is_group() {
        return Ok(Check::ok(NAME, "none; the next submit starts one"));
    }
    Ok(Check::problem(NAME, "none, so no task starts", hint))
}

/// Checks that old tasks are swept regularly.
pub(super) fn sweeps(
    surroundings: &Surroundings<'_>,
    spool: &Spool,
) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "sweeps";
    let timer = manager_of(surroundings, spool).and_then(|manager| {
        let enabled = ask_systemd(manager, &["is-enabled", TIMER])?;
        Some((
            manager,
            enabled,
            ask_systemd(manager, &["is-active", TIMER])?,
        ))
    });
    let last = spool.sweep_clock()?.map(|last| last.wall);
    let ago = last.map(|last| clock::wall().seconds_since(last));
    let message = ago.map_or("no pass yet".to_owned(), |ago| {
        format!("last pass {ago:.0} s ago")
    });
    if let Some((manager, enabled, active)) = timer
        && enabled == "enabled"
    {
        return Ok(vec![if active == "active" {
            Check::ok(NAME, format!("{TIMER} is active, {message}"))
        } else {
            let hint = format!("`{} start {TIMER}`", manager.command());
            Check::problem(NAME, format!("{TIMER} is {active}, {message}"), hint)
        }]);
    }
    let since = spool
        .living_watchers()?
        .first()
        .map(|watcher| watcher.started_at);
    let every = spool.settings().sweep_every_sec;
    // Without a watcher the spool does not grow, so one pass a day is enough.
    let (patience, who) = match since {
        Some(_) => (3.0 * every + 60.0, "the watcher sweeps"),
        None => (DAY_SEC, "no timer and no watcher"),
    };
    let silent = ago.unwrap_or_else(|| match since {
        Some(since) => clock::wall().seconds_since(since),
        None => 0.0,
    });
    let check = if silent > patience && spool.has_anything_to_sweep()? {
        let hint = "run `agentspool sweep` to see why, or `agentspool sweep --every 5m` to sweep repeatedly";
        Check::warn(NAME, format!("{message}, {who}"), hint)
    } else {
        Check::ok(NAME, format!("{message}, {who}"))
    };
    Ok(vec![check])
}

/// Checks that a user's service keeps running when the user is not logged in.
pub(super) fn linger(
    surroundings: &Surroundings<'_>,
    spool: &Spool,
) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "linger";
    if manager_of(surroundings, spool) != Some(Manager::User) {
        return Ok(Vec::new());
    }
    if ask_systemd(Manager::User, &["is-enabled", SERVICE]).as_deref() != Some("enabled") {
        return Ok(Vec::new());
    }
    let us = rustix::process::geteuid().as_raw().to_string();
    let linger = first_line(Command::new("loginctl").args([
        "show-user",
        &us,
        "--property=Linger",
        "--value",
    ]));
    Ok(vec![if linger.as_deref() == Some("yes") {
        Check::ok(NAME, "the service keeps running without a login")
    } else {
        let message = "the service stops at the last logout and does not start at boot";
        Check::warn(NAME, message, "run `loginctl enable-linger`")
    }])
}

/// Checks that a watcher can be notified of new tasks, and can open enough files.
pub(super) fn limits(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "limits";
    let number = |file: &str| {
        let text = proc::read_text(format!("/proc/sys/fs/inotify/{file}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let inotify = format!(
        "inotify: {} instances and {} watches per user",
        number("max_user_instances"),
        number("max_user_watches")
    );
    let wake = Wake::for_watcher(spool)?;
    if let Some(why) = wake.is_deaf() {
        let (message, hint) = if wake.lacks_inotify() {
            let hint = "raise fs.inotify.max_user_instances and max_user_watches with sysctl";
            (format!("{inotify}, but none is left: {why}"), hint)
        } else {
            let hint = "make sure that the owner can read the folders of the spool";
            (format!("a watcher cannot listen for changes: {why}"), hint)
        };
        let hint = format!("{hint}; until then, tasks are found only at each rescan");
        return Ok(vec![Check::warn(NAME, message, hint)]);
    }
    // A watcher raises its own limit.
    let files = proc::raised_file_limit();
    let most = u64::from(spool.settings().max_concurrent);
    let needed = most * FILES_PER_TASK + FILES_BESIDES;
    let message = match files {
        Some(files) => format!("{inotify}, {files} open files"),
        None => format!("{inotify}, open files without a limit"),
    };
    Ok(vec![if files.is_some_and(|files| files < needed) {
        let message = format!("{message}, but {most} tasks at once need {needed}");
        Check::problem(
            NAME,
            message,
            "raise `ulimit -n` (LimitNOFILE=) or lower max_concurrent",
        )
    } else {
        Check::ok(NAME, message)
    }])
}

/// The systemd instance for the units of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    System,
    User,
}

impl Manager {
    fn command(self) -> &'static str {
        match self {
            Manager::System => "systemctl",
            Manager::User => "systemctl --user",
        }
    }
}

/// The instance for this spool. `None` if systemd is not running (sd_booted(3)) or no units exist for this
/// spool.
fn manager_of(surroundings: &Surroundings<'_>, spool: &Spool) -> Option<Manager> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    if spool.path() == Path::new(SYSTEM_SPOOL) {
        return Some(Manager::System);
    }
    let is_default = surroundings.default_spool == Some(spool.path());
    is_default.then_some(Manager::User)
}

/// The first line of systemd's answer; `None` if systemctl cannot be run.
fn ask_systemd(manager: Manager, question: &[&str]) -> Option<String> {
    let mut command = Command::new("systemctl");
    if manager == Manager::User {
        command.arg("--user");
    }
    first_line(command.args(question))
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}
