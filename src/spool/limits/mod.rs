//! The limits of a spool: how many tasks run at once.
//!
//! Invariant: the kernel counts, by locked files.

mod slots;

pub use slots::Slot;
