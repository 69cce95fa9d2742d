//! A short time slice for this process, so that it gets the processor soon.
//!
//! Does not raise the priority. A log that grows by gigabytes a second has to be cut within milliseconds,
//! even on a machine with more runnable processes than processors. Since Linux 6.12 an ordinary process
//! may ask for a short slice: it then waits less for the processor and gets no more of it than before.
//! Invariants: another policy or a negative nice value that was set is kept; a kernel without this
//! feature changes nothing; processes that this one starts have the usual slice.

/// The shortest slice that the kernel accepts.
const SLICE_NS: u64 = 100_000;

/// Asks for the short slice. Best effort.
#[expect(unsafe_code, reason = "sched_setattr, which rustix has no form of")]
pub(super) fn be_nimble() {
    // SAFETY: takes and returns a number.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // The call also sets the nice value, to its present value. A negative value would no longer be
    // inherited.
    let nice = rustix::process::getpriority_process(None);
    let Some(nice) = nice
        .ok()
        .filter(|nice| policy == libc::SCHED_OTHER && *nice >= 0)
    else {
        return;
    };
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as the size says, and the structure lives until then.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
