//! Ids of removed tasks and refusals that must not be used again: empty files `trash/<id>.removed`.
//!
//! Only in a group spool, where users of the group choose the ids of their tasks and see those of others. Not
//! the removal itself (`clearing.rs`, `refused.rs`). Invariant: while a new drop could use the id of a
//! removed task or refusal, the id is recorded in `trash/`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::spool::disk::{Dir, IoResult};
use crate::spool::inbox::is_young;
use crate::spool::layout::name::{self, REMOVED_SUFFIX};
use crate::spool::open::Spool;
use crate::task::TaskId;

impl Spool {
    /// Records the id of a task that is about to be removed, if a new drop could use it. With the task's
    /// folder at hand this needs no inode, so that tasks can be removed on a full disk.
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

    /// Whether this id is recorded as removed.
    pub(in crate::spool) fn is_removed(&self, id: TaskId) -> IoResult<bool> {
        self.folder(name::TRASH)?
            .has(format!("{id}{REMOVED_SUFFIX}"))
    }
}

/// Whether an entry of the trash records an id that a new drop could still use.
pub(in crate::spool) fn is_kept(entry: &OsStr) -> bool {
    of_entry(entry).is_some_and(is_young)
}

/// The id that an entry of the trash records as removed.
pub(super) fn of_entry(entry: &OsStr) -> Option<TaskId> {
    let name = std::str::from_utf8(entry.as_bytes()).ok()?;
    name.strip_suffix(REMOVED_SUFFIX)?.parse().ok()
}
