//! Evidence of which task a process belongs to: its environment, user, cgroup, current folder and open files.
//!
//! Not the decision (`ending/search.rs`). Invariant: each result shows whether it is a fact or could not be
//! read. A process whose main thread has ended is read through a thread that still runs.
#![expect(clippy::disallowed_methods, reason = "/proc is not the spool")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::table::{Entry, is_absent, read, read_text};

/// The environment of a process.
#[derive(Debug)]
pub enum Environment {
    /// The whole environment. Each entry ends with a zero byte. Empty if the process cleared it.
    Is(Vec<u8>),
    /// The process is executing another program or exiting at this moment.
    Changes,
    /// The kernel does not show it to this user: the process belongs to another user, or changed its
    /// privileges.
    Refused,
    /// The process is a kernel thread.
    Kernel,
    /// The process has ended.
    Gone,
}

/// Reads the environment with which a process was executed.
///
/// # Errors
/// Reading failed for a reason in this process, such as too many open files.
pub fn environment(entry: &Entry) -> io::Result<Environment> {
    if entry.session == 0 && (entry.parent == 0 || entry.parent == 2) {
        return Ok(Environment::Kernel);
    }
    let of = |file: &str| read(path(entry, file));
    match of("environ") {
        Ok(environ) if !environ.is_empty() => Ok(Environment::Is(environ)),
        Ok(_) => match of("cmdline") {
            Ok(arguments) if !arguments.is_empty() => Ok(Environment::Is(Vec::new())),
            _ => Ok(Environment::Changes),
        },
        Err(error) if is_absent(&error) => Ok(Environment::Gone),
        Err(error) if is_refused(&error) => Ok(Environment::Refused),
        Err(error) => Err(error),
    }
}

fn path(entry: &Entry, file: &str) -> String {
    let (pid, thread) = (entry.key.pid, entry.thread);
    format!("/proc/{pid}/task/{thread}/{file}")
}

fn is_refused(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno == Some(Errno::ACCESS) || errno == Some(Errno::PERM)
}

/// The real user of a process, which executing a setuid program does not change. `None` if it cannot be read.
pub fn real_uid(entry: &Entry) -> Option<u32> {
    real_uid_in(&path(entry, "status"))
}

/// The real user of the process with this pid, which may have been reused. `None` if it cannot be read.
pub fn real_uid_of(pid: i32) -> Option<u32> {
    real_uid_in(&format!("/proc/{pid}/status"))
}

fn real_uid_in(status: &str) -> Option<u32> {
    // Not read as text, because the process's name may have any bytes.
    let status = read(status).ok()?;
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let line = std::str::from_utf8(line).ok()?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether a process is in another user namespace that maps this user. Also true if that cannot be read.
pub fn is_in_namespace_of(entry: &Entry, uid: u32) -> bool {
    let own = read_text("/proc/self/uid_map");
    match read_text(path(entry, "uid_map")) {
        Some(map) => Some(&map) != own.as_ref() && has_user(&map, uid),
        None => true,
    }
}

/// Whether a `uid_map` maps a user outside of the namespace. Also true for a map that cannot be parsed.
fn has_user(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u32> = line
            .split_ascii_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [_, first, count] = numbers[..] else {
            return true;
        };
        uid.checked_sub(first).is_some_and(|at| at < count)
    })
}

/// The version 2 cgroup of a process, as seen from this process's cgroup namespace. `None` if there is none
/// or it cannot be read.
pub fn cgroup_of(entry: &Entry) -> Option<String> {
    let groups = read_text(path(entry, "cgroup"))?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(str::to_owned)
}

/// The short name of a process. Empty if it cannot be read.
pub fn name_of(entry: &Entry) -> Vec<u8> {
    let name = read(path(entry, "comm")).unwrap_or_default();
    name.trim_ascii_end().to_owned()
}

/// Whether `/proc` hides processes from this one, so that a process that is not listed may still run.
pub fn hides_processes() -> bool {
    let mounts = read_text("/proc/self/mountinfo").unwrap_or_default();
    let last = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some("/proc"));
    let options = last.and_then(|line| line.rsplit(' ').next());
    options.is_some_and(|options| {
        let mut each = options.split(',');
        each.any(|option| {
            option.starts_with("hidepid=") && option != "hidepid=0" && option != "hidepid=off"
        })
    })
}

/// The current path of an open folder, without links. `None` if `/proc` does not show it.
pub fn path_of(folder: &impl AsFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())).ok()
}

