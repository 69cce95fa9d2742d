//! A cgroup for what a runner starts: the kernel's own list of it, which nobody leaves by forking.
//!
//! Only where it can be had without asking: root, or a part of the tree that was given to us
//! (`Delegate=yes`). No controller is used and no limit is set. One runner has one, beside itself in
//! its own cgroup, named after its pid and start time; it is reused while it is empty. Invariants: the
//! runner itself is never in it, so that everything in it is a task's; and it is emptied only by that
//! runner, or once that runner is known to be dead.
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

/// What the names begin with.
const PREFIX: &str = "agentspool.";
/// Of the file system, as statfs(2) gives it (`CGROUP2_SUPER_MAGIC` in `linux/magic.h`).
const MAGIC: u64 = 0x6367_7270;

/// An open cgroup of a runner.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
    was_killed: Cell<bool>,
}

impl Cgroup {
    /// Makes the one of this runner, in the cgroup in which it is. `None` where none can be had.
    pub fn make(runner: ProcessKey) -> Option<Cgroup> {
        if runner.start == 0 {
            return None;
        }
        let path = own_folder()?.join(name_of(runner));
        // One that is there already is that of a runner in another pid namespace.
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).ok()?;
        open(path).ok()
    }

    /// Opens the one of a runner that may be dead. `None` when it is not there: nothing is in it then, or
    /// the path leads there only from another mount namespace.
    ///
    /// # Errors
    /// It cannot be opened, or what stands there is not a cgroup of this runner.
    pub fn find(path: &Path, runner: ProcessKey) -> io::Result<Option<Cgroup>> {
        if path.file_name() != Some(OsStr::new(&name_of(runner))) {
            return Err(io::Error::other(
                "it has the name of another runner's cgroup",
            ));
        }
        match open(path.to_owned()) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(error) if super::table::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its path, by which a later runner finds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was killed once. Linux 6.6 and newer kill whatever is born in it from then on, where it is
    /// made by a process of another cgroup, so another one is made.
    pub fn was_killed(&self) -> bool {
        self.was_killed.get()
    }

    /// Kills everything in it and below; to be called again while it is not empty.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kill(&self) -> io::Result<()> {
        let is_first = !self.was_killed.replace(true);
        match self.write("cgroup.kill", b"1") {
            // Before Linux 5.14.
            Err(Errno::NOENT) => self.kill_each(),
            // It signals main threads, and so leaves a process alone whose main thread has ended.
            Ok(()) if !is_first => self.kill_each(),
            written => Ok(written?),
        }
    }

    /// Process by process. What is frozen cannot fork, and its numbers cannot be given away.
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

    /// Whether no process is in it or below. A zombie is none.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn is_empty(&self) -> io::Result<bool> {
        let events = self.read("cgroup.events")?;
        let mut lines = events.lines();
        lines
            .find_map(|line| line.strip_prefix("populated "))
            .map(|populated| populated.trim() == "0")
            .ok_or_else(|| io::Error::other("cgroup.events does not say whether it is populated"))
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
    /// Removes it, with what a recipe made below it. One that is not empty stays.
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

/// The cgroup of version 2 in which this process is: its name, as other processes' are compared with.
pub fn own_cgroup() -> Option<String> {
    let groups = read_text("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(str::to_owned)
}

/// Its folder, where the tree is mounted here. The last mount hides those before.
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

/// Mountinfo writes blanks and backslashes as three octal digits (proc(5)).
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

/// Removes what dead runners left beside this process: their cgroups, where nothing is in them.
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

/// A cgroup and all below it, those above first.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        found.extend(folders_in(&folder));
        next += 1;
    }
    found
}

/// The kernel removes only one that is empty, so nothing can be lost by trying.
fn remove_folder(folder: &Path) {
    for folder in below(folder).iter().rev() {
        let _ = rustix::fs::unlinkat(rustix::fs::CWD, folder, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_names_its_runner() {
        let runner = ProcessKey { pid: 12, start: 34 };
        assert_eq!(key_of(&name_of(runner)), Some(runner));
        assert_eq!(key_of("agentspool.12"), None);
        assert_eq!(key_of("system.slice"), None);
    }

    #[test]
    fn a_path_of_another_runner_is_refused() {
        let runner = ProcessKey { pid: 12, start: 34 };
        assert!(Cgroup::find(Path::new("/sys/fs/cgroup/agentspool.1.2"), runner).is_err());
        assert!(Cgroup::find(Path::new("/"), runner).is_err());
    }

    #[test]
    fn escapes_of_mountinfo() {
        assert_eq!(unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescape(r"/a\0"), Path::new(r"/a\0"));
    }
}
