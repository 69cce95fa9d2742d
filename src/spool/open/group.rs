//! Groups of users: finds the number of a group by its name.
//!
//! Not which modes a group gets (`modes.rs`). Invariant: the number that means "do not change the group" to
//! the kernel is never returned.

use super::error::OpenError;

/// The number of a group by its name, from `/etc/group`. A number is returned as it is.
///
/// # Errors
/// [`OpenError::NoGroup`].
pub fn group_id(name: &str) -> Result<u32, OpenError> {
    match name.parse() {
        // For the kernel it means: do not change the group.
        Ok(u32::MAX) => return Err(OpenError::NoGroup(name.to_owned())),
        Ok(gid) => return Ok(gid),
        Err(_) => {}
    }
    let table = crate::proc::read_text("/etc/group").unwrap_or_default();
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| OpenError::NoGroup(name.to_owned()))
}
