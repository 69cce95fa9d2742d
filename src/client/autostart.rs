//! Starting a watcher, so that the first task on a new machine runs.
//!
//! Not the watcher (`watcher/`), and not looking after it while somebody waits (`attendance.rs`).
//! The task is published first and a watcher looked for second, while a leaving watcher leaves
//! first and looks for tasks second: one of the two always sees the other. A watcher does not end with the
//! service or the task that its starter belongs to: it is started outside, or not at all. Where neither can be, that is
//! said. Invariant: whoever
//! starts one holds `watchers/start` until the new one holds its own file, so only one is started.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::notice::{Notice, StartError};
use super::open::{Autostart, Client};
use crate::proc::{self, OwnService};
use crate::spool::IoError;

/// What a watcher says on its stdout once it is seen by others.
pub const READY: &[u8] = b"ready\n";
const START_PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// What to know after something was submitted: that settings were given to this command by which only a watcher
    /// goes, that the spool is paused, and that nobody runs tasks. Starts a watcher where none runs and one may be
    /// started.
    ///
    /// It never fails: what was accepted before is safe, and waits for a watcher.
    pub fn make_ready(&self) -> Vec<Notice> {
        let mut notices = self.settings_of_watcher();
        notices.extend(self.paused());
        notices.extend(self.ensure_watcher());
        notices
    }

    /// Sees to it that a watcher runs, where that is allowed. `None` if one runs now.
    pub fn ensure_watcher(&self) -> Option<Notice> {
        let noticed = match self.autostart() {
            Some(with) => self.start_watcher(with),
            None => self.without_watcher().map_err(StartError::from),
        };
        noticed.unwrap_or_else(|error| Some(Notice::NotStarted(error)))
    }

    /// That no task starts, if the spool is paused. What cannot be read is not known.
    pub fn paused(&self) -> Option<Notice> {
        self.spool().paused().ok().flatten().map(Notice::Paused)
    }

    /// That no watcher runs, if so.
    ///
    /// # Errors
    /// When the watchers cannot be read.
    pub fn without_watcher(&self) -> Result<Option<Notice>, IoError> {
        Ok(match self.spool().sees_watcher()? {
            Some(true) => None,
            Some(false) => Some(Notice::NoWatcher {
                is_owner: self.spool().is_owner(),
            }),
            None => Some(Notice::WatcherUnseen),
        })
    }

    fn start_watcher(&self, with: &Autostart) -> Result<Option<Notice>, StartError> {
        let spool = self.spool();
        if spool.has_watcher()? {
            return Ok(None);
        }
        if self.may_start().is_none() {
            return Ok(self.without_watcher()?);
        }
        let Some(lock) = spool.start_lock(START_PATIENCE)? else {
            return Err(StartError::Busy);
        };
        // While we waited for the lock, somebody else's watcher may have come.
        if spool.has_watcher()? {
            return Ok(None);
        }
        let lock = lock.into_file();
        let Some(service) = proc::own_service() else {
            self.start(here(with), lock)?;
            return Ok(None);
        };
        let again = lock.try_clone().map_err(StartError::Spawn)?;
        if let Some(command) = outside(with, &service)
            && self.start(command, lock).is_ok()
        {
            return Ok(None);
        }
        self.start(here(with), again)?;
        Ok(Some(Notice::EndsWith(service.name)))
    }

    /// Starts the watcher by a command that takes its arguments, and waits until it is seen.
    fn start(&self, mut command: Command, lock: File) -> Result<(), StartError> {
        let spool = self.spool();
        let mut child = proc::as_started(&mut command)
            .arg("--spool")
            .arg(spool.path())
            .args(["watch", "--autostarted"])
            .current_dir("/")
            .stdin(Stdio::from(lock))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(spool.watcher_log()?))
            .spawn()
            .map_err(StartError::Spawn)?;
        let stdout = child.stdout.take().ok_or(StartError::Mute)?;
        wait_until_ready(OwnedFd::from(stdout).into())
    }
}

/// A child of this process.
fn here(with: &Autostart) -> Command {
    let mut command = Command::new(&with.program);
    command.arg0("agentspool");
    surround(&mut command, with);
    command
}

/// A scope beside the service in which this process is, so that the watcher and its tasks do not end with that.
/// `None` where there is no systemd that this user could ask.
fn outside(with: &Autostart, service: &OwnService) -> Option<Command> {
    let uid = rustix::process::geteuid();
    let mut command = Command::new("systemd-run");
    surround(&mut command, with);
    if service.is_users || !uid.is_root() {
        let runtime = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
        if !runtime.join("systemd/private").exists() {
            return None;
        }
        command.arg("--user").env("XDG_RUNTIME_DIR", runtime);
    }
    command
        .args(["--scope", "--quiet", "--collect", "--property=Delegate=yes"])
        .args(["--description=agentspool watcher", "--"])
        .arg(proc::path_for_others(&with.program));
    Some(command)
}

fn surround(command: &mut Command, with: &Autostart) {
    let variables = with.environment.iter();
    command
        .env_clear()
        .envs(variables.map(|(name, value)| (name, value)));
}

fn wait_until_ready(mut stdout: File) -> Result<(), StartError> {
    let patience = Timespec {
        tv_sec: START_PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let fd = PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN);
    if poll(&mut [fd], Some(&patience)) == Ok(0) {
        return Err(StartError::Late);
    }
    let mut said = [0u8; READY.len()];
    stdout.read_exact(&mut said).map_err(|_| StartError::Ended)
}
