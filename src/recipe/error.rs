//! Why a recipe or its manifest cannot be used.
//!
//! Not how that is found out (`path.rs`, `manifest.rs`). Invariant: no message repeats a value of a manifest, which may be
//! a secret.

use std::path::{Path, PathBuf};

use super::trust::Exposed;
use crate::task::{Name, escape_path, quote_path};

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(pub(super) String);

impl ManifestError {
    /// With the key that it is about.
    pub(super) fn of_key(self, key: &str) -> ManifestError {
        match self.0.contains(&format!("`{key}`")) {
            true => self,
            false => ManifestError(format!("`{key}`: {}", self.0)),
        }
    }

    /// Whether the other error says the same without a line.
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
    /// Nothing of this name anywhere on the path.
    #[error(
        "no recipe is called {name:?}{}; looked in {}",
        did_you_mean(suggestions),
        list(searched)
    )]
    NotFound {
        /// The name asked for.
        name: String,
        /// Names that are near.
        suggestions: Vec<String>,
        /// The folders searched.
        searched: Vec<PathBuf>,
    },
    /// It is there and cannot be used.
    #[error("cannot use the recipe {}: {problem}; {fix}", escape_path(path))]
    Broken {
        /// Its folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Others could choose what it runs.
    #[error(
        "the recipe {name} is not run: {}: {why}, and in a group spool nobody but the owner and root may be able to choose what it runs: {fix}; or keep what the recipe needs elsewhere",
        escape_path(path)
    )]
    Open {
        /// The recipe.
        name: Name,
        /// What they could change.
        path: PathBuf,
        /// Who could.
        why: String,
        /// What to do.
        fix: String,
    },
    /// Whether it is there cannot be seen now, which says nothing of the recipe.
    #[error("failed to look for a recipe at {}: {source}", escape_path(path))]
    Unseen {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Something it needs is missing, or would not start.
    #[error("the recipe {name} cannot run: {problem}; {fix}")]
    Missing {
        /// The recipe.
        name: Name,
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: String,
    },
}

/// A command that mends a file.
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
    /// What is wrong, without what to do.
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

/// Whether the kernel refused for a reason that has nothing to do with the file.
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
