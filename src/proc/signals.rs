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
/// in the middle of a line. A recipe gets the default back (`runner/signals.rs`).
#[expect(unsafe_code, reason = "signal, which rustix has no safe form of")]
pub fn ignore_terminal_stop() {
    // SAFETY: no handler is installed, and no handler of ours is replaced.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}

/// A write beyond the limit of file sizes (`ulimit -f`) fails and is said, instead of killing this process
/// in the middle of its work.
#[expect(unsafe_code, reason = "sigaction, which rustix has no safe form of")]
pub fn let_large_writes_fail() {
    // SAFETY: to ignore a signal takes no memory and runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The signals that this process ignores, and that its children would ignore as well.
pub fn ignored_signals() -> Vec<c_int> {
    (1..=HIGHEST)
        .filter(|signal| action_of(*signal) == Some(libc::SIG_IGN))
        .collect()
}

/// Sets a signal back to what it does by default. Only a system call, so that a child may make it before it is
/// another program.
#[expect(unsafe_code, reason = "sigaction, which rustix has no safe form of")]
pub fn set_default(signal: c_int) {
    let default = KernelAction::default();
    // SAFETY: the kernel reads the action, which names no function.
    unsafe {
        let none = std::ptr::null_mut::<KernelAction>();
        libc::syscall(libc::SYS_rt_sigaction, signal, &default, none, SET_BYTES);
    }
}

#[expect(unsafe_code, reason = "sigaction, which rustix has no safe form of")]
fn action_of(signal: c_int) -> Option<usize> {
    let mut action = KernelAction::default();
    // SAFETY: with no new action the call only fills in the present one.
    let answer = unsafe {
        let none = std::ptr::null::<KernelAction>();
        libc::syscall(libc::SYS_rt_sigaction, signal, none, &mut action, SET_BYTES)
    };
    (answer == 0).then_some(action.handler)
}

/// `struct sigaction` as the kernel has it. The C library keeps the signals 32 and 33 to itself, and its
/// `posix_spawn` leaves them ignored; so it is not asked.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: [u64; 2],
}

/// The size of the kernel's set of signals.
const SET_BYTES: usize = 8;
