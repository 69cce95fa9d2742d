//! Checks whether the recipe that a drop names exists and can run.
//!
//! Does not start it: the runner checks again. Invariant: no drop is refused because something cannot be
//! read now.

use crate::recipe::{FindError, Kind, Recipe, RecipePath, Search};
use crate::spool::{DropRefusal, IoError, Spool};
use crate::task::Request;

/// Refuses a request whose recipe does not exist or cannot run.
pub(super) fn check_recipe(
    spool: &Spool,
    request: &Request,
) -> Result<Result<(), DropRefusal>, IoError> {
    let found = RecipePath::of(spool).find(&request.recipe);
    // A watcher does not run PraisonAI's Python for this check. The search path of its other programs is
    // recorded.
    let searches = |recipe: &Recipe| match recipe.kind {
        Kind::PraisonAi => Vec::new(),
        Kind::Folder | Kind::Executable => Search::of_watchers(spool).unwrap_or_default(),
    };
    match found.and_then(|recipe| recipe.check_runnable(|| searches(&recipe))) {
        Ok(()) => Ok(Ok(())),
        // Without the error number, because the drop box would take it for a drop that cannot be moved.
        Err(FindError::Unseen { path, source }) => {
            let source = std::io::Error::other(source.to_string());
            Err(IoError::new("find the recipe", path, source))
        }
        Err(error) => Ok(Err(DropRefusal {
            reason: error.to_string(),
            hint: "see `agentspool recipe list`, then drop the file again",
        })),
    }
}
