//! The drop box: files that become tasks, or are refused with a reason.
//!
//! In reading order: `box_listing` and `box_entry` (what is in the box) · `drop_file` and `drop_read` (one
//! drop) · `drop_claim` (where a drop is while it is admitted) · `chosen_id` · `incoming` (how a drop becomes
//! a task) · `replay` (after a watcher was killed) · `refusing` and `rejected` (how a drop is refused) ·
//! `control` (requests about tasks) · `submit_drop` (how a user of the group puts a file there) · `unnamed`
//! (files left half-written). Not how often the box is read (`watcher/`). Invariant: nothing that another
//! user put here is followed, waited for or deleted.

mod box_entry;
mod box_listing;
mod chosen_id;
mod control;
mod drop_claim;
mod drop_file;
mod drop_read;
mod incoming;
mod refusing;
mod rejected;
mod replay;
mod submit_drop;
mod unnamed;

pub use box_listing::InBox;
pub use chosen_id::Rules;
pub(in crate::spool) use chosen_id::is_young;
pub use control::{ControlFile, Controlled};
pub(in crate::spool) use drop_claim::ClaimPlace;
pub use drop_file::DropFile;
pub(in crate::spool) use drop_read::has_access_list;
pub use drop_read::{DropRefusal, Fingerprint, Pickup};
pub use incoming::Admission;
pub use rejected::Reason;
pub(in crate::spool) use rejected::{
    DEEPEST, is_of_conversion, reason_beside, reason_file, strange_below,
};
