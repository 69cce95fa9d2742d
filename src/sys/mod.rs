//! Small tools over the kernel's calls.
//!
//! Not what the kernel says about processes (`proc/`). Invariant: nothing here knows what a task or a spool is.

mod signals;

pub use crate::proc::{ignore_terminal_stop, let_large_writes_fail, raise_file_limit, set_umask};
pub use signals::SignalPipe;
