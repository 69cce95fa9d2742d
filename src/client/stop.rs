//! How a caller tells a call that waits to give up.
//!
//! Not signals: the library listens to none. The caller listens, and answers when it is asked. Invariant: giving
//! up changes nothing in the spool; what was begun goes on.

use std::os::fd::BorrowedFd;

/// Asked by every call that waits, before each wait.
///
/// Any `Fn() -> bool` is one. A closure is asked at the next look, which is at most a second away. Who can also
/// give a file that becomes readable ([`Stop::wakes`]) is heard at once.
pub trait Stop {
    /// Whether the call is to give up.
    fn is_asked(&self) -> bool;

    /// A file that becomes readable when the answer changes. `None` if there is none.
    fn wakes(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl<F: Fn() -> bool> Stop for F {
    fn is_asked(&self) -> bool {
        self()
    }
}

/// Nobody asks a call to give up.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverStop;

impl Stop for NeverStop {
    fn is_asked(&self) -> bool {
        false
    }
}
