//! Pausing a spool: no task starts any more. And resuming it.
//!
//! Not where this is written down (`spool/open/pause.rs`). Invariant: what runs goes on.

use super::not_owner::NotOwner;
use super::notice::Notice;
use super::open::Client;
use crate::spool::IoError;

/// Why a spool is not paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Somebody else's spool.
    #[error(transparent)]
    NotOwner(#[from] NotOwner),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What resuming did.
#[derive(Debug)]
pub struct Resumed {
    /// Whether the spool was paused.
    pub was_paused: bool,
    /// Why no watcher runs the tasks that wait, if so.
    pub notice: Option<Notice>,
}

impl Client {
    /// Keeps tasks from starting. `false` if the spool is paused already.
    ///
    /// # Errors
    /// [`PauseError`].
    pub fn pause(&self) -> Result<bool, PauseError> {
        self.check_owner("pause it")?;
        Ok(self.spool().pause()?)
    }

    /// Lets tasks start again, and starts a watcher if some wait.
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
