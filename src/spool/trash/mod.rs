//! What leaves a spool: finished tasks, and what is left of others.
//!
//! `clearing` (finished tasks) · `removal` (how a folder goes) · `entries` (what removals left in the trash) · `removed` (ids that do not
//! come again) · `staged`, `refused` and `sessions` (what else goes) · `sweeping` (who sweeps, and when last).
//! Not what is old enough (`sweeper/plan.rs`). Invariant: what somebody may still be building or using is left.

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
