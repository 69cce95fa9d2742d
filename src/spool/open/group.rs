//! Groups of users: the number of one by its name.
//!
//! Not which modes a group gets (`modes.rs`). Invariant: the number that means "leave the group as it is" to the
//! kernel is never given.

use super::error::OpenError;

/// The number of a group by its name, from `/etc/group`.
pub fn group_id(name: &str) -> Result<u32, OpenError> {
    match name.parse() {
        // To the kernel it means: leave the group as it is.
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
