//! Turns drops into tasks: when each drop is checked, the decision about it, and whether its recipe can
//! run.
//!
//! Does not access the drop box itself (`spool/`). Invariant: a drop becomes one task or one refusal, or
//! stays in the drop box.

mod admit;
mod box_memory;
mod judge;
mod recipe_check;
mod rounds;

pub(crate) use admit::Admitter;
