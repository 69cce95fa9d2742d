//! Small tools for system calls.
//!
//! Not information about processes (`proc/`). Invariant: nothing here depends on tasks or spools.

mod signals;

pub use crate::proc::{ignore_terminal_stop, let_large_writes_fail, raise_file_limit, set_umask};
pub use signals::SignalPipe;
