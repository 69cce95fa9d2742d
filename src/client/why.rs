//! Why a task does not run.
//!
//! Not the checks (`ready/`). Invariant: nothing is taken or changed.

use super::lookup::LookupError;
use super::open::Client;
use crate::ready;
use crate::spool::TaskView;
use crate::task::Reason;

impl Client {
    /// What a task waits for, the first reason first; empty for one that runs or is over.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn why(&self, view: &TaskView) -> Result<Vec<Reason>, LookupError> {
        // A recipe that cannot be read here says nothing; the runner reads it anew.
        let name = view.status.recipe.as_ref();
        let recipe = name.and_then(|name| self.recipes().find(name).ok());
        Ok(ready::reasons(self.spool(), view, recipe.as_ref())?)
    }
}
