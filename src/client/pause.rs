//! Pausing a spool, so that no task starts, and resuming it.
//!
//! Not the paused marker (`spool/open/pause.rs`). Invariant: running tasks continue.

use super::not_owner::NotOwner;
use super::notice::Notice;
use super::open::Client;
use crate::spool::IoError;

/// Why a spool was not paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// This user is not the spool's owner.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// The answer of [`Client::resume`].
#[derive(Debug)]
pub struct Resumed {
    /// Whether the spool was paused.
    pub was_paused: bool,
    /// Why no watcher runs the waiting tasks, if none does.
    pub notice: Option<Notice>,
}

impl Client {
    /// Stops starting tasks. `false` if the spool is already paused.
    ///
    /// # Errors
    /// [`PauseError`].
    pub fn pause(&self) -> Result<bool, PauseError> {
        self.check_owner("pause it")?;
        Ok(self.spool().pause()?)
    }

    /// Starts tasks again, and starts a watcher if tasks wait.
    ///
    /// # Errors
    /// [`PauseError`].
    pub fn resume(&self) -> Result<Resumed, PauseError> {
        self.check_owner("resume it")?;
        let was_paused = self.spool().resume()?;
        let has_work = !self.spool().open_ids()?.is_empty() || !self.spool().is_reconciled()?;
        let notice = has_work.then(|| self.ensure_watcher()).flatten();
        Ok(Resumed { was_paused, notice })
    }
}
