//! The process table: one process, all of them, whether one lives, a signal to exactly one.
//!
//! Not children and orphans (`children.rs`), nor what else a process shows (`evidence.rs`). Invariant: a number counts only
//! together with a start time, and what cannot be read is an error, never "gone".

use std::io::{self, Read};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number, within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The number.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot. 0 where `/proc` could not be read.
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
    /// Whether it has ended with all its threads and only waits to be reaped.
    pub is_zombie: bool,
    /// A thread of it that lives: the main thread, unless that has ended before the others.
    pub thread: i32,
}

/// Reads a small text file; `None` when it cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Option<String> {
    String::from_utf8(read(path).ok()?).ok()
}

/// The kernel's table of file locks.
pub fn open_locks() -> io::Result<std::fs::File> {
    std::fs::File::open("/proc/locks")
}

/// Reads a small file.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    // Files of /proc have no size to go by; with a page at hand nearly all take one read.
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The inode of this process's pid namespace, as text; empty where `/proc` does not say.
pub fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

/// The inode of this process's time namespace, as text, where that is not the first one of the machine.
pub fn time_namespace() -> Option<String> {
    // PROC_TIME_INIT_INO of the kernel.
    const FIRST: &str = "time:[4026531834]";
    let link = std::fs::read_link("/proc/self/ns/time").ok()?;
    let link = link.to_string_lossy();
    (link != FIRST).then(|| link.chars().filter(char::is_ascii_digit).collect())
}

/// This process.
pub fn own_key() -> ProcessKey {
    let pid = own_pid();
    let entry = entry(pid).ok().flatten();
    entry.map_or(ProcessKey { pid, start: 0 }, |entry| entry.key)
}

pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// What is known of one process; `None` when it is gone.
///
/// # Errors
/// It cannot be told: `/proc` is not mounted, belongs to another pid namespace or hides the process,
/// or reading failed.
pub fn entry(pid: i32) -> io::Result<Option<Entry>> {
    let stat = match read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_absent(&error) => return gone(pid),
        Err(error) => return Err(error),
    };
    let (mut entry, threads) =
        parse_stat(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is odd")))?;
    if entry.is_zombie && threads > 1 {
        // The main thread has ended. Nobody reaps it before the others have.
        match living_thread(pid) {
            Ok(Some(thread)) => (entry.is_zombie, entry.thread) = (false, thread),
            Ok(None) => {}
            Err(error) if is_absent(&error) => return gone(pid),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(entry))
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno == Some(Errno::NOENT) || errno == Some(Errno::SRCH)
}

/// Whether a process that `/proc` does not show is really not there.
fn gone<T>(pid: i32) -> io::Result<Option<T>> {
    check_mounted()?;
    let is_there = Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH));
    if is_there {
        // With hidepid= it is not shown, or its number was given away in this moment.
        return Err(Errno::PERM.into());
    }
    Ok(None)
}

/// Whether `/proc` is there, and speaks of the pid namespace in which this process is: in another one
/// all numbers mean other processes.
///
/// # Errors
/// It is not, or does not.
pub fn check_mounted() -> io::Result<()> {
    let own = std::fs::read_link("/proc/self")?;
    if own.to_str().and_then(|own| own.parse().ok()) == Some(own_pid()) {
        Ok(())
    } else {
        let why = "/proc belongs to another pid namespace";
        Err(io::Error::other(why))
    }
}

/// Reads a line as in `/proc/<pid>/stat`: the entry, as the main thread's state gives it, and the
/// number of threads. The program's name in it can be any bytes, also half a character.
pub fn parse_stat(line: &[u8]) -> Option<(Entry, u32)> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let begin = line.iter().position(|byte| *byte == b' ')?;
    let pid = text(&line[..begin])?.parse().ok()?;
    // The second field is the program's name in parentheses and may hold anything, also ") ".
    let end = line.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> = text(&line[end + 1..])?.split_ascii_whitespace().collect();
    let entry = Entry {
        key: ProcessKey {
            pid,
            start: fields.get(19)?.parse().ok()?,
        },
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        thread: pid,
    };
    Some((entry, fields.get(17)?.parse().ok()?))
}

