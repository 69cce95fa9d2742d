//! The orders and signals that a runner receives.
//!
//! Does not run tasks (`run.rs`). The pipe is only a channel for orders: when it closes, the runner
//! finishes its task and exits. A signal never cancels a task; it stops the runner. Invariant: reading
//! here never blocks while a task is supervised.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::signals::STOPPING;
use crate::launcher::Waiter;
use crate::sys::SignalPipe;
use crate::task::{Answer, Order, TaskId};

/// The runner cannot continue.
#[derive(Debug, thiserror::Error)]
#[error("failed to {doing}: {source}")]
pub struct ControlError {
    doing: &'static str,
    #[source]
    source: io::Error,
}

/// Orders and signals.
#[derive(Debug)]
pub struct Control {
    orders: Option<OwnedFd>,
    answers: Option<OwnedFd>,
    signals: SignalPipe,
    unread: Vec<u8>,
    tasks: VecDeque<TaskId>,
    stop: bool,
}

impl Control {
    /// Listens to signals, and to a watcher if there is one.
    pub fn new(orders: Option<OwnedFd>, answers: Option<OwnedFd>) -> Result<Control, ControlError> {
        let failed = |source| ControlError {
            doing: "listen to signals",
            source,
        };
        let signals = SignalPipe::listen(&STOPPING).map_err(failed)?;
        // The process that started this one may ignore SIGCHLD. That is inherited and makes the kernel
        // reap our children before we see them. Any handler prevents this; the flag that it sets is not
        // used.
        let noted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, noted).map_err(failed)?;
        if let Some(orders) = &orders {
            let flags = rustix::fs::OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(orders, flags).map_err(|errno| failed(errno.into()))?;
        }
        let (unread, tasks) = (Vec::new(), VecDeque::new());
        Ok(Control {
            orders,
            answers,
            signals,
            unread,
            tasks,
            stop: false,
        })
    }

    /// Readable when a signal has arrived.
    pub(super) fn signals(&self) -> &SignalPipe {
        &self.signals
    }

    /// Readable when an order has arrived or the watcher has exited.
    pub(super) fn orders(&self) -> Option<BorrowedFd<'_>> {
        self.orders.as_ref().map(AsFd::as_fd)
    }

    /// Whether a signal asked this runner to stop.
    pub(super) fn should_stop(&self) -> bool {
        self.stop
    }

    /// Reads all orders and signals that have arrived, without waiting.
    pub(super) fn take_in(&mut self) {
        let mut bytes = [0u8; 1024];
        self.stop |= self.signals.came();
        while let Some(orders) = &self.orders {
            match rustix::io::read(orders, &mut bytes) {
                Ok(0) => self.orders = None,
                Ok(read) => self.unread.extend_from_slice(&bytes[..read]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.orders = None,
            }
        }
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let order = std::str::from_utf8(&line)
                .ok()
                .and_then(|line| line.trim_end().parse().ok());
            match order {
                Some(Order::Run(id)) => self.tasks.push_back(id),
                // The order has done its work by waking the supervisor, which then checks the marker.
                Some(Order::Look) | None => {}
            }
        }
    }

    /// Waits for the next task to run. `None` if there will be no more: the pipe is closed, or a signal
    /// arrived.
    pub(super) fn next_task(&mut self) -> Result<Option<TaskId>, ControlError> {
        loop {
            self.take_in();
            if self.stop {
                return Ok(None);
            }
            if let Some(id) = self.tasks.pop_front() {
                return Ok(Some(id));
            }
            let Some(orders) = &self.orders else {
                return Ok(None);
            };
            let mut fds = [
                PollFd::new(orders, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(ControlError {
                        doing: "wait for orders",
                        source: errno.into(),
                    });
                }
            }
        }
    }

    /// Sends an answer to the watcher. A watcher that has exited is not an error.
    pub(super) fn answer(&mut self, answer: &Answer) -> Result<(), ControlError> {
        let Some(answers) = self.answers.take() else {
            return Ok(());
        };
        let mut pipe = std::fs::File::from(answers);
        match pipe.write_all(format!("{answer}\n").as_bytes()) {
            Ok(()) => self.answers = Some(pipe.into()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => {
                return Err(ControlError {
                    doing: "answer the watcher",
                    source,
                });
            }
        }
        Ok(())
    }
}

impl Waiter for Control {
    fn calls(&self) -> Vec<BorrowedFd<'_>> {
        let signals = self.signals.as_fd();
        std::iter::once(signals).chain(self.orders()).collect()
    }

    /// Goes on until a signal arrives or the watcher exits.
    fn goes_on(&mut self) -> bool {
        self.take_in();
        !self.stop && self.orders.is_some()
    }
}
