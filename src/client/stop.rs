//! How a caller stops a call that waits.
//!
//! Not signals: the library does not handle any. The caller handles them, and answers when the call asks.
//! Invariant: stopping a call changes nothing in the spool. What was started continues.

use std::os::fd::BorrowedFd;

/// Asked by every call that waits, before each wait.
///
/// Any `Fn() -> bool` implements it. A closure is asked at the next check, at most one second later. With a
/// file that becomes readable ([`Stop::wakes`]) the call stops at once.
pub trait Stop {
    /// Whether the call should stop.
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

/// Never stops a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverStop;

impl Stop for NeverStop {
    fn is_asked(&self) -> bool {
        false
    }
}
