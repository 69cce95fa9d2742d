//! Refused drops and their reasons, when they are old enough to go.
//!
//! Not how a drop is refused (`inbox/`). Invariant: a folder goes only if it is empty or a conversion made it.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use crate::spool::disk::{IoResult, mounted};
use crate::spool::inbox::{DEEPEST, is_of_conversion, reason_beside, strange_below};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{TaskId, Timestamp};

impl Spool {
    /// Refused drops and their reasons, with the moment they were refused. In a group spool that is the moment of
    /// the reason: the id may be of another one.
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

    /// Removes one refused drop or reason; `false` where it stays. Of folders only what a conversion put there
    /// goes with all that is in it; another one only if it is empty, because what an earlier program or a
    /// person put here may be all that somebody has of it. What only root can remove is named by `doctor`.
    pub fn remove_rejected(&self, file: &OsString) -> IoResult<bool> {
        let rejected = self.folder(name::REJECTED)?;
        let trash = self.folder(name::TRASH)?;
        if let Some(id) = refused_id(file)
            && is_under_its_own_id(file, id)
        {
            // The id was printed; no other drop may bring it.
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

/// The id that a refused drop was refused under.
fn refused_id(file: &OsStr) -> Option<TaskId> {
    let id = file.as_encoded_bytes().get(..TaskId::LEN)?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// Whether a refused drop was refused under the id that it brought.
fn is_under_its_own_id(file: &OsStr, id: TaskId) -> bool {
    let own = format!("-{id}.");
    let rest = file.as_encoded_bytes().get(TaskId::LEN..);
    rest.is_some_and(|rest| rest.starts_with(own.as_bytes()))
}
