//! Ctrl-C while waiting: noticed, told, and never passed on to a task.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

use agentspool::sys::SignalPipe;

use super::exit_code::ExitCode;
use super::report::CliError;

/// Readable once Ctrl-C or TERM came.
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

    /// Whether it came; once it did, for ever.
    pub fn came(&self) -> bool {
        if self.signals.came() {
            self.came.set(true);
        }
        self.came.get()
    }

    /// An error with exit code 130 once it came.
    pub fn check(&self, what_goes_on: &str) -> Result<(), CliError> {
        if !self.came() {
            return Ok(());
        }
        let message = format!("interrupted; {what_goes_on}");
        Err(CliError::new(ExitCode::Interrupted, message))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
