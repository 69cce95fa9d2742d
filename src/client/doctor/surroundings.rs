//! The input of a check, besides the spool.
//!
//! Not the environment: its values are passed in as options. Invariant: everything here is borrowed.

use std::path::Path;

use crate::client::open::Client;

/// The client, and the options of the call.
pub(super) struct Surroundings<'a> {
    pub client: &'a Client,
    /// The user's default spool.
    pub default_spool: Option<&'a Path>,
    /// The folder of the program that runs tasks.
    pub tools: Option<&'a Path>,
}
