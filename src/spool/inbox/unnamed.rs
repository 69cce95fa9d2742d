//! Files in the drop box that never got their name: their writer was killed in between.
//!
//! Not the writing (`submit_drop.rs`). Invariant: only names that `submit` and `cancel` make are found here,
//! and to remove one that is still being written loses nothing: its writer's rename fails, and he is told.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::FileType;

use super::drop_claim::ms_of;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, HIDDEN_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{Control, TaskId, Timestamp};

/// The hidden name of a file that is to have this name, or one like it.
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
    /// Files of users of the group without a name, and when each was last changed.
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
            // The ctime, which nobody can set.
            if let Some(stat) = incoming.look(&name)?
                && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            {
                let at = Timestamp::from_unix_ms(ms_of(stat.st_ctime, stat.st_ctime_nsec));
                found.push((name, at));
            }
        }
        Ok(found)
    }

    /// Removes one of them; `false` when it was not there any more.
    pub fn remove_unnamed_drop(&self, file: &OsString) -> IoResult<bool> {
        self.folder(name::INCOMING)?.unlink(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_found() {
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
