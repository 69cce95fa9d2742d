//! The trash: what removals that were cut off left.
//!
//! Invariant: what a removal did not put there is somebody's, and stays.

use std::ffi::{OsStr, OsString};

use super::removed::{is_kept, of_entry};
use crate::spool::disk::{Dir, IoResult, mounted};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::TaskId;

impl Spool {
    /// Whether a task was removed and its folder still lies in the trash.
    pub(in crate::spool) fn is_in_trash(&self, id: TaskId) -> IoResult<bool> {
        let prefix = format!("{id}.");
        let mut found = false;
        self.folder(name::TRASH)?.each_name(|name, _| {
            found = name.starts_with(prefix.as_bytes());
            !found
        })?;
        Ok(found)
    }

    /// What removals that were cut off left behind.
    pub fn trash(&self) -> IoResult<Vec<OsString>> {
        let mut left = self.own_folder(name::TRASH)?.names()?;
        left.retain(|entry| is_ours(entry) && !is_kept(entry));
        Ok(left)
    }

    /// A folder of the spool from which something is to be removed: not one that somebody mounted there.
    pub(in crate::spool) fn own_folder(&self, folder: &'static str) -> IoResult<Dir> {
        let root = self.root()?;
        let there = self.folder(folder)?;
        if there.mount()? == root.mount()? {
            Ok(there)
        } else {
            Err(mounted("remove anything from", root.path_of(folder)))
        }
    }

    /// Removes one of them.
    pub fn remove_trash(&self, entry: &OsString) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        // A removal that was cut off before it kept the task's id.
        let id = entry
            .to_str()
            .and_then(|text| text.split('.').next()?.parse().ok());
        if let Some(id) = id {
            self.remember_removed(&trash, id, None)?;
        }
        trash.remove_from_trash(entry).map(|_| ())
    }
}

/// Whether an entry of the trash is one that a removal made. What else lies there is somebody's.
fn is_ours(entry: &OsStr) -> bool {
    const KINDS: [&str; 4] = ["session", "deep", "staged", "claim"];
    let Some((kind, rest)) = entry.to_str().and_then(|entry| entry.split_once('.')) else {
        return false;
    };
    let is_hex =
        |digits: usize| rest.len() == digits && rest.bytes().all(|it| it.is_ascii_hexdigit());
    match kind.parse::<TaskId>() {
        Ok(_) => is_hex(8) || of_entry(entry).is_some(),
        Err(_) => KINDS.contains(&kind) && is_hex(16),
    }
}
