//! Starting a watcher, so that the first task on a new machine runs.
//!
//! Not the watcher (`watcher/`), and not looking after it while somebody waits (`attendance.rs`).
//! The task is published first and a watcher looked for second, while a leaving watcher leaves
//! first and looks for tasks second: one of the two always sees the other. Invariant: whoever
//! starts one holds `watchers/start` until the new one holds its own file, so only one is started.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::notice::{Notice, StartError};
use super::open::{Autostart, Client};
use crate::spool::IoError;

/// What a watcher says on its stdout once it is seen by others.
pub const READY: &[u8] = b"ready\n";
const START_PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// What to know after something was submitted: that the spool is paused, and that nobody runs tasks. Starts a
    /// watcher where none runs and one may be started.
    ///
    /// It never fails: what was accepted before is safe, and waits for a watcher.
    pub fn make_ready(&self) -> Vec<Notice> {
        self.paused()
            .into_iter()
            .chain(self.ensure_watcher())
            .collect()
    }

    /// Sees to it that a watcher runs, where that is allowed. `None` if one runs now.
    pub fn ensure_watcher(&self) -> Option<Notice> {
        match self.autostart() {
            Some(with) => self.start_watcher(with).err().map(Notice::NotStarted),
            None => self
                .without_watcher()
                .unwrap_or_else(|error| Some(Notice::NotStarted(error.into()))),
        }
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

    fn start_watcher(&self, with: &Autostart) -> Result<(), StartError> {
        let spool = self.spool();
        if spool.has_watcher()? {
            return Ok(());
        }
        let Some(lock) = spool.start_lock(START_PATIENCE)? else {
            return Err(StartError::Busy);
        };
        // While we waited for the lock, somebody else's watcher may have come.
        if spool.has_watcher()? {
            return Ok(());
        }
        let mut child = Command::new(&with.program)
            .arg0("agentspool")
            .arg("--spool")
            .arg(spool.path())
            .args(["watch", "--autostarted"])
            .env_clear()
            .envs(with.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::from(lock.into_file()))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(spool.watcher_log()?))
            .spawn()
            .map_err(StartError::Spawn)?;
        let stdout = child.stdout.take().ok_or(StartError::Mute)?;
        wait_until_ready(OwnedFd::from(stdout).into())
    }
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
