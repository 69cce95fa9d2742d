//! Log lines for a file whose disk may hang: a separate thread writes them from a bounded queue.
//!
//! Not for pipes, sockets and terminals, which have non-blocking writes (`log_line.rs`). Files have none: on
//! an unreachable network disk or a frozen file system, a write blocks until the disk is back. Invariant: the
//! caller never waits, and lines that do not fit into the queue are counted.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most bytes in the queue.
const MAX_BYTES: usize = 256 << 10;
/// How long a process waits for its last lines before it exits.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The queue and its thread.
pub(super) struct LineQueue {
    file: BorrowedFd<'static>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    has_thread: bool,
    /// A line that is no longer in `lines` is being written.
    is_writing: bool,
    /// Lines that could not be written since the last `take_lost`.
    lost: u64,
}

impl LineQueue {
    pub fn new(file: BorrowedFd<'static>) -> LineQueue {
        LineQueue {
            file,
            shared: Arc::default(),
        }
    }

    /// Queues a line. Returns `false` if there is no room for it, or no thread to write it.
    pub fn push(&self, line: &[u8]) -> bool {
        let mut queue = self.shared.lock();
        if queue.bytes + line.len() > MAX_BYTES {
            return false;
        }
        if !queue.has_thread {
            let (file, shared) = (self.file, Arc::clone(&self.shared));
            let thread = std::thread::Builder::new().name("log".to_owned());
            queue.has_thread = thread.spawn(move || shared.write_all_to(file)).is_ok();
            if !queue.has_thread {
                return false;
            }
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        self.shared.changed.notify_all();
        true
    }

    /// Returns the number of lines that could not be written since the last call.
    pub fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.shared.lock().lost)
    }

    /// Waits until all lines are written, but at most `FLUSH_TIMEOUT`.
    pub fn flush(&self) {
        let until = Instant::now() + FLUSH_TIMEOUT;
        let mut queue = self.shared.lock();
        while queue.is_writing || !queue.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_to(&self, file: BorrowedFd<'_>) {
        let mut is_torn = false;
        let mut queue = self.lock();
        loop {
            let Some(mut line) = queue.lines.pop_front() else {
                let waited = self.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= line.len();
            queue.is_writing = true;
            drop(queue);
            if is_torn {
                line.insert(0, b'\n');
            }
            let written = rustix::io::write(file, &line).unwrap_or(0);
            let is_whole = written == line.len();
            is_torn = !is_whole && (is_torn || written > 0);
            queue = self.lock();
            queue.is_writing = false;
            queue.lost += u64::from(!is_whole);
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::{AsFd as _, OwnedFd};

    #[test]
    fn a_line_without_room_is_refused_and_the_caller_does_not_wait() {
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        let pipe: &'static OwnedFd = Box::leak(Box::new(pipe));
        let queue = LineQueue::new(pipe.as_fd());
        let line = [b'x'; 1000];
        let mut taken = 0;
        // A pipe that nobody reads behaves like a disk that hangs.
        while queue.push(&line) {
            taken += 1;
        }
        assert!(taken >= MAX_BYTES / 1000, "{taken}");
        queue.flush();
        let mut reader = std::fs::File::from(reader);
        let mut bytes = vec![0u8; taken * 1000];
        reader.read_exact(&mut bytes).unwrap();
        queue.flush();
        assert_eq!(queue.take_lost(), 0);
        assert!(queue.push(&line));
    }
}
