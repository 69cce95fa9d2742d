//! The options of a watcher, the errors that stop it, and the reasons why it exits.
//!
//! Does not run the loop (`run.rs`). Invariant: each reason to exit has its own value.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::clock;
use crate::spool::{Exposed, IoError, OpenError, Spool, WatcherFile};
use crate::task::FORMAT_VERSION;

/// The options of a watcher.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program from which runners and sweeps are started. `/proc/self/exe` remains the same program
    /// if an upgrade replaces its file.
    pub program: PathBuf,
    /// Arguments before the command other than the spool, so that runners have the same settings.
    pub arguments: Vec<String>,
    /// Exit after the spool's `idle_exit_sec` without work.
    pub autostarted: bool,
    /// Exit as soon as nothing is left to do.
    pub drain: bool,
    /// On a signal, stop the tasks, wait until they end, and exit last. The first process of a container
    /// always does this.
    pub stop_tasks: bool,
    /// The `PATH` that its tasks get.
    pub search: Option<OsString>,
}

/// The watcher cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The caller is not the owner of the spool.
    #[error("only the owner of the spool {} may run its tasks", .0.display())]
    NotOwner(PathBuf),
    /// Users of the group could replace the spool's folder.
    #[error("the tasks of the group spool {} are not run: {exposed}", path.display())]
    Exposed {
        /// The spool.
        path: PathBuf,
        /// The folder that they can change.
        exposed: Exposed,
    },
    /// Listening to signals failed.
    #[error("failed to listen to signals: {0}")]
    Signals(#[source] io::Error),
    /// The spool cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An I/O error.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Why a watcher exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A signal stopped it; running tasks go on.
    Stopped,
    /// A signal stopped it, and the tasks were stopped too.
    StoppedWithTasks,
    /// Nothing was left to do.
    Idle,
    /// Another watcher took over while this one was exiting.
    Replaced,
    /// The spool is paused, and this many tasks wait.
    Paused(usize),
    /// The spool's path does not lead to the spool any more.
    Moved,
}

/// The description that a watcher writes into its watcher file.
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

/// The arguments before the command that give a child process the same spool and settings.
pub(super) fn arguments(spool: &Spool, options: &Options) -> Vec<String> {
    let path = spool.path().to_string_lossy().into_owned();
    let mut arguments = vec!["--spool".to_owned(), path];
    arguments.extend(options.arguments.iter().cloned());
    arguments
}
