//! Why a task is not running.
//!
//! Not the checks (`ready/`). Invariant: no lock or slot is taken, and nothing is changed.

use super::doctor::launcher_problem;
use super::lookup::LookupError;
use super::open::Client;
use crate::ready;
use crate::spool::TaskView;
use crate::task::Reason;

impl Client {
    /// The reasons why a task does not start, in the order of the checks; empty if it is running or has
    /// ended.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn why(&self, view: &TaskView) -> Result<Vec<Reason>, LookupError> {
        // A recipe that cannot be read here gives no reason: the runner reads it again.
        let name = view.status.recipe.as_ref();
        let recipe = name.and_then(|name| self.recipes().find(name).ok());
        let mut reasons = ready::reasons(self.spool(), view, recipe.as_ref())?;
        // systemd is asked only if nothing else explains why the task waits.
        if reasons == [Reason::Soon]
            && let Some(why) = self.launcher_problem()
        {
            reasons = vec![Reason::Launcher { why }];
        }
        Ok(reasons)
    }

    /// The reasons why a drop is not a task yet.
    ///
    /// # Errors
    /// The watchers cannot be read.
    pub fn why_drop(&self) -> Result<Vec<Reason>, LookupError> {
        let spool = self.spool();
        Ok(match spool.has_watcher()? {
            false => vec![Reason::NoWatcher],
            true => vec![Reason::Admission {
                patience_sec: spool.settings().drop_patience_sec,
            }],
        })
    }

    /// What systemd answers if it starts no units for tasks, although the setting `launcher` needs them.
    /// `None` if there is no problem or only the owner can find out.
    pub fn launcher_problem(&self) -> Option<String> {
        launcher_problem(self.spool())
    }
}
