//! Where programs are searched for: one `PATH`, and its source.
//!
//! Not the search (`program.rs`). Invariant: a message about a missing program shows the `PATH` that was
//! searched, but never the value of a `PATH` that a recipe sets, because it may come from its `env_file`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::spool::{IoError, Spool};
use crate::task::escape_path;

/// A `PATH` and its source.
#[derive(Clone, Debug)]
pub struct Search {
    /// The value.
    pub path: OsString,
    /// Its source.
    pub of: PathOf,
}

/// The source of a `PATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOf {
    /// The caller. A watcher that is started now gets the caller's `PATH`.
    Caller,
    /// A running watcher, with its process id.
    Watcher(i32),
    /// The task, whose other variables are known too.
    Task,
    /// The recipe, which sets it.
    Recipe,
}

impl Search {
    /// The PATHs that running watchers have recorded. Tasks that systemd starts have another PATH.
    ///
    /// # Errors
    /// The watcher files cannot be read.
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

    /// How a message names the `PATH`.
    pub(super) fn named(&self) -> String {
        let path = escape_path(Path::new(&self.path));
        match self.of {
            PathOf::Caller => format!("PATH ({path})"),
            PathOf::Watcher(pid) => format!("the PATH of the watcher, process {pid} ({path})"),
            PathOf::Task => format!("the PATH of the task ({path})"),
            PathOf::Recipe => "the recipe's own PATH".to_owned(),
        }
    }

    /// What to do so that a program is found there.
    pub(super) fn fix(&self) -> &'static str {
        match self.of {
            PathOf::Caller => "install it, or write its full path in the recipe",
            PathOf::Watcher(_) | PathOf::Task => {
                "install it there, write its full path in the recipe, or stop the watcher and start one with another PATH"
            }
            PathOf::Recipe => "install it there, or change the recipe's PATH",
        }
    }
}
