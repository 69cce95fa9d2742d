//! The lock of the root: one process at a time creates or replaces a file in it.
//!
//! Not what is written (`init.rs`, `set.rs`, `identity.rs`). Invariant: no process waits for it without a
//! limit.

use std::time::Duration;

use super::spool::Spool;
use crate::spool::disk::{Dir, Flock, IoError, IoResult, LockLevel};
use crate::spool::layout::name;

/// How long to wait for another command that creates or replaces a file of the root.
const ROOT_PATIENCE: Duration = Duration::from_secs(10);

/// The right to create or replace a file of the root. One process at a time has it, until it closes the file.
pub(in crate::spool) fn root_lock(root: &Dir) -> IoResult<Flock> {
    let path = || root.path_of(name::ROOT_LOCK);
    let busy = || IoError::new("lock", path(), std::io::ErrorKind::WouldBlock);
    root.lock_within(LockLevel::Root, name::ROOT_LOCK, ROOT_PATIENCE)?
        .ok_or_else(busy)
}

impl Spool {
    /// The right to create or replace a file of the root. One process at a time has it.
    pub(super) fn lock_root(&self) -> IoResult<Flock> {
        root_lock(&self.root)
    }
}
