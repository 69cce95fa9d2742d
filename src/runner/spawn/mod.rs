//! Starts the recipe's process without copying this one first.
//!
//! Does not build its command (`command.rs`), limit the time of a start (`start.rs`) or end it
//! (`group.rs`). `fork` copies the page tables of the runner, and both processes then fault on every page
//! they touch. That cost a short task more than a tenth of its time
//! (docs/design/0011-starting-without-a-copy.md). Here the child borrows the runner's memory until it is
//! the recipe, as with `posix_spawn`, which does not support the settings needed here. If the runner has
//! a cgroup, the child is created in it: entering a cgroup later stops all forks of the machine for some
//! milliseconds.
//!
//! What the child reads is built beforehand (`plan.rs`). All unsafe calls are in one file (`sys.rs`).
//! `begin.rs` uses both.
//! Invariants: until it executes the program, the child only makes system calls, and no signal handler of
//! the runner runs in it; memory that it borrows stays valid until the kernel reports that the child has
//! left it.

mod begin;
mod plan;
mod sys;

pub(super) use begin::{SpawnError, Start};
pub(super) use plan::Setting;
