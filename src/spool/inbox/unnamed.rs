//! Files in the drop box that never got their final name, because their writer was killed.
//!
//! Not how they are written (`submit_drop.rs`). Invariant: only hidden names that `submit` and `cancel`
//! create are found here. Removing a file that is still being written loses nothing: the writer's rename
//! fails with an error.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::FileType;

use super::drop_claim::ms_of;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, HIDDEN_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{Control, TaskId, Timestamp};

/// The hidden name of a file before it gets its final name.
pub(super) fn hidden_name(name: &str) -> String {
    format!(".{name}{HIDDEN_SUFFIX}")
}

fn is_hidden_name(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(HIDDEN_SUFFIX));
    inner.is_some_and(|inner| {
        inner.parse::<TaskId>().is_ok() || Control::of_file_name(inner.as_bytes()).is_some()
    })
}

impl Spool {
    /// Files that have only a hidden name, each with the time of its last change.
    pub fn unnamed_drops(&self) -> IoResult<Vec<(OsString, Timestamp)>> {
        let mut names = Vec::new();
        if !self.is_group() {
            return Ok(Vec::new());
        }
        let incoming = self.folder(name::INCOMING)?;
        incoming.each_name(|name, _| {
            if is_hidden_name(name) {
                names.push(OsString::from_vec(name.to_vec()));
            }
            true
        })?;
        let mut found = Vec::new();
        for name in names {
            // The ctime, because no user can set it.
            if let Some(stat) = incoming.look(&name)?
                && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            {
                let at = Timestamp::from_unix_ms(ms_of(stat.st_ctime, stat.st_ctime_nsec));
                found.push((name, at));
            }
        }
        Ok(found)
    }

    /// Removes a file with a hidden name; `false` if it is gone.
    pub fn remove_unnamed_drop(&self, file: &OsString) -> IoResult<bool> {
        self.folder(name::INCOMING)?.unlink(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hidden_names_of_submit_and_cancel_are_found() {
        let id = "task_01m85x906pb06zhxqqsktssv9k";
        for (name, is_ours) in [
            (hidden_name(id), true),
            (hidden_name(&format!("{id}.000000000000002a.cancel")), true),
            (format!(".{id}.json.new"), false),
            (format!("{id}.new"), false),
            (format!(".{id}.json.tmp"), false),
            (".report.new".to_owned(), false),
        ] {
            assert_eq!(is_hidden_name(name.as_bytes()), is_ours, "{name}");
        }
    }
}
