//! The trash: what interrupted removals left there.
//!
//! Not how a folder gets there (`removal.rs`). Invariant: only entries that a removal created are removed.

use std::ffi::{OsStr, OsString};

use super::removed::{is_kept, of_entry};
use crate::spool::disk::{Dir, IoResult, mounted};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::TaskId;

impl Spool {
    /// Whether a task was removed and its folder is still in the trash.
    pub(in crate::spool) fn is_in_trash(&self, id: TaskId) -> IoResult<bool> {
        let prefix = format!("{id}.");
        let mut found = false;
        self.folder(name::TRASH)?.each_name(|name, _| {
            found = name.starts_with(prefix.as_bytes());
            !found
        })?;
        Ok(found)
    }

    /// The entries that interrupted removals left in the trash.
    pub fn trash(&self) -> IoResult<Vec<OsString>> {
        let mut left = self.own_folder(name::TRASH)?.names()?;
        left.retain(|entry| is_ours(entry) && !is_kept(entry));
        Ok(left)
    }

    /// Opens a folder of the spool to remove something from it.
    ///
    /// # Errors
    /// Fails also if a file system is mounted on the folder.
    pub(in crate::spool) fn own_folder(&self, folder: &'static str) -> IoResult<Dir> {
        let root = self.root()?;
        let there = self.folder(folder)?;
        if there.mount()? == root.mount()? {
            Ok(there)
        } else {
            Err(mounted("remove anything from", root.path_of(folder)))
        }
    }

    /// Removes an entry of the trash.
    pub fn remove_trash(&self, entry: &OsString) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        // The removal may have been interrupted before it recorded the task's id.
        let id = entry
            .to_str()
            .and_then(|text| text.split('.').next()?.parse().ok());
        if let Some(id) = id {
            self.remember_removed(&trash, id, None)?;
        }
        trash.remove_from_trash(entry).map(|_| ())
    }
}

/// Whether a removal created this entry of the trash.
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
