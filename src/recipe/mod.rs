//! What can be run: recipes, where they are found, and what they say about themselves.
//!
//! Found only in the spool's recorded path, by everybody alike: a request names a recipe and can
//! never carry a command. Not here: the process (`runner/`). Invariant: recipes are
//! read, never written.
#![expect(
    clippy::disallowed_methods,
    reason = "recipes lie outside the protocol, and are only read"
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
