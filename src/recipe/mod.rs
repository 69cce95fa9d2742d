//! What can be run: recipes, where they are found, and what they say about themselves.
//!
//! Found only in the spool's recorded path, by everybody alike: a request names a recipe and can
//! never carry a command. Not here: the process (`runner/`). Recipes are read, never written.
#![expect(
    clippy::disallowed_methods,
    reason = "recipes lie outside the protocol, and are only read"
)]

mod file;
mod find;
mod limits;
mod manifest;
mod praisonai;
mod trust;

pub use find::{FindError, Kind, Recipe, RecipePath};
pub use limits::Limits;
pub use manifest::{Manifest, ManifestError, OnLost, SessionMode, is_variable_name};
pub use trust::Trust;
