//! How drops become tasks: when each is looked at, what becomes of it, and whether its recipe can run.
//!
//! Not the drop box itself (`spool/`). Invariant: a drop becomes one task or one refusal, or stays in the box.

mod admit;
mod box_memory;
mod judge;
mod recipe_check;
mod rounds;

pub(crate) use admit::Admitter;
