//! What is removed from a spool: finished tasks and leftovers.
//!
//! `clearing` (finished tasks) · `removal` (how a folder is removed) · `entries` (what removals left in the
//! trash) · `removed` (ids that must not be used again) · `staged`, `refused` and `sessions` (other things
//! that are removed) · `sweeping` (the lock and the clocks of a sweep). Not what is old enough
//! (`sweeper/plan.rs`). Invariant: nothing that a process may still build or use is removed.

mod clearing;
mod entries;
mod refused;
mod removal;
mod removed;
mod sessions;
mod staged;
mod sweeping;

pub use clearing::{Candidate, Cleared, Clearing, FinishedTask};
pub use sweeping::SweepClock;
