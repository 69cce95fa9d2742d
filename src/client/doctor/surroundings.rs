//! What a check may ask besides the spool.
//!
//! Not the environment: whatever comes from it was an option. Invariant: everything here is borrowed.

use std::path::Path;

use crate::client::open::Client;

/// The client, and the options of the call.
pub(super) struct Surroundings<'a> {
    pub client: &'a Client,
    /// The spool that this user has by default.
    pub default_spool: Option<&'a Path>,
    /// The folder of the program that runs tasks.
    pub tools: Option<&'a Path>,
}
