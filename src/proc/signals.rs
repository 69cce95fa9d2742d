//! The signals that this process was started with blocked or ignored.
//!
//! Both are inherited: a server's thread that starts a watcher may block TERM, and `nohup` ignores HUP.
//! Not the handlers (`signal-hook`). Invariant: only the calling thread's mask is changed here, so it is
//! called before there are others.

use libc::c_int;

/// The highest number of a signal.
const HIGHEST: c_int = 64;

/// Lets every signal through to this thread and to all that it starts.
#[expect(unsafe_code, reason = "signal masks, which rustix has no safe form of")]
pub fn unblock_signals() {
    // SAFETY: a set of zeroes is one that sigemptyset may fill in, and it is whole when it is used.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Lets this process write to its terminal from the background, also after `stty tostop`: SIGTTOU would stop it
/// in the middle of a line. A recipe gets the default back (`runner/spawn.rs`).
#[expect(unsafe_code, reason = "signal, which rustix has no safe form of")]
pub fn ignore_terminal_stop() {
    // SAFETY: no handler is installed, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}

/// The signals that this process ignores, and that its children would ignore as well.
#[expect(unsafe_code, reason = "sigaction, which rustix has no safe form of")]
pub fn ignored_signals() -> Vec<c_int> {
    let is_ignored = |signal: &c_int| {
        // SAFETY: with no new action the call only fills in the present one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        }
    };
    (1..=HIGHEST).filter(is_ignored).collect()
}
