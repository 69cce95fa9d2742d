//! How a spool is opened, made, and told from its copies.
//!
//! In reading order: `error` (why not) · `spool` (an open one) · `settings_file` and `set` (what is set) · `root_lock`
//! (who may change a file of the root) · `opening` · `identity` and `pause` (which spool it is, and whether it starts
//! anything) · `init`, `modes` and `group` (how one is made, and who may do what in it) · `above` (the folders above).
//! Not what is in a spool. Invariant: nothing in another user's folder is changed.

mod above;
mod error;
mod group;
mod identity;
mod init;
mod modes;
mod opening;
mod pause;
mod root_lock;
mod set;
mod settings_file;
mod spool;

pub use above::Exposed;
pub use error::OpenError;
pub use group::group_id;
pub use identity::PathLeads;
pub use pause::Pause;
pub(in crate::spool) use settings_file::{StoredSettings, read_older_settings, stored_settings};
pub use spool::Spool;
