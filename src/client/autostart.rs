//! Starting a watcher, so that the first task on a new machine runs.
//!
//! Not the watcher (`watcher/`), and not the check while a caller waits (`attendance.rs`). A task is
//! published before this code checks for a watcher. A watcher that exits gives up its watcher file before it
//! checks for tasks. So one of the two always sees the other. A watcher should not end with the service or
//! the task of the process that starts it: it is started outside of the service, and not at all inside a
//! task. If it must be started inside the service, a notice reports that. Invariant: the start lock
//! `watchers/start` is held until the new watcher holds its own file, so only one watcher is started.

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

/// What a watcher writes to its stdout once other processes can see it.
pub const READY: &[u8] = b"ready\n";
const START_PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// Starts a watcher after a submission, if none is running and one may be started. Returns notices: that
    /// a given setting affects only a watcher, that the spool is paused, that no watcher is running.
    ///
    /// This never fails: the accepted tasks are safe, and wait for a watcher.
    pub fn make_ready(&self) -> Vec<Notice> {
        let mut notices = self.settings_of_watcher();
        notices.extend(self.paused());
        notices.extend(self.ensure_watcher());
        notices
    }

    /// Starts a watcher if none is running and one may be started. `None` if one is running now.
    pub fn ensure_watcher(&self) -> Option<Notice> {
        let noticed = match self.autostart() {
            Some(with) => self.start_watcher(with),
            None => self.without_watcher().map_err(StartError::from),
        };
        noticed.unwrap_or_else(|error| Some(Notice::NotStarted(error)))
    }

    /// A notice if the spool is paused. If that cannot be read, `None`.
    pub fn paused(&self) -> Option<Notice> {
        self.spool().paused().ok().flatten().map(Notice::Paused)
    }

    /// A notice if no watcher is running.
    ///
    /// # Errors
    /// The watchers cannot be read.
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
        // While this process waited for the lock, another process may have started a watcher.
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

    /// Starts the watcher with a command, and waits until it is ready.
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

/// A command that starts the watcher as a child of this process.
fn here(with: &Autostart) -> Command {
    let mut command = Command::new(&with.program);
    command.arg0("agentspool");
    set_environment(&mut command, with);
    command
}

/// A command that starts the watcher in a scope outside of this process's service, so that the watcher and
/// its tasks do not end with the service. `None` if this user has no systemd to ask.
fn outside(with: &Autostart, service: &OwnService) -> Option<Command> {
    let uid = rustix::process::geteuid();
    let mut command = Command::new("systemd-run");
    set_environment(&mut command, with);
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

fn set_environment(command: &mut Command, with: &Autostart) {
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
    let mut line = [0u8; READY.len()];
    stdout.read_exact(&mut line).map_err(|_| StartError::Ended)
}
