//! PraisonAI recipe folders: how one is known.
//!
//! Not how one is run: that takes the installed `praisonai`, and until it is built such a recipe is
//! listed with the reason why it cannot run, and refused before a task is made of it.

use std::path::Path;

/// The files either of which makes a folder a PraisonAI recipe.
const MARKS: [&str; 2] = ["TEMPLATE.yaml", "agents.yaml"];

/// Whether a folder is a PraisonAI recipe.
pub(super) fn is_recipe(folder: &Path) -> bool {
    MARKS.iter().any(|mark| folder.join(mark).is_file())
}

/// Why it cannot be run by this version.
pub(super) const CANNOT_RUN: &str =
    "PraisonAI recipes cannot be run by this version: wrap the call in a recipe.toml of your own";
