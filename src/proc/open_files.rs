//! The files that the processes of a user have open.
//!
//! Not the conclusion from them (`spool/convert/running.rs`). Invariant: a process that ends during the scan,
//! or that the kernel does not show to this user, is left out.

use std::collections::HashMap;
use std::io;

use super::evidence::real_uid_of;
use super::table::{numbers, numbers_in};

/// The mode bit of a set-user-id program.
const SET_USER_ID: u32 = 0o4000;

/// Device and inode of each open file and folder, with the pid of a process that has it open. This process is
/// left out.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn open_files(uid: u32) -> io::Result<HashMap<(u64, u64), i32>> {
    let us = std::process::id().cast_signed();
    let mut open = HashMap::new();
    for pid in numbers()? {
        if pid == us || !acts_for(pid, uid) {
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

/// Whether a user started a process. The owner of `/proc/<pid>` does not show this: for a set-user-id
/// program, and for a process that requests it, the owner is root. The real user is not enough either: some
/// set-user-id programs change it to root, and their starter may have opened and locked files before.
pub fn acts_for(pid: i32, uid: u32) -> bool {
    let program = rustix::fs::stat(format!("/proc/{pid}/exe"));
    let has_others_rights = program.is_ok_and(|stat| stat.st_mode & SET_USER_ID != 0);
    !has_others_rights && real_uid_of(pid) == Some(uid)
}
