//! What this package's own binary, tests, benchmarks and fuzz targets use besides the public interface.
//!
//! Not a public interface: everything here may change or be removed at any time. Programs use
//! [`crate::client`]. Invariant: nothing is defined here.

pub use crate::clock::{BootId, wall};
pub use crate::recipe::{Manifest, RecipePath};
pub use crate::spool::{
    Admission, Candidate, DropFile, DropRefusal, FinishedTask, Pickup, ProgressReader, Reason,
    Rules, Spool, Submission, SweepClock,
};
pub use crate::sys::{
    SignalPipe, ignore_terminal_stop, let_large_writes_fail, raise_file_limit, set_umask,
};
