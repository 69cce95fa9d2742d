//! Ids of removed tasks and of removed refusals that must not come again: empty files `trash/<id>.removed` in a group spool.
//!
//! There the users of the group choose the ids of their tasks, and everybody sees them. Not the removal
//! (`clearing.rs`, `refused.rs`). Invariant: as long as a new drop could bring the id of a removed task or refusal, that id
//! stands in `trash/`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::spool::disk::{Dir, IoResult};
use crate::spool::inbox::is_young;
use crate::spool::layout::name::{self, REMOVED_SUFFIX};
use crate::spool::open::Spool;
use crate::task::TaskId;

impl Spool {
    /// Keeps the id of a task that is about to leave the trash, if it could come again. Where the task's
    /// folder is at hand, that takes no inode: a full disk must be able to be cleared.
    pub(super) fn remember_removed(
        &self,
        trash: &Dir,
        id: TaskId,
        task: Option<&Dir>,
    ) -> IoResult<()> {
        if !self.is_group() || !is_young(id) {
            return Ok(());
        }
        let kept = format!("{id}{REMOVED_SUFFIX}");
        match task {
            Some(task) => trash.make_entry(kept, task, name::LOCK),
            None => trash.touch(kept).map(|_| ()),
        }
    }

    /// Whether a task of this id was removed a short while ago.
    pub(in crate::spool) fn is_removed(&self, id: TaskId) -> IoResult<bool> {
        self.folder(name::TRASH)?
            .has(format!("{id}{REMOVED_SUFFIX}"))
    }
}

/// Whether an entry of the trash keeps an id that could come again.
pub(in crate::spool) fn is_kept(entry: &OsStr) -> bool {
    of_entry(entry).is_some_and(is_young)
}

/// The id that an entry of the trash keeps.
pub(super) fn of_entry(entry: &OsStr) -> Option<TaskId> {
    let name = std::str::from_utf8(entry.as_bytes()).ok()?;
    name.strip_suffix(REMOVED_SUFFIX)?.parse().ok()
}
