//! Signals as a readable file descriptor.
//!
//! Not what follows from a signal: that is for whoever listens. Invariant: a signal that came is seen by the
//! next question, and a descriptor that nothing is registered for never looks closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Some signals, and one socket that is readable after any of them.
#[derive(Debug)]
pub struct SignalPipe {
    socket: UnixStream,
    /// Keeps the socket from looking closed.
    _ring: UnixStream,
}

impl SignalPipe {
    /// Listens to these signals from now on, for as long as this process lives.
    ///
    /// # Errors
    /// The kernel refused a socket or a handler.
    pub fn listen(signals: &[i32]) -> io::Result<SignalPipe> {
        let (socket, ring) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, ring.try_clone()?)?;
        }
        Ok(SignalPipe {
            socket,
            _ring: ring,
        })
    }

    /// Whether one came since the last question. Never waits.
    pub fn came(&self) -> bool {
        let mut bytes = [0u8; 64];
        matches!(rustix::io::read(&self.socket, &mut bytes), Ok(read) if read > 0)
    }
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
