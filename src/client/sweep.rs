//! One pass of the sweeper, on request.
//!
//! Not the removal (`sweeper/`). Invariant: only the owner of a spool can sweep it.

use super::not_owner::NotOwner;
use super::open::Client;
use super::stop::Stop;
use crate::spool::IoError;
use crate::sweeper::{self, Swept};

/// Why a pass did not start, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// This user is not the spool's owner.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// Checks that this user may sweep.
    ///
    /// # Errors
    /// [`NotOwner`].
    pub fn check_sweep(&self) -> Result<(), NotOwner> {
        self.check_owner("sweep it")
    }

    /// Removes old tasks and leftover files. With `dry_run` nothing is removed.
    ///
    /// # Errors
    /// [`SweepError`]. Files that could not be removed are in [`Swept::errors`] instead.
    pub fn sweep(&self, dry_run: bool, stop: &dyn Stop) -> Result<Swept, SweepError> {
        self.check_sweep()?;
        Ok(sweeper::sweep(self.spool(), dry_run, &|| !stop.is_asked())?)
    }
}
