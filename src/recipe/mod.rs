//! What can be run: recipes, where they are found, and what they say about themselves.
//!
//! Found only in the spool's recorded path, by everybody alike: a request names a recipe and can
//! never carry a command. Not here: the process (`runner/`). Invariant: recipes are
//! read, never written.
#![expect(
    clippy::disallowed_methods,
    reason = "recipes lie outside the protocol, and are only read"
)]

mod error;
mod file;
mod first_line;
mod found;
mod limits;
mod manifest;
mod parts;
mod path;
mod praisonai;
mod program;
mod trust;

pub use error::FindError;
pub use found::{Kind, Recipe};
pub use limits::Limits;
pub use manifest::{Manifest, OnLost, SessionMode, is_variable_name};
pub use path::RecipePath;
pub use trust::Trust;
