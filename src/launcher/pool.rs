//! The local pool: runner processes that are started when needed, reused, and dismissed when idle.
//!
//! Does not choose tasks (`watcher/`). Each runner has one pipe for orders and one for answers; both may
//! be lost at any time. Invariant: a runner has at most one task at a time; if it ends unexpectedly, the
//! task is offered again soon.

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

/// An idle runner is dismissed after this time.
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
    /// A handle of the process: unlike its number, it is not reused after the process is reaped. Absent
    /// if the kernel refuses one.
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

    /// Whether one more task can be started if at most `limit` may run.
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
                // The runner exited just now, or has not read its orders. Another one takes the task.
                Err(error) if is_of_this_runner(&error) && idle.is_some() => {
                    self.runners.swap_remove(at);
                }
                Err(error) => {
                    self.runners.swap_remove(at);
                    return Err(error);
                }
            }
        }
    }

    /// Asks a task's runner to check for a cancel marker.
    pub fn check_marker(&mut self, id: TaskId) {
        let holder = self
            .runners
            .iter_mut()
            .find(|r| r.task.is_some_and(|(task, _)| task == id));
        if let Some(runner) = holder {
            // If it has exited, reading its answers shows that. If its pipe is full, it was asked already.
            let _ = runner.order(Order::Look);
        }
    }

    /// The answers about tasks since the last call.
    pub fn answers(&mut self) -> Vec<(TaskId, Answer)> {
        let answers_read = self
            .runners
            .iter_mut()
            .flat_map(PooledRunner::read_answers)
            .collect();
        self.runners.retain(|runner| !runner.is_gone);
        answers_read
    }

    /// Tasks that a runner has, and since when.
    pub fn running(&self) -> impl Iterator<Item = (TaskId, Instant)> {
        self.runners.iter().filter_map(|runner| runner.task)
    }

    /// Descriptors that become readable when there are answers.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.runners.iter().map(|runner| runner.answers.as_fd())
    }

    /// Asks all runners to stop their tasks and exit.
    pub fn stop(&mut self) {
        for runner in &self.runners {
            // If it has exited, reading its answers shows that.
            let is_sent = runner
                .process
                .as_ref()
                .is_some_and(|process| pidfd_send_signal(process, Signal::TERM).is_ok());
            if !is_sent && !runner.is_gone {
                let _ = kill_process(runner.number, Signal::TERM);
            }
        }
    }

    /// Whether there is a runner, with a task or without.
    pub fn has_runners(&self) -> bool {
        !self.runners.is_empty()
    }

    /// Dismisses runners that have been idle for a while.
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
        // A runner reads no orders while it ends processes. Orders are shorter than PIPE_BUF, so none is cut.
        rustix::fs::fcntl_setfl(&stdin, rustix::fs::OFlags::NONBLOCK)?;
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

/// Whether another runner may take an order that this one did not get.
fn is_of_this_runner(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, WouldBlock};
    [BrokenPipe, WouldBlock].contains(&error.kind())
}

impl PooledRunner {
    fn order(&mut self, order: Order) -> io::Result<()> {
        self.orders.write_all(format!("{order}\n").as_bytes())
    }

    fn read_answers(&mut self) -> Vec<(TaskId, Answer)> {
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
        let mut answers_read = Vec::new();
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            // Any answer means that the runner has finished with the task. The outcome is on the disk.
            let answer = std::str::from_utf8(&line)
                .ok()
                .and_then(|line| line.trim_end().parse().ok())
                .unwrap_or(Answer::Retry(When::Soon, Why::Unclear));
            if let Some((id, _)) = self.task.take() {
                answers_read.push((id, answer));
                self.idle_since = Instant::now();
            }
        }
        if self.is_gone
            && let Some((id, _)) = self.task.take()
        {
            // The disk shows how far the runner came. The task is offered again soon.
            answers_read.push((id, Answer::Retry(When::Soon, Why::RunnerDied)));
        }
        answers_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_that_reads_no_orders_does_not_block_the_watcher() {
        let arguments = ["-c".to_owned(), "exec sleep 5".to_owned()];
        let mut pool = LocalPool::new("/bin/sh".into(), arguments.into());
        let id = TaskId::from_parts(1, 0);
        pool.start(id).unwrap();
        for _ in 0..20_000 {
            pool.check_marker(id);
        }
        assert!(pool.answers().is_empty(), "it was blocked until the end");
        pool.stop();
    }
}
