//! Umask and file limit: this process changes them for itself and restores them for the programs that it
//! starts.
//!
//! Not the signals (`signals.rs`). A watcher may start many recipes, and the limits that it needs for itself
//! are not meant for them. Invariant: each limit is changed once, before there are other threads, and its
//! first value is kept.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

static UMASK: OnceLock<Mode> = OnceLock::new();
static FILES: OnceLock<Rlimit> = OnceLock::new();

/// Sets the umask of this process. Returns the umask that it was started with.
pub fn set_umask(bits: u32) -> u32 {
    let before = umask(Mode::from_raw_mode(bits));
    UMASK.get_or_init(|| before).as_raw_mode()
}

/// Raises the limit of open files to the maximum. Shells set a low limit for programs that use select(2).
pub fn raise_file_limit() {
    let first = *FILES.get_or_init(|| getrlimit(Resource::Nofile));
    let most = Rlimit {
        current: first.maximum,
        maximum: first.maximum,
    };
    // If this fails, the old limit stays.
    let _ = setrlimit(Resource::Nofile, most);
}

/// How many files this process may open. `None` if there is no limit.
pub fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many files a process may open after it raised its limit. `None` if there is no limit.
pub fn raised_file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Makes the command start with the umask and the file limit that this process was started with.
#[expect(unsafe_code, reason = "two system calls between fork and exec")]
pub fn as_started(command: &mut Command) -> &mut Command {
    let (mask, files) = (UMASK.get().copied(), FILES.get().copied());
    // SAFETY: both are only system calls, and their arguments were copied before the fork.
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
