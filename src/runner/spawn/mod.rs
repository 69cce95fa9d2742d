//! Starting the recipe's process, without copying this one first.
//!
//! Not its command (`command.rs`), not how long a start may take (`start.rs`) and not its end
//! (`group.rs`). `fork` copies the page tables of
//! the runner, and both sides then fault for every page they touch, which cost a short task more than a
//! tenth of all its time (docs/design/0011-starting-without-a-copy.md); here the child borrows the runner's
//! memory until it is the recipe, as `posix_spawn` does, which has no room for our settings.
//! Where the runner has a cgroup, the child is born in it: to enter it later would stop all forks of the
//! machine for some milliseconds.
//!
//! What the child reads is made before (`plan.rs`); all calls that are not safe stand in one file (`sys.rs`);
//! `begin.rs` puts the two together.
//! Invariants: until it executes the program the child makes system calls and nothing else, and no
//! signal handler of the runner's ever runs in it; and what it borrows stays until the kernel says that
//! the child has left it.

mod begin;
mod plan;
mod sys;

pub(super) use begin::{SpawnError, Start};
pub(super) use plan::Setting;
