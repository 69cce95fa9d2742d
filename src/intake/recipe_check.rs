//! Whether the recipe that a drop names is there and can run.
//!
//! Not its start: the runner looks once more. Invariant: what cannot be seen now refuses no drop.

use crate::recipe::{FindError, Kind, Recipe, RecipePath, Search};
use crate::spool::{DropRefusal, IoError, Spool};
use crate::task::Request;

/// A request must name a recipe that is there and can run.
pub(super) fn check_recipe(
    spool: &Spool,
    request: &Request,
) -> Result<Result<(), DropRefusal>, IoError> {
    let found = RecipePath::of(spool).find(&request.recipe);
    // A watcher does not wait for PraisonAI's Python. What its other programs are found by is written down.
    let searches = |recipe: &Recipe| match recipe.kind {
        Kind::PraisonAi => Vec::new(),
        Kind::Folder | Kind::Executable => Search::of_watchers(spool).unwrap_or_default(),
    };
    match found.and_then(|recipe| recipe.check_runnable(|| searches(&recipe))) {
        Ok(()) => Ok(Ok(())),
        // Without the error's number: the box would take it for a drop that cannot be moved.
        Err(FindError::Unseen { path, source }) => {
            let source = std::io::Error::other(source.to_string());
            Err(IoError::new("look for the recipe", path, source))
        }
        Err(error) => Ok(Err(DropRefusal {
            reason: error.to_string(),
            hint: "see `agentspool recipe list`, then drop the file again",
        })),
    }
}
