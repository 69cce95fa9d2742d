//! The local pool: runner processes that are started when needed, reused, and gone when idle.
//!
//! Each has one pipe for orders and one for answers, and nothing depends on them. Invariant: a
//! runner is given one task at a time; its death counts as the answer that the task is to be offered again soon.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::proc;
use crate::task::{Answer, Order, TaskId, When, Why};

/// A runner with nothing to do for this long is let go.
const IDLE: Duration = Duration::from_secs(10);

/// The pool.
#[derive(Debug)]
pub(crate) struct LocalPool {
    program: PathBuf,
    arguments: Vec<String>,
    runners: Vec<PooledRunner>,
}

#[derive(Debug)]
struct PooledRunner {
    number: Pid,
    /// Its number is given away once it is reaped, and a handle is not. Absent where the kernel refuses one.
    process: Option<OwnedFd>,
    orders: std::fs::File,
    answers: OwnedFd,
    unread: Vec<u8>,
    task: Option<(TaskId, Instant)>,
    idle_since: Instant,
    is_gone: bool,
}

impl LocalPool {
    /// A pool that starts `program arguments… runner`.
    pub fn new(program: PathBuf, arguments: Vec<String>) -> LocalPool {
        LocalPool {
            program,
            arguments,
            runners: Vec::new(),
        }
    }

    /// Whether one more task can be started when `limit` may be under way.
    pub fn has_room(&self, limit: usize) -> bool {
        self.running().count() < limit
    }

    /// Gives a task to a runner.
    pub fn start(&mut self, id: TaskId) -> io::Result<()> {
        loop {
            let idle = self.runners.iter().position(|runner| runner.task.is_none());
            let at = match idle {
                Some(at) => at,
                None => {
                    self.runners.push(self.spawn()?);
                    self.runners.len() - 1
                }
            };
            let runner = &mut self.runners[at];
            match runner.order(Order::Run(id)) {
                Ok(()) => {
                    runner.task = Some((id, Instant::now()));
                    return Ok(());
                }
                // It went in this very moment; another one takes the task.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe && idle.is_some() => {
                    self.runners.swap_remove(at);
                }
                Err(error) => {
                    self.runners.swap_remove(at);
                    return Err(error);
                }
            }
        }
    }

    /// Tells a task's runner to look for a marker.
    pub fn look(&mut self, id: TaskId) {
        let holder = self
            .runners
            .iter_mut()
            .find(|r| r.task.is_some_and(|(task, _)| task == id));
        if let Some(runner) = holder {
            // One that is gone is noticed by its answers.
            let _ = runner.order(Order::Look);
        }
    }

    /// What became of tasks since the last call.
    pub fn answers(&mut self) -> Vec<(TaskId, Answer)> {
        let heard = self
            .runners
            .iter_mut()
            .flat_map(PooledRunner::hear)
            .collect();
        self.runners.retain(|runner| !runner.is_gone);
        heard
    }

    /// Tasks that are with a runner, and since when.
    pub fn running(&self) -> impl Iterator<Item = (TaskId, Instant)> {
        self.runners.iter().filter_map(|runner| runner.task)
    }

    /// What becomes readable when there are answers.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.runners.iter().map(|runner| runner.answers.as_fd())
    }

    /// Tells all runners to stop their tasks and to leave.
    pub fn stop(&mut self) {
        for runner in &self.runners {
            // One that is gone is noticed by its answers.
            let is_sent = runner
                .process
                .as_ref()
                .is_some_and(|process| pidfd_send_signal(process, Signal::TERM).is_ok());
            if !is_sent && !runner.is_gone {
                let _ = kill_process(runner.number, Signal::TERM);
            }
        }
    }

    /// Whether a runner is left, with a task or without.
    pub fn has_runners(&self) -> bool {
        !self.runners.is_empty()
    }

    /// Lets runners go that have had nothing to do for a while.
    pub fn dismiss_idle(&mut self) {
        self.runners
            .retain(|runner| runner.task.is_some() || runner.idle_since.elapsed() < IDLE);
    }

    fn spawn(&self) -> io::Result<PooledRunner> {
        let mut command = Command::new(&self.program);
        let mut child = proc::as_started(&mut command)
            .arg0("agentspool")
            .args(&self.arguments)
            .arg("runner")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the runner has no pipes"));
        };
        let answers = OwnedFd::from(stdout);
        let number = Pid::from_child(&child);
        let process = pidfd_open(number, PidfdFlags::empty()).ok();
        rustix::fs::fcntl_setfl(&answers, rustix::fs::OFlags::NONBLOCK)?;
        Ok(PooledRunner {
            number,
            process,
            orders: std::fs::File::from(OwnedFd::from(stdin)),
            answers,
            unread: Vec::new(),
            task: None,
            idle_since: Instant::now(),
            is_gone: false,
        })
    }
}

impl PooledRunner {
    fn order(&mut self, order: Order) -> io::Result<()> {
        self.orders.write_all(format!("{order}\n").as_bytes())
    }

    fn hear(&mut self) -> Vec<(TaskId, Answer)> {
        let mut bytes = [0u8; 1024];
        loop {
            match rustix::io::read(&self.answers, &mut bytes) {
                Ok(0) => {
                    self.is_gone = true;
                    break;
                }
                Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.is_gone = true;
                    break;
                }
            }
        }
        let mut heard = Vec::new();
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            // Whatever it means to say, it is done with the task: what became of it is on the disk.
            let answer = std::str::from_utf8(&line)
                .ok()
                .and_then(|line| line.trim_end().parse().ok())
                .unwrap_or(Answer::Retry(When::Soon, Why::Unclear));
            if let Some((id, _)) = self.task.take() {
                heard.push((id, answer));
                self.idle_since = Instant::now();
            }
        }
        if self.is_gone
            && let Some((id, _)) = self.task.take()
        {
            // Who died and how far it came is on the disk: offer it again soon.
            heard.push((id, Answer::Retry(When::Soon, Why::RunnerDied)));
        }
        heard
    }
}
