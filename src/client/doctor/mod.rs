//! Checks of a spool and its surroundings, with a hint for each problem.
//!
//! `examine` has the list of checks, and `check` the form of a result. Each other file holds checks of one
//! kind. Not how they are shown. Invariants: a check changes nothing, and a check that fails is reported as a
//! problem.

mod check;
mod disk;
mod examine;
mod launcher;
mod leftovers;
mod processes;
mod recipes;
mod surroundings;

pub use check::{Check, Verdict};
pub use examine::DoctorOptions;
pub(super) use launcher::launcher_problem;