/// A thread that has not ended.
fn living_thread(pid: i32) -> io::Result<Option<i32>> {
    for thread in numbers_in(&format!("/proc/{pid}/task"))? {
        match read(format!("/proc/{pid}/task/{thread}/stat")) {
            Ok(stat) if parse_stat(&stat).is_some_and(|(entry, _)| !entry.is_zombie) => {
                return Ok(Some(thread));
            }
            Ok(_) => {}
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether exactly this process is still there, with at least one thread.
///
/// # Errors
/// It cannot be told. That is never "no".
pub fn is_alive(key: ProcessKey) -> io::Result<bool> {
    let entry = entry(key.pid)?;
    let is_it = |entry: &Entry| key.start == 0 || entry.key == key;
    match entry.filter(|entry| is_it(entry) && !entry.is_zombie) {
        Some(_) if key.start == 0 => {
            let why = "when it started is not recorded, so it may be another process";
            Err(io::Error::other(why))
        }
        there => Ok(there.is_some()),
    }
}

/// The numbers of all processes that `/proc` lists, in no promised order.
///
/// # Errors
/// `/proc` cannot be listed, or is not this pid namespace's.
pub fn numbers() -> io::Result<Vec<i32>> {
    check_mounted()?;
    numbers_in("/proc")
}

pub(super) fn numbers_in(folder: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for item in std::fs::read_dir(folder)? {
        numbers.extend(
            item?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    Ok(numbers)
}

/// The highest number that a process can have here.
pub fn highest_number() -> i32 {
    // What the kernel allows at most, where it does not say.
    const MOST: i32 = 1 << 22;
    let message = read_text("/proc/sys/kernel/pid_max");
    message
        .and_then(|message| message.trim().parse().ok())
        .unwrap_or(MOST)
}

/// Whether a number is a process's and not only a thread's. Where the kernel refuses to say, it is.
pub fn is_process(pid: Pid) -> bool {
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::INVAL | Errno::NOENT | Errno::SRCH) => false,
        Ok(_) | Err(_) => true,
    }
}

/// Signals exactly this process. One that is gone is not signalled, and that is no error.
///
/// # Errors
/// It may not be signalled, or it cannot be told whether it is the one.
pub fn signal(key: ProcessKey, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(key.pid) else {
        return Ok(());
    };
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    // Looked at after the handle was taken: from here on the number cannot be given away unseen.
    if entry(key.pid)?.is_none_or(|entry| entry.key != key) {
        return Ok(());
    }
    let sent = match handle {
        Ok(handle) => match rustix::process::pidfd_send_signal(&handle, signal) {
            // A filter of system calls that knows the one call and not the other.
            Err(Errno::NOSYS) => rustix::process::kill_process(pid, signal),
            sent => sent,
        },
        Err(Errno::SRCH) => return Ok(()),
        // Without handles the number is used: it was right a moment ago, and numbers are given
        // away in a circle.
        Err(_) => rustix::process::kill_process(pid, signal),
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_is_read() {
        let line = b"7 (a ) \xc3) S 1 7 8 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 4711 99 98\n";
        let (entry, threads) = parse_stat(line).unwrap();
        assert_eq!(
            entry.key,
            ProcessKey {
                pid: 7,
                start: 4711
            }
        );
        assert_eq!((entry.parent, entry.group, entry.session), (1, 7, 8));
        assert_eq!((threads, entry.is_zombie), (3, false));
    }

    #[test]
    fn this_process_is_alive_and_another_of_its_number_is_not() {
        let own = own_key();
        assert!(is_alive(own).unwrap());
        let start = own.start + 1;
        assert!(!is_alive(ProcessKey { start, ..own }).unwrap());
        // That of an unknown start may be any.
        assert!(is_alive(ProcessKey { start: 0, ..own }).is_err());
    }
}
