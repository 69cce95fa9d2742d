//! The signals that a runner listens to or has handlers for, and how its recipe gets them back.
//!
//! Not what follows from one (`control.rs`). Invariant: no signal is ignored in a recipe that is not ignored there by its
//! own will.

use std::ffi::c_int;

/// Signals that stop a runner. Being caught here they are back at their defaults in the recipe,
/// also where this process was started with them ignored.
pub(super) const STOPPING: [c_int; 4] = [
    signal_hook::consts::SIGTERM,
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGQUIT,
    signal_hook::consts::SIGHUP,
];

/// Handlers that the runner has, or may have from Rust's own start: they must not run in the child,
/// and what is ignored here must not be in the recipe.
pub(super) const HANDLED: [c_int; 6] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGXFSZ,
    libc::SIGTTOU,
];

/// Those of these signals that a start does not set back to their defaults anyway.
pub(super) fn not_reset_anyway(mut signals: Vec<c_int>) -> Vec<c_int> {
    signals.retain(|signal| !STOPPING.contains(signal) && !HANDLED.contains(signal));
    signals
}
