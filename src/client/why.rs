//! Why a task is not running.
//!
//! Not the checks (`ready/`). Invariant: no lock or slot is taken, and nothing is changed.

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
        Ok(ready::reasons(self.spool(), view, recipe.as_ref())?)
    }
}
