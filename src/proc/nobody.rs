//! The numbers that the kernel gives for every user and group that a user namespace, or an idmapped mount, does
//! not have.
//!
//! Not who a user is. Invariant: such a number stands for many users, so it proves nobody, also where a user has
//! it by name.

use std::sync::OnceLock;

/// Where `/proc` does not say.
const DEFAULT: u32 = 65_534;

/// Whether a uid stands for any user who is not known here.
pub fn is_nobody(uid: u32) -> bool {
    static UID: OnceLock<u32> = OnceLock::new();
    uid == *UID.get_or_init(|| read("/proc/sys/kernel/overflowuid"))
}

/// Whether a gid stands for any group that is not known here.
pub fn is_no_group(gid: u32) -> bool {
    static GID: OnceLock<u32> = OnceLock::new();
    gid == *GID.get_or_init(|| read("/proc/sys/kernel/overflowgid"))
}

fn read(file: &str) -> u32 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT)
}
