//! Starting a watcher by itself, so that the first `submit` on a new machine just works.
//!
//! The task is published first and a watcher looked for second, while a leaving watcher leaves
//! first and looks for tasks second: one of the two always sees the other. Invariant: whoever
//! starts one holds `watchers/start` until the new one holds its own file, so only one is started.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agentspool::spool::Spool;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

/// What a watcher says on its stdout once it is seen by others.
pub(super) const READY: &[u8] = b"ready\n";
/// The program that is running, whatever became of its file.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";
const START_PATIENCE: Duration = Duration::from_secs(5);

impl Context {
    /// Sees to it that somebody runs tasks, where that is allowed; else says that nobody does. It
    /// never fails: what was accepted before is safe, and waits for a watcher.
    pub fn ensure_watcher(&self, spool: &Spool) {
        let done = if self.may_start_a_watcher(spool) {
            self.start_watcher(spool)
        } else {
            self.note_without_watcher(spool)
        };
        if let Err(error) = done {
            self.out.note(format!("note: {}", error.message));
        }
    }

    fn may_start_a_watcher(&self, spool: &Spool) -> bool {
        spool.settings().autostart
            && spool.is_owner()
            && !spool.is_group()
            && !self.env.is_inside_a_task()
    }

    fn start_watcher(&self, spool: &Spool) -> Result<(), CliError> {
        if spool.has_watcher()? {
            return Ok(());
        }
        let Some(lock) = spool.start_lock(START_PATIENCE)? else {
            return Err(failed("another command has been starting one for too long"));
        };
        // While we waited for our turn, somebody else's watcher may have come.
        if spool.has_watcher()? {
            return Ok(());
        }
        let mut child = Command::new(OWN_PROGRAM)
            .arg0("agentspool")
            .arg("--spool")
            .arg(spool.path())
            .args(["watch", "--autostarted"])
            .env_clear()
            .envs(self.env.for_autostart())
            .current_dir("/")
            .stdin(Stdio::from(lock.into_file()))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(spool.watcher_log()?))
            .spawn()
            .map_err(|error| failed(&error.to_string()))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(failed("it has no stdout"));
        };
        wait_until_ready(std::os::fd::OwnedFd::from(stdout).into())
    }
}

/// Looks now and then, while somebody waits, whether there still is a watcher to wait for.
pub(super) struct Attendance {
    next: Instant,
    told: bool,
    told_pause: bool,
    /// Since when there is no watcher and may be none.
    unattended: Option<Instant>,
}

impl Attendance {
    const PAUSE: Duration = Duration::from_secs(2);
    const RESTART: Duration = Duration::from_secs(5);

    /// The first look is due at once.
    pub fn new() -> Attendance {
        Attendance {
            next: Instant::now(),
            told: false,
            told_pause: false,
            unattended: None,
        }
    }

    /// The same after a submission, which has said that the spool is paused or that no watcher runs,
    /// unless it was to be quiet.
    pub fn after_submission(context: &Context) -> Attendance {
        Attendance {
            told: !context.out.is_quiet(),
            told_pause: true,
            ..Attendance::new()
        }
    }

    /// Whether nobody has been there for longer than a service takes to start its watcher anew.
    pub fn is_hopeless(&self) -> bool {
        self.unattended
            .is_some_and(|since| since.elapsed() > Attendance::RESTART)
    }

    /// Starts a watcher where the last one is gone and one may be started; else says once that
    /// nobody runs anything.
    pub fn look(&mut self, context: &Context, spool: &Spool) -> Result<(), CliError> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + Attendance::PAUSE;
        if !self.told_pause {
            self.told_pause = context.note_pause(spool);
        }
        if spool.has_watcher()? {
            self.unattended = None;
            return Ok(());
        }
        if !context.may_start_a_watcher(spool) {
            self.unattended.get_or_insert_with(Instant::now);
            if self.told {
                return Ok(());
            }
        }
        self.told = true;
        if context.may_start_a_watcher(spool) {
            context.ensure_watcher(spool);
        } else if let Some(text) = context.without_watcher(spool)? {
            // Else a quiet wait would look as if the task took long.
            context.out.warn(text);
        }
        Ok(())
    }
}

fn wait_until_ready(mut stdout: File) -> Result<(), CliError> {
    let patience = Timespec {
        tv_sec: START_PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let fd = PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN);
    if poll(&mut [fd], Some(&patience)) == Ok(0) {
        return Err(failed("it was not ready within 5 s"));
    }
    let mut said = [0u8; READY.len()];
    match stdout.read_exact(&mut said) {
        Ok(()) => Ok(()),
        Err(_) => Err(failed("it ended at once; see watchers/log in the spool")),
    }
}

fn failed(why: &str) -> CliError {
    CliError::new(
        ExitCode::General,
        format!("failed to start a watcher: {why}"),
    )
}
