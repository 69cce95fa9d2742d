//! Signals as a readable file descriptor.
//!
//! Not the reaction to a signal; the caller decides that. Invariant: the next call of `came` reports a signal
//! that arrived, and the descriptor never looks closed, even if no signal is registered.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A socket that becomes readable after any of some signals.
#[derive(Debug)]
pub struct SignalPipe {
    socket: UnixStream,
    /// The other end, kept open so that the socket does not look closed.
    _ring: UnixStream,
}

impl SignalPipe {
    /// Listens to these signals from now until this process ends.
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

    /// Whether a signal arrived since the last call. Never waits.
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
