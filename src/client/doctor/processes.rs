//! Who works on the spool: watchers, sweeps, and what the machine allows them.

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
/// Where the system's own service has its spool.
const SYSTEM_SPOOL: &str = "/var/spool/agentspool";
const DAY_SEC: f64 = 86_400.0;
/// What a watcher and its runners have open for each task at once, and besides.
const FILES_A_TASK: u64 = 4;
const FILES_BESIDES: u64 = 64;

/// Who watches, since when, and whether it is of this version.
pub(super) fn watcher(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "watcher";
    if !spool.is_owner() {
        // A user of the group sees that one lives, and not which.
        return Ok(vec![match spool.sees_watcher()? {
            Some(true) => Check::ok(NAME, "one is running"),
            Some(false) => {
                let hint = "ask the spool's owner to start one";
                Check::problem(NAME, "none is seen, so nothing is run", hint)
            }
            None => {
                let hint = "ask the spool's owner whether one is running";
                let why = "it cannot be seen: the system's table of locks is very long";
                Check::warn(NAME, why, hint)
            }
        }]);
    }
    let watchers = spool.living_watchers()?;
    if watchers.is_empty() {
        return Ok(vec![nobody_watches(spool)?]);
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
        let hint = "restart it, running tasks go on";
        Check::warn(NAME, format!("{message}, while this is {ours}"), hint)
    });
    Ok(checks.collect())
}

fn nobody_watches(spool: &Spool) -> Result<Check, IoError> {
    const NAME: &str = "watcher";
    let hint = format!(
        "start one: `agentspool --spool {} watch`",
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
        return Ok(Check::ok(NAME, "none, the next submit starts one"));
    }
    Ok(Check::problem(NAME, "none, so nothing will be run", hint))
}

/// Whether somebody removes what is old.
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
    // Nobody looks at an idle spool, and it does not grow either.
    let (patience, who) = match since {
        Some(_) => (3.0 * every + 60.0, "by the watcher"),
        None => (DAY_SEC, "no timer and no watcher"),
    };
    let silent = ago.unwrap_or_else(|| match since {
        Some(since) => clock::wall().seconds_since(since),
        None => 0.0,
    });
    let check = if silent > patience && spool.has_anything_to_sweep()? {
        let hint = "`agentspool sweep` says why, `agentspool sweep --every 5m` goes on with it";
        Check::warn(NAME, format!("{message}, {who}"), hint)
    } else {
        Check::ok(NAME, format!("{message}, {who}"))
    };
    Ok(vec![check])
}

/// Whether a user's service goes on when the user is not logged in.
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
        Check::ok(NAME, "the service goes on without a login")
    } else {
        let message = "the service ends with the last logout and does not start at boot";
        Check::warn(NAME, message, "`loginctl enable-linger`")
    }])
}

/// Whether a watcher would hear of new tasks, and could open what it needs.
pub(super) fn limits(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    const NAME: &str = "limits";
    let number = |file: &str| {
        let text = proc::read_text(format!("/proc/sys/fs/inotify/{file}"));
        text.unwrap_or_default().trim().to_owned()
    };
    let inotify = format!(
        "inotify {} instances and {} watches a user",
        number("max_user_instances"),
        number("max_user_watches")
    );
    let wake = Wake::for_watcher(spool)?;
    if let Some(why) = wake.is_deaf() {
        let (message, hint) = if wake.lacks_inotify() {
            let hint = "raise fs.inotify.max_user_instances and max_user_watches with sysctl";
            (format!("{inotify}, and none is left: {why}"), hint)
        } else {
            let hint = "see to it that the owner can read the folders of the spool";
            (format!("a watcher cannot listen: {why}"), hint)
        };
        let hint = format!("{hint}; until then tasks are found at each rescan only");
        return Ok(vec![Check::warn(NAME, message, hint)]);
    }
    // A watcher raises its own limit.
    let files = proc::raised_file_limit();
    let most = u64::from(spool.settings().max_concurrent);
    let needed = most * FILES_A_TASK + FILES_BESIDES;
    let message = match files {
        Some(files) => format!("{inotify}, {files} open files"),
        None => format!("{inotify}, open files without a limit"),
    };
    Ok(vec![if files.is_some_and(|files| files < needed) {
        let message = format!("{message}, where {most} tasks at once need {needed}");
        Check::problem(
            NAME,
            message,
            "raise `ulimit -n` (LimitNOFILE=) or lower max_concurrent",
        )
    } else {
        Check::ok(NAME, message)
    }])
}

/// The systemd that would run this spool's units.
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

/// Which one, if systemd is there (sd_booted(3)) and this is a spool that units are written for.
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

/// The first word of what systemd answers; `None` when it cannot be asked.
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
