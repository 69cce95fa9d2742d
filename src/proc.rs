//! What the kernel tells about processes: `/proc`, read and never written.
//!
//! Not the killing (`runner/group.rs`). A number alone is never trusted: a pid counts only
//! together with its start time (SPOOL-SAFETY hazard 45). Invariant: whatever cannot be read is
//! "not there", because a process may leave between any two lines of this file.
#![expect(clippy::disallowed_methods, reason = "/proc is not the spool")]

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number, within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The number.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot.
    pub start: u64,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Who.
    pub key: ProcessKey,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Whether it has ended and only waits to be reaped.
    pub is_zombie: bool,
}

/// Reads a small text file; `None` when it cannot be read.
pub fn read_text(path: impl AsRef<Path>) -> Option<String> {
    // Files of /proc have no size to go by; with a page at hand nearly all take one read.
    let mut bytes = Vec::with_capacity(4096);
    let mut file = std::fs::File::open(path).ok()?;
    file.read_to_end(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

/// The inode of this process's pid namespace, as text; empty where `/proc` does not say.
pub fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

/// This process.
pub fn own_key() -> ProcessKey {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    entry(pid).map_or(ProcessKey { pid, start: 0 }, |entry| entry.key)
}

/// What is known of one process.
pub fn entry(pid: i32) -> Option<Entry> {
    parse_stat(&read_text(format!("/proc/{pid}/stat"))?)
}

/// Reads a line as in `/proc/<pid>/stat`.
pub fn parse_stat(text: &str) -> Option<Entry> {
    let pid = text.split(' ').next()?.parse().ok()?;
    // The second field is the program's name in parentheses and may hold anything, also ") ".
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Entry {
        key: ProcessKey {
            pid,
            start: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Whether exactly this process is still there and not a zombie.
pub fn is_alive(key: ProcessKey) -> bool {
    entry(key.pid).is_some_and(|entry| entry.key == key && !entry.is_zombie)
}

/// Every process that can be seen.
pub fn all() -> Vec<Entry> {
    numbers().into_iter().filter_map(entry).collect()
}

/// The numbers of all processes, in no promised order.
fn numbers() -> Vec<i32> {
    let Ok(listing) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    listing
        .filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// All descendants of this process, zombies left out.
pub fn descendants() -> Vec<Entry> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let table = all();
    let mut family = vec![me];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        for entry in table.iter().filter(|entry| entry.parent == parent) {
            family.push(entry.key.pid);
            if !entry.is_zombie {
                found.push(*entry);
            }
        }
    }
    found
}

/// The direct children of this process's main thread, zombies included. `None` on kernels without
/// `CONFIG_PROC_CHILDREN`.
pub fn children() -> Option<Vec<i32>> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let text = read_text(format!("/proc/self/task/{me}/children"))?;
    Some(
        text.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
    )
}

/// What a look through all environments found.
#[derive(Debug, Default)]
pub struct Look {
    /// Every process whose environment holds the entry.
    pub found: Vec<Entry>,
    /// Whether none went away, or was just becoming another program, before its environment could
    /// be read. One that did may have left a child that was not there yet when the others were
    /// listed, so that finding nothing proves nothing.
    pub is_whole: bool,
}

/// Looks for processes whose environment holds exactly the entry `NAME=value`; this process left
/// out. Only processes of the same user can be read, or all of them by root.
pub fn with_environment(name: &str, value: &str) -> Look {
    let wanted = format!("{name}={value}").into_bytes();
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let mut look = Look {
        found: Vec::new(),
        is_whole: true,
    };
    for pid in numbers().into_iter().filter(|pid| *pid != me) {
        let Some(entry) = entry(pid) else {
            look.is_whole = false;
            continue;
        };
        if entry.is_zombie {
            continue;
        }
        match std::fs::read(format!("/proc/{pid}/environ")) {
            // The kernel's own threads have none, and are in no session.
            Ok(environ) if environ.is_empty() => look.is_whole &= entry.session == 0,
            Ok(environ) => {
                if environ.split(|b| *b == 0).any(|item| item == wanted) {
                    look.found.push(entry);
                }
            }
            // Somebody else's, and stays so.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(_) => look.is_whole = false,
        }
    }
    look
}

/// Where an open folder stands now, without links; `None` where `/proc` does not tell.
pub fn path_of(folder: &impl AsFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())).ok()
}

/// Whether a process stands in this folder or below it, or has its output there: evidence for whose
/// it is when its environment does not say. Device and inode are compared: in another mount, as that
/// of a container or a snapshot, another folder may have the same path.
pub fn is_at(pid: i32, folder: &impl AsFd) -> bool {
    let Ok(wanted) = rustix::fs::fstat(folder).map(|stat| which(&stat)) else {
        return false;
    };
    stands_below(pid, wanted)
        || path_of(folder).is_some_and(|path| {
            ["fd/1", "fd/2"]
                .iter()
                .any(|output| writes_below(&format!("/proc/{pid}/{output}"), &path))
        })
}

fn which(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Looks from a process's current folder up to its root.
fn stands_below(pid: i32, wanted: (u64, u64)) -> bool {
    const HIGHEST: usize = 4096;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cwd = format!("/proc/{pid}/cwd");
    let Ok(mut folder) = rustix::fs::open(cwd, flags, Mode::empty()) else {
        return false;
    };
    let mut last = None;
    for _ in 0..HIGHEST {
        let Ok(here) = rustix::fs::fstat(&folder).map(|stat| which(&stat)) else {
            return false;
        };
        if here == wanted {
            return true;
        }
        // The root is its own parent.
        if last == Some(here) {
            return false;
        }
        last = Some(here);
        match rustix::fs::openat(&folder, "..", flags, Mode::empty()) {
            Ok(above) => folder = above,
            Err(_) => return false,
        }
    }
    false
}

/// Whether an open file of a process is the one that stands under its path here, below a folder.
fn writes_below(open: &str, folder: &Path) -> bool {
    let Ok(path) = std::fs::read_link(open) else {
        return false;
    };
    let (there, theirs) = (rustix::fs::stat(&path), rustix::fs::stat(open));
    path.starts_with(folder)
        && there.is_ok_and(|there| theirs.is_ok_and(|theirs| which(&there) == which(&theirs)))
}

/// A handle on exactly this process; `None` when it has gone or another one has its number.
pub fn open(key: ProcessKey) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(key.pid)?;
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // Looked at after the handle was taken: from here on the number cannot be given away unseen.
    (entry(key.pid)?.key == key).then_some(fd)
}
