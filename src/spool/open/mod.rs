//! How a spool is opened, created, and distinguished from its copies.
//!
//! In reading order: `error` (why a spool cannot be used) · `spool` (an open spool) · `settings_file` and
//! `set` (the settings) · `root_lock` (which process may change a file of the root) · `opening` · `identity`
//! and `pause` (which spool it is, and whether it starts tasks) · `init`, `modes` and `group` (how a spool is
//! created, and who may do what in it) · `breach` and `above` (whether others can write in the spool, or put
//! another folder in its place). Not what is in a spool. Invariant: nothing in another user's folder is
//! changed.

mod above;
mod breach;
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
pub use breach::Breach;
pub use error::OpenError;
pub use group::group_id;
pub use identity::PathLeads;
pub use pause::Pause;
pub(in crate::spool) use settings_file::{StoredSettings, read_older_settings, stored_settings};
pub use spool::Spool;
