//! What this process changes of the limits that it was started with, and gives back to what it starts.
//!
//! Not the signals (`signals.rs`). A process of a spool may be the first of many, and what it needs for itself is not meant
//! for the recipes of others. Invariant: each is changed once, before there are threads, and the first value is kept.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

static UMASK: OnceLock<Mode> = OnceLock::new();
static FILES: OnceLock<Rlimit> = OnceLock::new();

/// Sets the umask of this process. Gives the one that it was started with.
pub fn set_umask(bits: u32) -> u32 {
    let before = umask(Mode::from_raw_mode(bits));
    UMASK.get_or_init(|| before).as_raw_mode()
}

/// Lets this process open as many files as it may at all: shells give few, for programs that use select(2).
pub fn raise_file_limit() {
    let first = *FILES.get_or_init(|| getrlimit(Resource::Nofile));
    let most = Rlimit {
        current: first.maximum,
        maximum: first.maximum,
    };
    // Refused, it has as many as before.
    let _ = setrlimit(Resource::Nofile, most);
}

/// How many files this process may open; `None` for any number.
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The same for a process that raises its limit.
pub fn raised_file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Starts the command with the umask and the limit of files that this process was started with.
#[expect(unsafe_code, reason = "two system calls between fork and exec")]
pub fn as_started(command: &mut Command) -> &mut Command {
    let (mask, files) = (UMASK.get().copied(), FILES.get().copied());
    // SAFETY: both calls are no more than that, and what they are given was copied before.
    unsafe {
        command.pre_exec(move || {
            if let Some(mask) = mask {
                umask(mask);
            }
            if let Some(files) = files {
                let _ = setrlimit(Resource::Nofile, files);
            }
            Ok(())
        })
    }
}
