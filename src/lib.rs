//! Background tasks on a file-system spool.
#![warn(missing_docs)]
pub mod clock;
pub mod config;
pub mod proc;
pub mod recipe;
pub mod runner;
pub mod spool;
pub mod sweeper;
pub mod task;
pub mod watcher;
