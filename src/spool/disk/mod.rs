//! The file system as the spool uses it: folders by handles, files that are whole, locks, and trees that go.
//!
//! `dir` (open folders) · `write` (how a file comes to be) · `file_system` (what reaches the disk) · `flock` and `lock_order` (locks) ·
//! `lock_table` (the same, for who may not open them) · `own_folder` (what a recipe shut) · `tree`, `tree_walk`, `tree_step` and `tree_left` (how a folder goes) ·
//! `which` (which file something is) · `random` · `below` and `way_up` (how deep ones are walked) · `error`. Nothing here knows what a task is. Invariant: everything goes through an open
//! folder and one component's name, so no link that is planted in between can lead elsewhere.

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
