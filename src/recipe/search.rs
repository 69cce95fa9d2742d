//! Where programs are searched for: one `PATH`, and whose it is.
//!
//! Not the search (`program.rs`). Invariant: a message about a program that is missing names the `PATH` that was
//! searched, but never one that a recipe sets itself, which may come from its `env_file`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::spool::{IoError, Spool};
use crate::task::escape_path;

/// A `PATH`, and whose it is.
#[derive(Clone, Debug)]
pub struct Search {
    /// The value.
    pub path: OsString,
    /// Whose.
    pub of: PathOf,
}

/// Whose `PATH` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOf {
    /// The caller's. A watcher that is started now gets it.
    Caller,
    /// That of a running watcher, by its process id.
    Watcher(i32),
    /// The task's, of which the rest of the environment is known as well.
    Task,
    /// The recipe sets it.
    Recipe,
}

impl Search {
    /// The PATHs of the watchers that run, as far as they say. Tasks that systemd starts have another one.
    ///
    /// # Errors
    /// The watchers cannot be read.
    pub fn of_watchers(spool: &Spool) -> Result<Vec<Search>, IoError> {
        if spool.settings().launcher.enforces_limits() {
            return Ok(Vec::new());
        }
        let watchers = spool.living_watchers()?.into_iter();
        let searches = watchers.filter_map(|watcher| {
            Some(Search {
                path: watcher.path?.into(),
                of: PathOf::Watcher(watcher.pid),
            })
        });
        Ok(searches.collect())
    }

    pub(super) fn path(&self) -> &OsStr {
        &self.path
    }

    /// The `PATH` as it is called in a message.
    pub(super) fn named(&self) -> String {
        let path = escape_path(Path::new(&self.path));
        match self.of {
            PathOf::Caller => format!("PATH ({path})"),
            PathOf::Watcher(pid) => format!("the PATH of the watcher, process {pid} ({path})"),
            PathOf::Task => format!("the PATH of the task ({path})"),
            PathOf::Recipe => "the recipe's own PATH".to_owned(),
        }
    }

    /// How a program comes to be found there.
    pub(super) fn fix(&self) -> &'static str {
        match self.of {
            PathOf::Caller => "install it, or give its full path in the recipe",
            PathOf::Watcher(_) | PathOf::Task => {
                "install it there, give its full path in the recipe, or stop the watcher and start one with another PATH"
            }
            PathOf::Recipe => "install it there, or change the recipe's PATH",
        }
    }
}
