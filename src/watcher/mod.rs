//! The watcher: finds pending tasks and dispatches them.
//!
//! It supervises nothing and may die at any moment: what it knows is a guess made from the disk,
//! and whatever it forgets a scan finds again. Not here: running (`runner/`, met over a pipe) and
//! clearing (`sweeper/`, started as a process). Invariant: listen first, scan second, wait third, so
//! that nothing falls between two looks.

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

pub use options::{Left, Options, WatchError};
pub use run::Watcher;
