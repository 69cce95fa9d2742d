//! One pass of the sweeper, as somebody asks for it.
//!
//! Not what it removes (`sweeper/`). Invariant: only the owner of a spool sweeps it.

use super::not_owner::NotOwner;
use super::open::Client;
use super::stop::Stop;
use crate::spool::IoError;
use crate::sweeper::{self, Swept};

/// Why a pass did not begin, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Somebody else's spool.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// Whether this user may sweep.
    ///
    /// # Errors
    /// [`NotOwner`].
    pub fn check_sweep(&self) -> Result<(), NotOwner> {
        self.check_owner("sweep it")
    }

    /// Removes what is old. With `dry_run` nothing is removed.
    ///
    /// # Errors
    /// [`SweepError`]. What could not be removed stands in [`Swept::errors`] and is none.
    pub fn sweep(&self, dry_run: bool, stop: &dyn Stop) -> Result<Swept, SweepError> {
        self.check_sweep()?;
        Ok(sweeper::sweep(self.spool(), dry_run, &|| !stop.is_asked())?)
    }
}
