//! A cgroup for the processes that a runner starts: the kernel's own list of them. A process cannot leave it
//! by forking.
//!
//! It is used only if this process can create it directly: as root, or in a part of the tree that was
//! delegated to this user (`Delegate=yes`). No controller is used and no limit is set. Each runner has one
//! such cgroup. It is a child of the runner's own cgroup, is named after the runner's pid and start time, and
//! is reused while it is empty. Not the decision what to kill (`runner/group.rs`). Invariants: the runner
//! itself is never in it, so that every process in it belongs to a task. Only that runner kills its
//! processes, or another process once that runner is known to have ended.
#![expect(
    clippy::disallowed_methods,
    reason = "the cgroup tree is not the spool"
)]

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::table::{ProcessKey, is_alive, read_text};

/// The prefix of the names.
const PREFIX: &str = "agentspool.";
/// The type of the cgroup file system in statfs(2) (`CGROUP2_SUPER_MAGIC` in `linux/magic.h`).
const MAGIC: u64 = 0x6367_7270;

/// An open cgroup of a runner.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
    was_killed: Cell<bool>,
}

impl Cgroup {
    /// Creates the cgroup of this runner below the runner's own cgroup. `None` if it cannot be created.
    pub fn make(runner: ProcessKey) -> Option<Cgroup> {
        if runner.start == 0 {
            return None;
        }
        let path = own_folder()?.join(name_of(runner));
        // An existing one belongs to a runner in another pid namespace.
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).ok()?;
        open(path).ok()
    }

    /// Opens the cgroup of a runner that may have ended. `None` if it does not exist: then it has no
    /// processes, or the path is valid only in another mount namespace.
    ///
    /// # Errors
    /// It cannot be opened, or the folder at the path is not a cgroup of this runner.
    pub fn find(path: &Path, runner: ProcessKey) -> io::Result<Option<Cgroup>> {
        if path.file_name() != Some(OsStr::new(&name_of(runner))) {
            return Err(io::Error::other(
                "its name is that of another runner's cgroup",
            ));
        }
        match open(path.to_owned()) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(error) if super::table::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its path. A later runner finds it by this path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was killed before. Linux 6.6 and newer then kill every process that a process of another
    /// cgroup starts in it, so the caller must create another cgroup.
    pub fn was_killed(&self) -> bool {
        self.was_killed.get()
    }

    /// Kills all processes in it and below. The caller repeats this until it is empty.
    ///
    /// # Errors
    /// The kernel refused the write.
    pub fn kill(&self) -> io::Result<()> {
        let is_first = !self.was_killed.replace(true);
        match self.write("cgroup.kill", b"1") {
            // Before Linux 5.14.
            Err(Errno::NOENT) => self.kill_each(),
            // `cgroup.kill` signals main threads only, so it misses a process whose main thread has ended.
            Ok(()) if !is_first => self.kill_each(),
            written => Ok(written?),
        }
    }

    /// Kills one process after another. Frozen processes cannot fork, and their pids cannot be reused.
    fn kill_each(&self) -> io::Result<()> {
        self.write("cgroup.freeze", b"1")?;
        let killed = below(&self.path).into_iter().try_for_each(|folder| {
            let listed = read_text(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in listed.lines().filter_map(|pid| pid.parse().ok()) {
                match Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL))
                {
                    None | Some(Ok(()) | Err(Errno::SRCH)) => {}
                    Some(Err(errno)) => return Err(io::Error::from(errno)),
                }
            }
            Ok(())
        });
        self.write("cgroup.freeze", b"0")?;
        killed
    }

    /// Whether there is no process in it or below. A zombie does not count.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        let events = self.read("cgroup.events")?;
        let mut lines = events.lines();
        lines
            .find_map(|line| line.strip_prefix("populated "))
            .map(|populated| populated.trim() == "0")
            .ok_or_else(|| io::Error::other("cgroup.events has no line `populated`"))
    }

    fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        rustix::io::write(&file, bytes).map(drop)
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, file, flags, Mode::empty())?;
        io::read_to_string(std::fs::File::from(file))
    }
}

impl Drop for Cgroup {
    /// Removes it with the cgroups that a recipe created below it. A cgroup that is not empty stays.
    fn drop(&mut self) {
        remove_folder(&self.path);
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

fn name_of(runner: ProcessKey) -> String {
    format!("{PREFIX}{}.{}", runner.pid, runner.start)
}

fn key_of(name: &str) -> Option<ProcessKey> {
    let (pid, start) = name.strip_prefix(PREFIX)?.split_once('.')?;
    Some(ProcessKey {
        pid: pid.parse().ok()?,
        start: start.parse().ok()?,
    })
}

fn open(path: PathBuf) -> io::Result<Cgroup> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&path, flags, Mode::empty())?;
    if rustix::fs::fstatfs(&dir)?.f_type as u64 != MAGIC {
        return Err(io::Error::other("it is not a cgroup"));
    }
    Ok(Cgroup {
        path,
        dir,
        was_killed: Cell::new(false),
    })
}

/// The name of this process's version 2 cgroup, for comparison with those of other processes.
pub fn own_cgroup() -> Option<String> {
    let groups = read_text("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(str::to_owned)
}

/// The folder of this process's cgroup, if the tree is mounted. The last mount hides earlier ones.
fn own_folder() -> Option<PathBuf> {
    let own = own_cgroup()?;
    let mounts = read_text("/proc/self/mountinfo")?;
    mounts.lines().rev().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
        let below = Path::new(&own).strip_prefix(&root).ok()?;
        Some(Path::new(&at).join(below))
    })
}

/// Decodes a path in mountinfo, where spaces and backslashes are three octal digits (proc(5)).
pub fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if *first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Removes empty cgroups of runners that have ended, next to that of this process.
pub fn remove_left_cgroups() {
    let Some(own) = own_folder() else { return };
    for folder in folders_in(&own) {
        let name = folder.file_name().and_then(OsStr::to_str);
        let is_left = name
            .and_then(key_of)
            .is_some_and(|runner| matches!(is_alive(runner), Ok(false)));
        if is_left {
            remove_folder(&folder);
        }
    }
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    listing
        .filter_map(Result::ok)
        .filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|item| item.path())
        .collect()
}

/// A cgroup and all cgroups below it, parents first.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        found.extend(folders_in(&folder));
        next += 1;
    }
    found
}

/// Removes a cgroup if it is empty. The kernel refuses to remove any other one, so trying is safe.
fn remove_folder(folder: &Path) {
    for folder in below(folder).iter().rev() {
        let _ = rustix::fs::unlinkat(rustix::fs::CWD, folder, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_contains_pid_and_start_of_the_runner() {
        let runner = ProcessKey { pid: 12, start: 34 };
        assert_eq!(key_of(&name_of(runner)), Some(runner));
        assert_eq!(key_of("agentspool.12"), None);
        assert_eq!(key_of("system.slice"), None);
    }

    #[test]
    fn the_cgroup_of_another_runner_is_refused() {
        let runner = ProcessKey { pid: 12, start: 34 };
        assert!(Cgroup::find(Path::new("/sys/fs/cgroup/agentspool.1.2"), runner).is_err());
        assert!(Cgroup::find(Path::new("/"), runner).is_err());
    }

    #[test]
    fn escapes_in_mountinfo_are_decoded() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\0"), Path::new(r"/a\0"));
    }
}
