//! Why a recipe or its manifest cannot be used.
//!
//! Not the checks (`path.rs`, `manifest.rs`). Invariant: no message repeats a value of a manifest, because it
//! may be a secret.

use std::path::{Path, PathBuf};

use super::trust::Exposed;
use crate::task::{Name, escape_path, quote_path};

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(pub(super) String);

impl ManifestError {
    /// Adds the key with the wrong value to the message.
    pub(super) fn of_key(self, key: &str) -> ManifestError {
        match self.0.contains(&format!("`{key}`")) {
            true => self,
            false => ManifestError(format!("`{key}`: {}", self.0)),
        }
    }

    /// Whether the other error is the same, without its line number.
    pub(super) fn is_same(&self, other: &ManifestError) -> bool {
        let text = other
            .0
            .split_once("`: ")
            .map_or(&*other.0, |(_, text)| text);
        self.0.ends_with(text)
    }
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is no recipe with this name on the path.
    #[error(
        "no recipe is called {name:?}{}; searched in {}",
        did_you_mean(suggestions),
        list(searched)
    )]
    NotFound {
        /// The requested name.
        name: String,
        /// Similar names.
        suggestions: Vec<String>,
        /// The folders searched.
        searched: Vec<PathBuf>,
    },
    /// The recipe exists and cannot be used.
    #[error("cannot use the recipe {}: {problem}; {fix}", escape_path(path))]
    Broken {
        /// Its folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        fix: String,
    },
    /// Others could change what the recipe runs.
    #[error(
        "the recipe {name} is not run: {}: {why}, but in a group spool only the owner and root may be able to change what a recipe runs: {fix}; or move the recipe and its files to another folder",
        escape_path(path)
    )]
    Open {
        /// The recipe.
        name: Name,
        /// The path that they could change.
        path: PathBuf,
        /// Why they could change it.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// The place of the recipe cannot be read now, so it is not known whether the recipe exists.
    #[error("failed to search for a recipe at {}: {source}", escape_path(path))]
    Unseen {
        /// The path that was read.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A program that the recipe needs is missing or cannot be started.
    #[error("the recipe {name} cannot run: {problem}; {fix}")]
    Missing {
        /// The recipe.
        name: Name,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        fix: String,
    },
}

/// A command that fixes a file.
pub(super) fn fix_command(command: &str, path: &Path) -> String {
    format!("{command} {}", quote_path(path))
}

fn did_you_mean(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        names => format!(" (did you mean {}?)", names.join(" or ")),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| escape_path(path).into_owned())
        .collect();
    shown.join(", ")
}

impl FindError {
    /// What is wrong, without the advice.
    pub fn problem(&self) -> String {
        match self {
            FindError::Missing { problem, .. } => problem.clone(),
            FindError::Broken { path, problem, .. } => format!("{}: {problem}", escape_path(path)),
            FindError::Open { path, why, .. } => format!("{}: {why}", escape_path(path)),
            FindError::NotFound { .. } | FindError::Unseen { .. } => self.to_string(),
        }
    }

    /// What to do about it.
    pub fn fix(&self) -> &str {
        match self {
            FindError::Missing { fix, .. } | FindError::Broken { fix, .. } => fix,
            FindError::Open { fix, .. } => fix,
            FindError::NotFound { .. } => "see `agentspool recipe list`",
            FindError::Unseen { .. } => "make this path readable, then try again",
        }
    }

    pub(super) fn open(name: Name, exposed: Exposed) -> FindError {
        let Exposed { path, why, fix } = exposed;
        FindError::Open {
            name,
            path,
            why,
            fix,
        }
    }

    pub(super) fn unseen(path: &Path, source: std::io::Error) -> FindError {
        FindError::Unseen {
            path: path.to_owned(),
            source,
        }
    }
}

/// Whether the error is temporary or not about the file itself.
pub(super) fn is_passing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let short = [
        Errno::IO,
        Errno::NFILE,
        Errno::MFILE,
        Errno::NOMEM,
        Errno::INTR,
        Errno::STALE,
    ];
    Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
}
