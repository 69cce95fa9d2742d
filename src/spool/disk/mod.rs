//! The file system as the spool uses it: open folders, complete files, locks, and removing trees.
//!
//! `dir` (open folders) · `write` (creating and replacing files) · `file_system` (syncing) · `flock` and
//! `lock_order` (locks) · `lock_table` (locks of files that a user may not open) · `own_folder` (folders that
//! a recipe may have made inaccessible) · `tree`, `tree_walk`, `tree_step` and `tree_left` (removing a
//! folder) · `which` (the identity of a file) · `random` · `below` and `way_up` (walking deep trees) ·
//! `error`. Nothing here knows what a task is. Invariant: every call uses an open folder and the name of one
//! entry, so a link that somebody else puts there cannot lead elsewhere.

mod below;
mod dir;
mod error;
mod file_system;
mod flock;
mod lock_order;
pub(super) mod lock_table;
mod own_folder;
mod random;
mod tree;
mod tree_left;
mod tree_step;
mod tree_walk;
mod way_up;
mod which;
mod write;

pub(in crate::spool) use below::*;
pub(in crate::spool) use dir::LOCK_MODE;
pub use dir::{Dir, Making, absent_is_none};
pub use error::{IoError, IoResult};
pub(in crate::spool) use file_system::{local_kind, network_kind};
pub use flock::{Flock, Guard};
pub use lock_order::LockLevel;
pub(in crate::spool) use random::random_bits;
pub(in crate::spool) use tree_left::{Removed, mounted};
pub(in crate::spool) use which::{Which, is_same_file, which};