/// Whether a process has its current folder or its output in this folder or below it. This is evidence of its
/// task if its environment does not show it. Device and inode are compared, because another folder may have
/// the same path in another mount, such as that of a container or a snapshot.
pub fn is_at(entry: &Entry, folder: &impl AsFd) -> bool {
    let Ok(wanted) = rustix::fs::fstat(folder).map(|stat| which(&stat)) else {
        return false;
    };
    is_below(&path(entry, "cwd"), wanted) || prints_below(entry, folder)
}

/// Whether the stdout or stderr of a process is a file in this folder or below it.
fn prints_below(entry: &Entry, folder: &impl AsFd) -> bool {
    path_of(folder).is_some_and(|folder| {
        ["fd/1", "fd/2"]
            .iter()
            .any(|output| writes_below(&path(entry, output), &folder))
    })
}

/// Whether the stdout or stderr of a process is one of these files of a folder.
pub fn prints_into(entry: &Entry, folder: &impl AsFd, names: &[&str]) -> bool {
    let Some(folder) = path_of(folder) else {
        return false;
    };
    ["fd/1", "fd/2"].iter().any(|output| {
        let open = path(entry, output);
        names
            .iter()
            .any(|name| writes_below(&open, &folder.join(name)))
    })
}

/// Whether a process has one of these files open. `None` if that cannot be read.
pub fn writes_to(entry: &Entry, files: &[&File]) -> Option<bool> {
    let wanted: Vec<(u64, u64)> = files
        .iter()
        .filter_map(|file| rustix::fs::fstat(file).ok())
        .map(|stat| which(&stat))
        .collect();
    let folder = path(entry, "fd");
    let open = super::table::numbers_in(&folder).ok()?;
    Some(open.into_iter().any(|number| {
        let stat = rustix::fs::stat(format!("{folder}/{number}"));
        stat.is_ok_and(|stat| wanted.contains(&which(&stat)))
    }))
}

/// Whether a process has a file open for writing that is in this folder or below it, or was until it was
/// removed.
pub fn has_open_to_write(entry: &Entry, folder: &impl AsFd) -> bool {
    let (Some(path_here), Ok(here)) = (path_of(folder), rustix::fs::fstat(folder)) else {
        return false;
    };
    let open = super::table::numbers_in(&path(entry, "fd")).unwrap_or_default();
    open.into_iter().any(|number| {
        let open = path(entry, &format!("fd/{number}"));
        let is_there = || {
            // The path of a removed file is its last path.
            let is_removed = rustix::fs::stat(&open)
                .is_ok_and(|stat| stat.st_nlink == 0 && stat.st_dev == here.st_dev);
            is_removed || writes_below(&open, &path_here)
        };
        std::fs::read_link(&open).is_ok_and(|path| path.starts_with(&path_here))
            && is_for_writing(entry, number)
            && is_there()
    })
}

fn is_for_writing(entry: &Entry, descriptor: i32) -> bool {
    const HOW: u32 = 0o3;
    let info = read_text(path(entry, &format!("fdinfo/{descriptor}"))).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & HOW != 0)
}

fn which(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Compares each folder from a process's current folder up to its root.
fn is_below(cwd: &str, wanted: (u64, u64)) -> bool {
    const HIGHEST: usize = 4096;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
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

/// Whether an open file of a process is below a folder, and is also the file at its path as seen from here.
fn writes_below(open: &str, folder: &Path) -> bool {
    let Ok(path) = std::fs::read_link(open) else {
        return false;
    };
    let (there, theirs) = (rustix::fs::stat(&path), rustix::fs::stat(open));
    path.starts_with(folder)
        && there.is_ok_and(|there| theirs.is_ok_and(|theirs| which(&there) == which(&theirs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_map_maps_the_users_outside_that_it_lists() {
        for (map, uid, expected) in [
            (
                "         0       1000          1\n         1     100000      65536\n",
                1000,
                true,
            ),
            (
                "         0       1000          1\n         1     100000      65536\n",
                1001,
                false,
            ),
            ("         0     100000      65536\n", 165_535, true),
            ("         0     100000      65536\n", 165_536, false),
            ("         0 4294967295          1\n", 1000, false),
            ("odd\n", 1000, true),
            ("", 1000, false),
        ] {
            assert_eq!(has_user(map, uid), expected, "{map} {uid}");
        }
    }
}
