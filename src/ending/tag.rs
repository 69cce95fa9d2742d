//! The tag of an attempt: what stands in the environment of everything that it started.
//!
//! Not the search for it (`search.rs`). Invariant: no two attempts have the same tag, not even in copies of a spool.

use crate::spool::{Attempt, IoError, Spool, TaskDir};
use crate::task::TaskId;

/// The variable that tags everything an attempt started.
pub(crate) const TAG_VARIABLE: &str = "AGENTSPOOL_MARK";

/// What stands in the environment of everything an attempt started. Device and inode of its folder
/// are a part of it: a snapshot has the same identity as its original, and never the same folder.
pub(crate) fn tag_of(spool: &Spool, id: TaskId, attempt: &Attempt) -> Result<String, IoError> {
    let (device, inode) = attempt.which()?;
    let (uuid, number) = (spool.uuid(), attempt.number());
    Ok(format!("{uuid}/{id}/{number}/{device}:{inode}"))
}

/// How the tag of an attempt begins whose folder is gone: its inode is not known any more.
pub(super) fn beginning_of(spool: &Spool, task: &TaskDir, number: u32) -> Result<String, IoError> {
    let (uuid, id, device) = (spool.uuid(), task.id(), task.device()?);
    Ok(format!("{uuid}/{id}/{number}/{device}:"))
}
