//! The signals that a watcher listens to.
//!
//! Not how (`sys/signals.rs`), and not what follows (`run.rs`). Invariant: the ends of children are listened to only by
//! the first process of a container, to which the orphans of others come.

use std::io;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::sys::SignalPipe;

/// TERM and INT, HUP, and the end of a child.
pub(super) struct Signals {
    pub stop: SignalPipe,
    pub reload: SignalPipe,
    /// Only rung where others' orphans come to this process.
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
