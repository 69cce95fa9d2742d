//! How a watcher is run, why it cannot go on, and why it left.
//!
//! Not its loop (`run.rs`). Invariant: each way in which a watcher leaves has a word of its own.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::clock;
use crate::spool::{Exposed, IoError, OpenError, Spool, WatcherFile};
use crate::task::{FORMAT_VERSION, escape_path};

/// How a watcher is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that runners and sweeps are started from. `/proc/self/exe` stays the same
    /// program when its file is replaced by an upgrade.
    pub program: PathBuf,
    /// Arguments before the verb besides the spool, so that runners see the same settings.
    pub arguments: Vec<String>,
    /// Leave after the spool's `idle_exit_sec`.
    pub autostarted: bool,
    /// Leave as soon as nothing is left to do.
    pub drain: bool,
    /// On a signal stop the tasks, wait for their ends, and leave last. As the first process of a container a
    /// watcher always does.
    pub stop_tasks: bool,
    /// The `PATH` that its tasks get.
    pub search: Option<OsString>,
}

/// The watcher cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Only its owner runs a spool's tasks.
    #[error("only the owner of the spool {} may run its tasks", .0.display())]
    NotOwner(PathBuf),
    /// Users of the group could put another folder in the spool's place.
    #[error("the tasks of the group spool {} are not run: {exposed}", path.display())]
    Exposed {
        /// The spool.
        path: PathBuf,
        /// Where.
        exposed: Exposed,
    },
    /// Users of the group can write in the spool where they should not, or could.
    #[error(
        "the tasks of the group spool {} are not run, because others can write {}, or could: run `agentspool init {}`, which makes anew what they could write",
        escape_path(path),
        escape_path(open),
        escape_path(path)
    )]
    OpenToOthers {
        /// The spool.
        path: PathBuf,
        /// What they can write.
        open: PathBuf,
    },
    /// Signals cannot be listened to.
    #[error("failed to listen to signals: {0}")]
    Signals(#[source] io::Error),
    /// The spool cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a watcher left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A signal said so; running tasks go on.
    Stopped,
    /// A signal said so, and the tasks were stopped as well.
    StoppedWithTasks,
    /// Nothing was left to do.
    Idle,
    /// Another watcher took over in the moment of leaving.
    Replaced,
    /// The spool is paused, and so many tasks wait.
    Paused(usize),
    /// The spool's path does not lead to it any more.
    Moved,
}

/// What a watcher writes down of itself.
pub(super) fn describe(options: &Options) -> WatcherFile {
    WatcherFile {
        v: FORMAT_VERSION,
        pid: rustix::process::getpid().as_raw_nonzero().get(),
        started_at: clock::wall(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        autostarted: options.autostarted,
        path: options
            .search
            .as_deref()
            .and_then(|path| Some(path.to_str()?.to_owned())),
    }
}

/// The arguments before the verb with which a process of ours sees the same spool and settings.
pub(super) fn arguments(spool: &Spool, options: &Options) -> Vec<String> {
    let path = spool.path().to_string_lossy().into_owned();
    let mut arguments = vec!["--spool".to_owned(), path];
    arguments.extend(options.arguments.iter().cloned());
    arguments
}
