//! Which files the processes of a user have open.
//!
//! Not what that means (`spool/convert/running.rs`). Invariant: a process that ends meanwhile, or that the
//! kernel does not show to this user, is left out.

use std::collections::HashMap;
use std::io;

use super::{numbers, numbers_in};

/// Device and inode of each open file and folder, and the number of a process that has it open. This
/// process is left out.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn open_files(uid: u32) -> io::Result<HashMap<(u64, u64), i32>> {
    let us = std::process::id().cast_signed();
    let mut open = HashMap::new();
    for pid in numbers()? {
        if pid == us || owner_of(pid) != Some(uid) {
            continue;
        }
        let folder = format!("/proc/{pid}/fd");
        for number in numbers_in(&folder).unwrap_or_default() {
            if let Ok(stat) = rustix::fs::stat(format!("{folder}/{number}")) {
                open.insert((stat.st_dev, stat.st_ino), pid);
            }
        }
    }
    Ok(open)
}

/// Whose process it is; `None` where it is gone.
pub fn owner_of(pid: i32) -> Option<u32> {
    let stat = rustix::fs::stat(format!("/proc/{pid}")).ok()?;
    Some(stat.st_uid)
}
