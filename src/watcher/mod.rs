//! The watcher: finds pending tasks and dispatches them.
//!
//! Does not run tasks (`runner/`, over a pipe) or clear the spool (`sweeper/`, started as a process). It
//! supervises nothing and may be killed at any time: its state is derived from the disk, and a scan
//! restores what is lost. Invariant: listen first, scan second, wait third, so no change falls between
//! two scans.

mod backlog;
mod idle;
mod listen;
mod log_watch;
mod markers;
mod options;
mod reconcile;
mod root;
mod run;
mod service;
mod shutdown;
mod signals;
mod sweeps;
mod wait;

pub use options::{Left, Options, WatchError};
pub use run::Watcher;
