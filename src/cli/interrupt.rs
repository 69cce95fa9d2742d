//! Ctrl-C while a command waits: it ends the command, never the task.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, BorrowedFd};

use agentspool::internals::SignalPipe;

use agentspool::client::Stop;

use super::exit_code::ExitCode;
use super::report::CliError;

/// A descriptor that is readable after SIGINT (Ctrl-C) or SIGTERM.
pub(crate) struct Interrupt {
    signals: SignalPipe,
    came: Cell<bool>,
}

impl Interrupt {
    pub fn listen() -> Result<Interrupt, CliError> {
        let failed = |error: std::io::Error| {
            CliError::new(
                ExitCode::General,
                format!("failed to listen to signals: {error}"),
            )
        };
        let signals = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
        let signals = SignalPipe::listen(&signals).map_err(failed)?;
        Ok(Interrupt {
            signals,
            came: Cell::new(false),
        })
    }

    /// Whether a signal came. It stays true after the first one.
    pub fn came(&self) -> bool {
        if self.signals.came() {
            self.came.set(true);
        }
        self.came.get()
    }
}

impl Stop for Interrupt {
    fn is_asked(&self) -> bool {
        self.came()
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signals.as_fd())
    }
}

/// An [`Interrupt`] for a command that rarely waits. Until the command waits, Ctrl-C kills it like any
/// program.
#[derive(Default)]
pub(crate) struct LateInterrupt {
    /// The inner value is `None` if signals cannot be caught. Ctrl-C then kills the command.
    interrupt: OnceCell<Option<Interrupt>>,
}

impl LateInterrupt {
    fn get(&self) -> Option<&Interrupt> {
        let listen = || Interrupt::listen().ok();
        self.interrupt.get_or_init(listen).as_ref()
    }
}

impl Stop for LateInterrupt {
    fn is_asked(&self) -> bool {
        self.get().is_some_and(Interrupt::came)
    }

    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        self.get().and_then(Interrupt::wakes)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
