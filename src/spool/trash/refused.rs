//! The removal of refused drops and their reasons.
//!
//! Not how a drop is refused (`inbox/`), nor what is old enough (`sweeper/plan.rs`). Invariant: a folder is
//! removed only if it is empty or a conversion created it.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use crate::spool::disk::{IoResult, mounted};
use crate::spool::inbox::{DEEPEST, is_of_conversion, reason_beside, strange_below};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{TaskId, Timestamp};

impl Spool {
    /// The files in `rejected/`, each with the time of its refusal. In a group spool this is the time of the
    /// reason file, because the time in the id may differ.
    pub fn rejected_files(&self) -> IoResult<Vec<(OsString, Timestamp)>> {
        let rejected = self.own_folder(name::REJECTED)?;
        let mut files = Vec::new();
        for name in rejected.names()? {
            let Some(id) = refused_id(&name) else {
                continue;
            };
            let mut at = Timestamp::from_unix_ms(id.unix_ms());
            if self.is_group()
                && let Some(reason) = reason_beside(&name)
                && let Some(stat) = rejected.stat(reason)?
            {
                at = Timestamp::from_unix_ms(stat.st_mtime.saturating_mul(1000));
            }
            files.push((name, at));
        }
        Ok(files)
    }

    /// Removes a refused drop or a reason; `false` if it stays. A folder that a conversion put there is
    /// removed with its content. Any other folder is removed only if it is empty, because a person or an
    /// earlier version may have put the only copy of something into it. `doctor` names what only root can
    /// remove.
    pub fn remove_rejected(&self, file: &OsString) -> IoResult<bool> {
        let rejected = self.folder(name::REJECTED)?;
        let trash = self.folder(name::TRASH)?;
        if let Some(id) = refused_id(file)
            && is_under_its_own_id(file, id)
        {
            // The id was printed, so no other drop may use it.
            self.remember_removed(&trash, id, None)?;
        }
        let removed = if is_of_conversion(file) {
            rejected.remove_closed_tree_by(file, &trash).map(|_| true)
        } else {
            match rejected.unlink(file) {
                Err(error) if matches!(error.errno(), Some(Errno::ISDIR | Errno::PERM)) => {
                    rejected.remove_empty_dir(file)
                }
                removed => removed,
            }
        };
        match removed {
            Err(error) if error.errno() == Some(Errno::NOTEMPTY) => Ok(false),
            Err(error) if error.is_mounted() => Err(mounted("remove", rejected.path_of(file))),
            Err(_) if strange_below(&rejected, file, DEEPEST).is_some() => Ok(false),
            removed => removed,
        }
    }
}

/// The id in the name of a file in `rejected/`.
fn refused_id(file: &OsStr) -> Option<TaskId> {
    let id = file.as_encoded_bytes().get(..TaskId::LEN)?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// Whether a drop was refused under the id that was its own name.
fn is_under_its_own_id(file: &OsStr, id: TaskId) -> bool {
    let own = format!("-{id}.");
    let rest = file.as_encoded_bytes().get(TaskId::LEN..);
    rest.is_some_and(|rest| rest.starts_with(own.as_bytes()))
}
