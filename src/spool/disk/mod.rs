//! The file system as the spool uses it: folders by handles, files that are whole, locks, and trees that go.
//!
//! `dir` (open folders) · `write` (how a file comes to be) · `file_system` (what reaches the disk) · `flock` (locks) ·
//! `lock_table` (the same, for who may not open them) · `own_folder` (what a recipe shut) · `tree` (how a folder goes) ·
//! `below` and `way_up` (how deep ones are walked) · `error`. Nothing here knows what a task is. Invariant: everything goes through an open
//! folder and one component's name, so no link that is planted in between can lead elsewhere.

mod below;
mod dir;
mod error;
mod file_system;
mod flock;
pub(super) mod lock_table;
mod own_folder;
mod tree;
mod way_up;
mod write;

pub(in crate::spool) use below::*;
pub(in crate::spool) use dir::LOCK_MODE;
pub use dir::{Dir, Making, absent_is_none};
pub use error::{IoError, IoResult};
pub(in crate::spool) use file_system::network_kind;
pub use flock::{Flock, Guard};
pub(in crate::spool) use tree::{Removed, mounted};

/// 128 random bits from the kernel.
pub(in crate::spool) fn random_bits() -> u128 {
    let mut bytes = [0u8; 16];
    // getrandom(2) without flags cannot fail or come short for 16 bytes on Linux >= 5.6.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u128::from_le_bytes(bytes)
}
