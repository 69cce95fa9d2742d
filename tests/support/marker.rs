//! The marker of a task that may not be durable, as docs/spool-format.md describes it.
//!
//! It does not ask the program, so that both cannot be wrong in the same way.

use std::fs;
use std::path::PathBuf;

use super::{Task, names_in};

/// The kernel's id of a boot that is not this one.
pub const OTHER_BOOT: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

/// The kernel's id of this boot.
pub fn this_boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    boot.trim().to_owned()
}

/// FNV-1a over the id, and over the length and the bytes of the three files.
fn digest(task: &Task) -> u64 {
    let mut bytes = task.id.clone().into_bytes();
    for file in ["request.json", "env.json", "origin.json"] {
        let content = fs::read(task.path.join(file)).ok();
        let length = content
            .as_ref()
            .map_or(u64::MAX, |content| content.len() as u64);
        bytes.extend(length.to_le_bytes());
        bytes.extend(content.unwrap_or_default());
    }
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Puts the marker of a boot into a task's folder, for the files as they are now.
pub fn put_marker(task: &Task, boot: &str) -> PathBuf {
    let marker = task.path.join(format!(".new.{boot}.{:016x}", digest(task)));
    fs::hard_link(task.path.join("lock"), &marker).unwrap();
    marker
}

/// The names of a task's markers.
pub fn markers(task: &Task) -> Vec<String> {
    let mut names = names_in(&task.path);
    names.retain(|name| name.starts_with(".new."));
    names
}
