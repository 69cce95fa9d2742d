//! The list of checks, in the order of the output.
//!
//! Not the checks. Invariant: the owner gets all checks, a user of the group only those that concern him.

use std::path::PathBuf;

use super::check::Check;
use super::surroundings::Surroundings;
use super::{disk, launcher, leftovers, processes, recipes};
use crate::client::open::Client;
use crate::spool::{IoError, Spool};

/// What the checks need besides the spool.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// The user's default spool. For this spool, the units of the user's own systemd are checked.
    pub default_spool: Option<PathBuf>,
    /// The folder of the program that runs tasks. It is the last folder on the `PATH` of recipes.
    pub tools: Option<PathBuf>,
}

impl Client {
    /// Runs all checks. They change nothing and start nothing.
    ///
    /// Open the client with [`Client::open_as_it_is`], which does not repair what the checks look for. The
    /// spool has no problem only if the verdict of every check is [`Verdict::Ok`](super::Verdict::Ok).
    pub fn doctor(&self, options: &DoctorOptions) -> Vec<Check> {
        let surroundings = Surroundings {
            client: self,
            default_spool: options.default_spool.as_deref(),
            tools: options.tools.as_deref(),
        };
        all(&surroundings, self.spool())
    }
}

/// Every check, in the order of the output.
fn all(surroundings: &Surroundings<'_>, spool: &Spool) -> Vec<Check> {
    type Checker = fn(&Surroundings<'_>, &Spool) -> Result<Vec<Check>, IoError>;
    let checkers: [(&'static str, Checker); 16] = [
        ("spool", disk::spool),
        ("writable", disk::writable),
        ("folders above", disk::above),
        ("file system", disk::file_system),
        ("identity", disk::identity),
        ("paused", disk::paused),
        ("clock", disk::clock),
        ("watcher", processes::watcher),
        ("sweeps", processes::sweeps),
        ("linger", processes::linger),
        ("launcher", launcher::launcher),
        ("limits", processes::limits),
        ("recipes", recipes::runnable),
        ("recipe path", recipes::path),
        ("leftovers", leftovers::litter),
        ("tasks", leftovers::tasks),
    ];
    // The other checks concern the owner, and a user of the group cannot read most of their files.
    let of_everybody = ["spool", "writable", "file system", "identity", "watcher"];
    let is_owner = spool.is_owner();
    let mut checks = Vec::new();
    for (name, checker) in checkers {
        if !is_owner && !of_everybody.contains(&name) {
            continue;
        }
        match checker(surroundings, spool) {
            Ok(found) => checks.extend(found),
            Err(error) => checks.push(Check::failed(name, &error)),
        }
    }
    checks
}
