//! The overflow ids: the kernel shows them for every user and group that a user namespace or an idmapped
//! mount does not map.
//!
//! Not the identity of a user. Invariant: an overflow id may mean many users, so it never proves who a user
//! is, even if an account has this id.

use std::sync::OnceLock;

/// The id if `/proc` does not show it.
const DEFAULT: u32 = 65_534;

/// Whether a uid is the overflow id, which means any user who is not mapped here.
pub fn is_nobody(uid: u32) -> bool {
    static UID: OnceLock<u32> = OnceLock::new();
    uid == *UID.get_or_init(|| read("/proc/sys/kernel/overflowuid"))
}

/// Whether a gid is the overflow id, which means any group that is not mapped here.
pub fn is_no_group(gid: u32) -> bool {
    static GID: OnceLock<u32> = OnceLock::new();
    gid == *GID.get_or_init(|| read("/proc/sys/kernel/overflowgid"))
}

fn read(file: &str) -> u32 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT)
}
