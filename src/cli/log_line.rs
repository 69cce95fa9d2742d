//! Writes lines of the program's own log. A line is written at once, or it is dropped and counted.
//!
//! Not a task's log. A stopped terminal, a pipe that nobody reads and a stuck socket block the writer. A
//! blocked watcher or runner cannot start or end tasks, so it drops lines that cannot be written, and the
//! next line that is written reports their number. Invariant: the inherited open files are shared with other
//! processes, so their flags are not changed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use agentspool::task::escape_bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;

use super::log_queue::LineQueue;

/// A write of at most this many bytes to a pipe is atomic, and `poll` reports whether there is room for it.
const AT_ONCE: usize = 4096;
const CUT: &[u8] = b" [cut]\n";

/// How one of the standard streams can be written to without waiting.
enum Way {
    /// A file on the disk of the spool, or in memory. If the spool's disk hangs, the process hangs anyway.
    File(BorrowedFd<'static>),
    /// A file on another disk.
    Queue(LineQueue),
    /// A new open file for the same pipe or terminal.
    Own(OwnedFd),
    Socket(BorrowedFd<'static>),
    /// The stream could not be opened again. `poll` runs before each write.
    Polled(BorrowedFd<'static>),
}

/// One of the standard streams, for lines.
pub(super) struct LineWriter {
    way: Way,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dropped: u64,
    /// The last line was written only in part.
    is_torn: bool,
}

impl LineWriter {
    /// A writer for one of the standard streams. `own_disk` is the device of the spool.
    pub fn new(stream: BorrowedFd<'static>, number: u32, own_disk: Option<u64>) -> LineWriter {
        let stat = rustix::fs::fstat(stream);
        let kind = stat
            .as_ref()
            .ok()
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        let device = stat.as_ref().ok().map(|stat| stat.st_dev);
        let way = match kind {
            Some(FileType::RegularFile) if device == own_disk || is_in_memory(stream) => {
                Way::File(stream)
            }
            Some(FileType::RegularFile) => Way::Queue(LineQueue::new(stream)),
            Some(FileType::Socket) => Way::Socket(stream),
            _ => open_again(number).map_or(Way::Polled(stream), Way::Own),
        };
        LineWriter {
            way,
            state: Mutex::default(),
        }
    }

    /// Waits a moment for lines that are not written yet, at the end of the process.
    pub fn flush(&self) {
        if let Way::Queue(queue) = &self.way {
            queue.flush();
        }
    }

    /// Writes a line, with or without its newline, or drops it.
    pub fn line(&self, line: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Way::Queue(queue) = &self.way {
            state.dropped += queue.take_lost();
        }
        let mut bytes = Vec::with_capacity(line.len() + 64);
        if state.is_torn {
            bytes.push(b'\n');
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        // A path or a message in the line may be another user's.
        bytes.extend(escape_bytes(text).as_bytes());
        if state.dropped > 0 {
            bytes.extend(format!(" dropped_lines={}", state.dropped).as_bytes());
        }
        bytes.push(b'\n');
        if bytes.len() > AT_ONCE && !matches!(self.way, Way::File(_) | Way::Queue(_)) {
            bytes.truncate(AT_ONCE - CUT.len());
            bytes.extend(CUT);
        }
        match self.write(&bytes) {
            Ok(written) if written == bytes.len() => *state = State::default(),
            Ok(written) => {
                state.is_torn |= written > 0;
                state.dropped += 1;
            }
            Err(_) => state.dropped += 1,
        }
    }

    /// The number of lines dropped since the last line that was written.
    pub fn dropped(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.dropped
    }

    /// Subtracts `count` dropped lines that were reported in another place.
    pub fn forget_dropped(&self, count: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.dropped = state.dropped.saturating_sub(count);
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(match &self.way {
            Way::File(file) => rustix::io::write(file, bytes)?,
            Way::Queue(queue) => usize::from(queue.push(bytes)) * bytes.len(),
            Way::Own(file) => rustix::io::write(file, bytes)?,
            Way::Socket(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::net::send(socket, bytes, flags)?
            }
            Way::Polled(file) => {
                let mut fds = [PollFd::new(file, PollFlags::OUT)];
                let at_once = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                if poll(&mut fds, Some(&at_once))? == 0
                    || !fds[0].revents().contains(PollFlags::OUT)
                {
                    return Ok(0);
                }
                rustix::io::write(file, bytes)?
            }
        })
    }
}

impl io::Write for &LineWriter {
    /// The formatter passes a whole line in one call.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a file is in memory, so that it has no disk that can hang.
fn is_in_memory(file: BorrowedFd<'_>) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    rustix::fs::fstatfs(file).is_ok_and(|of| [TMPFS, RAMFS].contains(&(of.f_type as u32)))
}

/// Opens the same pipe or terminal again, as a file of this process that never blocks.
fn open_again(number: u32) -> Option<OwnedFd> {
    let flags =
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    fn writer(way: Way) -> LineWriter {
        LineWriter {
            way,
            state: Mutex::default(),
        }
    }

    /// A descriptor that stays open as long as the tests run.
    fn leaked(fd: OwnedFd) -> BorrowedFd<'static> {
        let leaked: &'static OwnedFd = Box::leak(Box::new(fd));
        leaked.as_fd()
    }

    #[test]
    fn dropped_lines_are_counted_and_reported() {
        let (socket, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        let mut reader = std::fs::File::from(reader);
        type Reads = Box<dyn FnMut(&mut [u8]) -> usize>;
        let ways: [(Way, Reads); 2] = [
            (
                Way::Socket(leaked(socket.into())),
                Box::new(move |to| other.read(to).unwrap()),
            ),
            (
                Way::Polled(leaked(pipe)),
                Box::new(move |to| reader.read(to).unwrap()),
            ),
        ];
        for (way, mut read) in ways {
            let writer = writer(way);
            let line = [b'x'; 1000];
            while writer.dropped() == 0 {
                writer.line(&line);
            }
            writer.line(&line);
            let mut taken = vec![0u8; 1 << 20];
            let mut length = read(&mut taken);
            writer.line(b"after");
            writer.line(b"and again");
            while !taken[..length].ends_with(b"again\n") {
                length += read(&mut taken[length..]);
            }
            let text = String::from_utf8(taken[..length].to_vec()).unwrap();
            let last: Vec<&str> = text.lines().rev().take(2).collect();
            assert_eq!(last, ["and again", "after dropped_lines=2"]);
        }
    }

    #[test]
    fn a_line_stays_one_line_and_is_cut_to_an_atomic_write() {
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        let writer = writer(Way::Polled(leaked(pipe)));
        writer.line(b"one\nforged\x1b[2J\r\xe2\x80\xae\xff\n");
        writer.line(&[b'y'; 10_000]);
        let mut taken = vec![0u8; 1 << 16];
        let length = std::fs::File::from(reader).read(&mut taken).unwrap();
        let text = String::from_utf8(taken[..length].to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], r"one\nforged\u{1b}[2J\r\u{202e}\xff");
        assert!(lines[1].len() == AT_ONCE - 1 && lines[1].ends_with("y [cut]"));
    }
}
