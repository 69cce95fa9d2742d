//! Whether all is well with a spool, and what to do where it is not.
//!
//! `examine` has the list of checks, `check` the form of an answer; each other file holds checks of a kind. Not how
//! they are shown. Invariants: looking changes nothing; a check that cannot be made is a problem, never left out in
//! silence.

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
