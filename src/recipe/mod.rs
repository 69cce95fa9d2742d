//! Recipes: where they are found, and how they are read and checked.
//!
//! Recipes are found only on the path in the spool's settings, which is the same for all users. A request
//! names a recipe and never contains a command. Not the process of a recipe (`runner/`). Invariant: recipes
//! are read, never written.
#![expect(
    clippy::disallowed_methods,
    reason = "recipes are not part of the protocol, and are only read"
)]

mod check;
mod error;
mod file;
mod first_line;
mod found;
mod interpreter;
mod limits;
mod listing;
mod manifest;
mod parts;
mod path;
mod praisonai;
mod program;
mod search;
mod trust;

pub use error::FindError;
pub use found::{Kind, Recipe};
pub use limits::Limits;
pub use listing::{LeftOut, is_name_of_copy};
pub use manifest::{Manifest, OnLost, SessionMode, is_variable_name};
pub use path::RecipePath;
pub use search::{PathOf, Search};
pub use trust::Trust;
