//! The process table: reads one process or all, checks whether one is alive, and signals exactly one.
//!
//! Not children and orphans (`children.rs`) or other facts about a process (`evidence.rs`). Invariant: a pid
//! identifies a process only together with its start time. A failure to read is an error and never means that
//! the process ended.

use std::io::{self, Read};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// The identity of a process within one boot. A later process with the same pid has another start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// The process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks after boot. 0 if `/proc` could not be read.
    pub start: u64,
}

/// One line of the process table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The identity of the process.
    pub key: ProcessKey,
    /// The pid of its parent.
    pub parent: i32,
    /// The id of its process group.
    pub group: i32,
    /// The id of its session.
    pub session: i32,
    /// Whether all its threads have ended and it only waits to be reaped.
    pub is_zombie: bool,
    /// A running thread of the process: the main thread, unless it has ended before the others.
    pub thread: i32,
}

/// Reads a small text file. `None` if it cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Option<String> {
    String::from_utf8(read(path).ok()?).ok()
}

/// The kernel's table of file locks.
pub fn open_locks() -> io::Result<std::fs::File> {
    std::fs::File::open("/proc/locks")
}

/// Reads a small file.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    // Files in /proc report no size. A buffer of one page is enough to read most of them at once.
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The inode of this process's pid namespace, as text. Empty if `/proc` does not show it.
pub fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

/// The inode of this process's time namespace, as text. `None` in the machine's initial time namespace.
pub fn time_namespace() -> Option<String> {
    // The kernel's PROC_TIME_INIT_INO.
    const FIRST: &str = "time:[4026531834]";
    let link = std::fs::read_link("/proc/self/ns/time").ok()?;
    let link = link.to_string_lossy();
    (link != FIRST).then(|| link.chars().filter(char::is_ascii_digit).collect())
}

/// The identity of this process.
pub fn own_key() -> ProcessKey {
    let pid = own_pid();
    let entry = entry(pid).ok().flatten();
    entry.map_or(ProcessKey { pid, start: 0 }, |entry| entry.key)
}

pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Reads one process. `None` if it has ended.
///
/// # Errors
/// It cannot be read: `/proc` is not mounted, belongs to another pid namespace or hides the process, or
/// reading failed.
pub fn entry(pid: i32) -> io::Result<Option<Entry>> {
    let stat = match read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_absent(&error) => return gone(pid),
        Err(error) => return Err(error),
    };
    let (mut entry, threads) = parse_stat(&stat)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat cannot be parsed")))?;
    if entry.is_zombie && threads > 1 {
        // The main thread has ended. It is not reaped before the other threads have ended.
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

/// Checks that a process that `/proc` does not show has really ended.
fn gone<T>(pid: i32) -> io::Result<Option<T>> {
    check_mounted()?;
    let is_there = Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH));
    if is_there {
        // The option hidepid= hides it, or its pid was reused at this moment.
        return Err(Errno::PERM.into());
    }
    Ok(None)
}

/// Checks that `/proc` is mounted and shows the pid namespace of this process. In another namespace, the pids
/// belong to other processes.
///
/// # Errors
/// `/proc` is not mounted or shows another pid namespace.
pub fn check_mounted() -> io::Result<()> {
    let own = std::fs::read_link("/proc/self")?;
    if own.to_str().and_then(|own| own.parse().ok()) == Some(own_pid()) {
        Ok(())
    } else {
        let why = "/proc belongs to another pid namespace";
        Err(io::Error::other(why))
    }
}

/// Parses a line of `/proc/<pid>/stat`: the entry with the state of the main thread, and the number of
/// threads. The program's name in it can have any bytes.
pub fn parse_stat(line: &[u8]) -> Option<(Entry, u32)> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let begin = line.iter().position(|byte| *byte == b' ')?;
    let pid = text(&line[..begin])?.parse().ok()?;
    // The second field is the program's name in parentheses and may contain anything, even ") ".
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

/// The id of a thread that has not ended. `None` if all have ended.
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

/// Whether exactly this process still runs, with at least one thread.
///
/// # Errors
/// It is not known. The caller must not treat this as "no".
pub fn is_alive(key: ProcessKey) -> io::Result<bool> {
    let entry = entry(key.pid)?;
    let is_it = |entry: &Entry| key.start == 0 || entry.key == key;
    match entry.filter(|entry| is_it(entry) && !entry.is_zombie) {
        Some(_) if key.start == 0 => {
            let why = "its start time is not recorded, so it may be another process";
            Err(io::Error::other(why))
        }
        there => Ok(there.is_some()),
    }
}

/// The pids of all processes that `/proc` lists, in any order.
///
/// # Errors
/// `/proc` cannot be listed, or shows another pid namespace.
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

/// The highest pid that a process can have here.
pub fn highest_number() -> i32 {
    // The kernel's upper limit, used if `/proc` does not show the current one.
    const MOST: i32 = 1 << 22;
    let message = read_text("/proc/sys/kernel/pid_max");
    message
        .and_then(|message| message.trim().parse().ok())
        .unwrap_or(MOST)
}

/// Whether a number is the pid of a process and not only of a thread. Also true if the kernel refuses to
/// answer.
pub fn is_process(pid: Pid) -> bool {
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::INVAL | Errno::NOENT | Errno::SRCH) => false,
        Ok(_) | Err(_) => true,
    }
}

/// Signals exactly this process. It is not an error if the process has ended.
///
/// # Errors
/// This user may not signal it, or it is not known whether it is the same process.
pub fn signal(key: ProcessKey, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(key.pid) else {
        return Ok(());
    };
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    // Checked after the handle was opened: the handle does not follow a reused pid.
    if entry(key.pid)?.is_none_or(|entry| entry.key != key) {
        return Ok(());
    }
    let sent = match handle {
        Ok(handle) => match rustix::process::pidfd_send_signal(&handle, signal) {
            // A system call filter may allow pidfd_open and not pidfd_send_signal.
            Err(Errno::NOSYS) => rustix::process::kill_process(pid, signal),
            sent => sent,
        },
        Err(Errno::SRCH) => return Ok(()),
        // Without a handle, the pid is used. It was checked a moment ago, and the kernel reuses a pid only
        // after all others.
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
    fn only_the_process_with_the_right_start_time_is_alive() {
        let own = own_key();
        assert!(is_alive(own).unwrap());
        let start = own.start + 1;
        assert!(!is_alive(ProcessKey { start, ..own }).unwrap());
        // A process with an unknown start time may be any process.
        assert!(is_alive(ProcessKey { start: 0, ..own }).is_err());
    }
}
