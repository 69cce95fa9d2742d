//! The tag of an attempt: a value in the environment of every process that the attempt started.
//!
//! Does not search for it (`search.rs`). Invariant: no two attempts have the same tag, even in copies of
//! a spool.

use crate::spool::{Attempt, IoError, Spool, TaskDir};
use crate::task::TaskId;

/// The variable that holds the tag.
pub(crate) const TAG_VARIABLE: &str = "AGENTSPOOL_MARK";

/// The tag of an attempt. It includes device and inode of the attempt's folder: a copy of a spool has the
/// same identity as its original, but never the same folder.
pub(crate) fn tag_of(spool: &Spool, id: TaskId, attempt: &Attempt) -> Result<String, IoError> {
    let (device, inode) = attempt.which()?;
    let (uuid, number) = (spool.uuid(), attempt.number());
    Ok(format!("{uuid}/{id}/{number}/{device}:{inode}"))
}

/// The start of the tag of an attempt whose folder is gone, so that its inode is unknown.
pub(super) fn beginning_of(spool: &Spool, task: &TaskDir, number: u32) -> Result<String, IoError> {
    let (uuid, id, device) = (spool.uuid(), task.id(), task.device()?);
    Ok(format!("{uuid}/{id}/{number}/{device}:"))
}
