//! Everything that a child reads between clone and exec, built before the child exists.
//!
//! Does not make the calls (`sys.rs`). Invariant: the lists own what they point to, and end in the way
//! that exec requires.

use std::ffi::{CString, OsStr, OsString, c_char, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::runner::command::Command;
use crate::runner::signals::{HANDLED, STOPPING};
use crate::spool::Files;

/// Where programs are searched for if there is no PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The settings that are applied between clone and exec.
#[derive(Debug)]
pub(in crate::runner) struct Setting<'a> {
    /// Its stdin, stdout and stderr.
    pub files: &'a Files,
    pub umask: u32,
    /// The file to which the child writes its line of `/proc` before it is the recipe.
    pub record: &'a File,
    /// Whether the cgroup belongs to this task alone.
    pub is_alone: bool,
    /// Signals that this process was started with ignored.
    pub ignored: &'a [c_int],
    /// The cgroup in which it is created.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Strings for exec, each made of pieces: one buffer, and the offset at which each string starts.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    begins: Vec<usize>,
}

/// The strings with a null pointer at the end, which is the form that exec takes.
pub(super) struct List {
    _bytes: Vec<u8>,
    pub pointers: Vec<*const c_char>,
}

impl Texts {
    /// Adds a string.
    ///
    /// # Errors
    /// It contains a zero byte, which ends a string for the kernel.
    fn push(&mut self, pieces: &[&OsStr]) -> io::Result<()> {
        self.begins.push(self.bytes.len());
        for piece in pieces {
            if piece.as_bytes().contains(&0) {
                let why = format!("{} contains a zero byte", Path::new(piece).display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            self.bytes.extend_from_slice(piece.as_bytes());
        }
        self.bytes.push(0);
        Ok(())
    }

    fn into_list(self) -> List {
        let begins = self.begins.iter();
        let texts = begins.map(|at| self.bytes[*at..].as_ptr().cast());
        List {
            pointers: texts.chain([ptr::null()]).collect(),
            // Moving it does not move what it points to.
            _bytes: self.bytes,
        }
    }
}

/// Everything that the child reads. It is built beforehand, because the child must not allocate memory.
/// The descriptors stay open until the start is over.
pub(super) struct Plan {
    /// Tried one after the other: one path, or one for each folder of PATH.
    pub programs: List,
    /// `/bin/sh`, the program and its arguments, for each program: what execvp(3) does with a
    /// script that names no interpreter.
    pub scripts: Vec<List>,
    pub arguments: List,
    pub environment: List,
    pub folder: CString,
    /// Become 0, 1 and 2.
    pub streams: [RawFd; 3],
    pub record: RawFd,
    pub cgroup: Option<RawFd>,
    pub is_alone: bool,
    /// Signals that are reset to their defaults.
    pub defaults: Vec<c_int>,
    pub runner: Pid,
    pub umask: Mode,
    /// The empty set of signals.
    pub none: libc::sigset_t,
    /// 1 while the child is in this process's memory. The kernel then writes 0 and wakes the waiting
    /// thread.
    pub borrows: AtomicU32,
    /// Whether the child has run at all.
    pub has_begun: AtomicBool,
    /// Why the child could not become the recipe, as an errno; 0 if there is no error. Written by the
    /// child, read once it has left this memory.
    pub failed: AtomicI32,
}

impl Plan {
    /// The plan of a command; `none` is the empty set of signals.
    ///
    /// # Errors
    /// A string contains a zero byte.
    pub fn new(
        command: &Command<'_>,
        setting: &Setting<'_>,
        none: libc::sigset_t,
    ) -> io::Result<Plan> {
        let arguments: Vec<&OsStr> = command.arguments.iter().map(OsString::as_os_str).collect();
        let mut programs = Texts::default();
        let mut scripts = Vec::new();
        for program in candidates(command)? {
            programs.push(&[program.as_os_str()])?;
            let shell = [OsStr::new("/bin/sh"), program.as_os_str()];
            scripts.push(list_of(shell.into_iter().chain(arguments.iter().copied()))?);
        }
        let mut environment = Texts::default();
        for (name, value) in &command.environment {
            environment.push(&[name, OsStr::new("="), value])?;
        }
        let files = setting.files;
        let streams = [&files.stdin, &files.stdout, &files.stderr].map(AsRawFd::as_raw_fd);
        if streams.iter().any(|stream| *stream <= libc::STDERR_FILENO) {
            // Rust keeps these three open from the start, so no other file is one of them.
            return Err(Errno::BADF.into());
        }
        let signals = STOPPING.into_iter().chain(HANDLED);
        Ok(Plan {
            programs: programs.into_list(),
            scripts,
            arguments: list_of([command.program.as_os_str()].into_iter().chain(arguments))?,
            environment: environment.into_list(),
            folder: CString::new(command.folder.as_os_str().as_bytes())?,
            streams,
            record: setting.record.as_raw_fd(),
            cgroup: setting.cgroup.map(|cgroup| cgroup.as_raw_fd()),
            is_alone: setting.is_alone,
            defaults: signals.chain(setting.ignored.iter().copied()).collect(),
            runner: rustix::process::getpid(),
            umask: Mode::from_raw_mode(setting.umask),
            none,
            borrows: AtomicU32::new(1),
            has_begun: AtomicBool::new(false),
            failed: AtomicI32::new(0),
        })
    }
}

/// The paths to try, as execvp(3) would with the recipe's own PATH.
fn candidates(command: &Command<'_>) -> io::Result<Vec<PathBuf>> {
    let program = &command.program;
    if program.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(vec![program.clone()]);
    }
    let search = command.environment.get(OsStr::new("PATH"));
    let search = search.map_or(OsStr::new(DEFAULT_PATH), |search| &**search);
    // An empty folder in PATH is the one in which the recipe runs.
    let folders = std::env::split_paths(search);
    Ok(folders
        .map(|folder| Path::new(".").join(folder).join(program))
        .collect())
}

fn list_of<'a>(texts: impl Iterator<Item = &'a OsStr>) -> io::Result<List> {
    let mut list = Texts::default();
    for text in texts {
        list.push(&[text])?;
    }
    Ok(list.into_list())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_byte_is_refused() {
        let refused = list_of([OsStr::new("a\0b")].into_iter());
        assert!(refused.is_err());
    }
}
