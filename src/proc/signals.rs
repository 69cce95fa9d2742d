//! The signals that this process was started with blocked or ignored.
//!
//! Both are inherited: a thread of a server that starts a watcher may block TERM, and `nohup` ignores HUP.
//! Not the handlers (`signal-hook`). Invariant: only the mask of the calling thread is changed, so callers do
//! this before they start other threads.

use libc::c_int;

/// The highest number of a signal.
const HIGHEST: c_int = 64;

/// Unblocks all signals for this thread and for everything that it starts.
#[expect(unsafe_code, reason = "rustix has no safe function for signal masks")]
pub fn unblock_signals() {
    // SAFETY: sigemptyset initializes the set before it is used.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Lets this process write to its terminal from the background, even after `stty tostop`. Otherwise SIGTTOU
/// would stop it in the middle of a line. A recipe gets the default action (`runner/signals.rs`).
#[expect(unsafe_code, reason = "rustix has no safe function for signal actions")]
pub fn ignore_terminal_stop() {
    // SAFETY: no handler is installed, and no handler of this program is replaced.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
}

/// Makes a write beyond the file size limit (`ulimit -f`) fail with an error. Otherwise SIGXFSZ would kill
/// this process.
#[expect(unsafe_code, reason = "rustix has no safe function for sigaction")]
pub fn let_large_writes_fail() {
    // SAFETY: ignoring a signal uses no memory and runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The signals that this process ignores, and that its children would ignore too.
pub fn ignored_signals() -> Vec<c_int> {
    (1..=HIGHEST)
        .filter(|signal| action_of(*signal) == Some(libc::SIG_IGN))
        .collect()
}

/// Resets a signal to its default action. It is one system call, so that a child can do it between fork and
/// exec.
#[expect(unsafe_code, reason = "rustix has no safe function for sigaction")]
pub fn set_default(signal: c_int) {
    let default = KernelAction::default();
    // SAFETY: the kernel only reads the action, which contains no function.
    unsafe {
        let none = std::ptr::null_mut::<KernelAction>();
        libc::syscall(libc::SYS_rt_sigaction, signal, &default, none, SET_BYTES);
    }
}

#[expect(unsafe_code, reason = "rustix has no safe function for sigaction")]
fn action_of(signal: c_int) -> Option<usize> {
    let mut action = KernelAction::default();
    // SAFETY: without a new action, the call only fills in the current one.
    let answer = unsafe {
        let none = std::ptr::null::<KernelAction>();
        libc::syscall(libc::SYS_rt_sigaction, signal, none, &mut action, SET_BYTES)
    };
    (answer == 0).then_some(action.handler)
}

/// The kernel's `struct sigaction`. The functions of the C library are not used, because they refuse the
/// signals 32 and 33, and its `posix_spawn` leaves them ignored.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: [u64; 2],
}

/// The size of the kernel's signal set.
const SET_BYTES: usize = 8;
