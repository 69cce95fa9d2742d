//! The list of checks, in the order of the answer.
//!
//! Not the checks. Invariant: a user of the group gets those that are his, the owner all.

use std::path::PathBuf;

use super::check::Check;
use super::surroundings::Surroundings;
use super::{disk, launcher, leftovers, processes, recipes};
use crate::client::open::Client;
use crate::spool::{IoError, Spool};

/// What the checks need to know besides the spool.
#[derive(Clone, Debug, Default)]
pub struct DoctorOptions {
    /// The spool that this user has by default: for that one the units of the user's own systemd count.
    pub default_spool: Option<PathBuf>,
    /// The folder of the program that runs tasks, which recipes search last.
    pub tools: Option<PathBuf>,
}

impl Client {
    /// Looks whether all is well. Nothing is changed, and nothing is started.
    ///
    /// The client should be opened with [`Client::open_as_it_is`], which does not put right what a check is for. The
    /// spool is well only if the verdict of every check is [`Verdict::Ok`](super::Verdict::Ok).
    pub fn doctor(&self, options: &DoctorOptions) -> Vec<Check> {
        let surroundings = Surroundings {
            client: self,
            default_spool: options.default_spool.as_deref(),
            tools: options.tools.as_deref(),
        };
        all(&surroundings, self.spool())
    }
}

/// Every check, in the order of the answer.
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
    // The rest is the owner's to see to, and much of it closed to a user of the group.
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
