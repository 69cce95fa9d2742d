//! The signals that a watcher handles.
//!
//! Does not receive them (`sys/signals.rs`) or act on them (`run.rs`). Invariant: the exit of children is
//! listened to only by the first process of a container, which adopts the orphans of other processes.

use std::io;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::sys::SignalPipe;

/// Pipes for TERM and INT, for HUP, and for the exit of a child.
pub(super) struct Signals {
    pub stop: SignalPipe,
    pub reload: SignalPipe,
    /// Used only if this process adopts orphans of other processes.
    pub child: SignalPipe,
}

impl Signals {
    pub fn new(is_first_process: bool) -> io::Result<Signals> {
        let child: &[i32] = if is_first_process { &[SIGCHLD] } else { &[] };
        Ok(Signals {
            stop: SignalPipe::listen(&[SIGTERM, SIGINT])?,
            reload: SignalPipe::listen(&[SIGHUP])?,
            child: SignalPipe::listen(child)?,
        })
    }
}
