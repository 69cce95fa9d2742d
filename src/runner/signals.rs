//! The signals that a runner handles, and how they are reset in its recipe.
//!
//! Does not act on them (`control.rs`). Invariant: a recipe ignores a signal only if it chose to.

use std::ffi::c_int;

/// Signals that stop a runner. A caught signal is reset to its default in the recipe, even if this
/// process was started with the signal ignored.
pub(super) const STOPPING: [c_int; 4] = [
    signal_hook::consts::SIGTERM,
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGQUIT,
    signal_hook::consts::SIGHUP,
];

/// Signals that the runner handles or ignores, or that Rust's startup may have set. The child must not
/// run these handlers, and the recipe must not inherit an ignored signal.
pub(super) const HANDLED: [c_int; 6] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGXFSZ,
    libc::SIGTTOU,
];

/// The signals that a start does not already reset to their defaults.
pub(super) fn not_reset_anyway(mut signals: Vec<c_int>) -> Vec<c_int> {
    signals.retain(|signal| !STOPPING.contains(signal) && !HANDLED.contains(signal));
    signals
}
