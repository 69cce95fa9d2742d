//! The calls between clone and exec. All unsafe calls of a start are in this file.
//!
//! Does not build their arguments (`plan.rs`) or evaluate the outcome (`begin.rs`). Invariants: until it
//! executes the program, the child only makes system calls: it does not allocate, lock or panic; no
//! signal handler of the runner runs in it.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::futex;

use super::plan::Plan;

/// The size of the child's stack while it borrows this process's memory. It uses less than a tenth of it.
const STACK_BYTES: usize = 32 << 10;
/// The exit code of a child that could not become the recipe. Nothing reads it.
const NO_PROGRAM: c_int = 127;

/// The child leaves this memory by exec or exit. The kernel then clears [`Plan::borrows`]
/// (`CLONE_CHILD_CLEARTID`, as for a thread that is joined). This process is not stopped until then.
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;

/// Memory of this process that a child borrows. It is freed only after the kernel reports that the child
/// has left it.
pub(super) struct Loan {
    plan: Rc<Plan>,
    /// Nothing is pushed: its capacity is the child's stack.
    _stack: Vec<u128>,
}

impl Loan {
    /// The plan that the child reads.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits at most `time` for the child to leave the memory. Returns whether it has left.
    pub fn is_over(&self, time: Duration) -> bool {
        let begun = Instant::now();
        while self.plan.borrows.load(Ordering::Acquire) != 0 {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            let left = left.try_into().ok();
            // A shared futex, because the kernel wakes it as one. Whatever ends the wait, the loop checks
            // the value again.
            let _ = futex::wait(&self.plan.borrows, futex::Flags::empty(), 1, left.as_ref());
        }
        true
    }

    /// Waits until the child has left the memory.
    pub fn wait(&self) {
        while !self.is_over(Duration::from_secs(60)) {}
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Creates the child. Returns its process number, a handle of it and the memory that it borrows.
#[expect(unsafe_code, reason = "clone, which rustix has no form of")]
pub(super) fn clone_child(plan: Rc<Plan>) -> rustix::io::Result<(Pid, OwnedFd, Loan)> {
    let mut stack = Vec::<u128>::with_capacity(STACK_BYTES / size_of::<u128>());
    let room = stack.spare_capacity_mut().as_mut_ptr_range();
    let mut handle: c_int = -1;
    let mut mask = no_signals();
    block_all(&mut mask);
    let shared: *mut c_void = Rc::as_ptr(&plan).cast_mut().cast();
    // SAFETY: the `Loan` keeps plan and stack until the kernel reports that the child has left this
    // memory, and neither moves. Until then both processes only read the plan, except for its atomics.
    // Only the child uses the stack; it grows down from its end, which is aligned for every machine. The
    // child makes system calls through rustix and libc, which may write this thread's errno and nothing
    // else. The kernel writes the handle before either process continues.
    let pid = match plan.cgroup {
        None => unsafe {
            let flags = FLAGS | libc::SIGCHLD;
            let none = ptr::null_mut::<c_void>();
            let borrows = plan.borrows.as_ptr();
            let pid = libc::clone(
                child,
                room.end.cast(),
                flags,
                shared,
                &raw mut handle,
                none,
                borrows,
            );
            check(pid).map(|()| pid)
        },
        Some(cgroup) => unsafe { clone3(&plan, cgroup, room.start.cast(), &raw mut handle) },
    };
    unblock(&mask);
    let pid = pid?;
    // SAFETY: the kernel created the handle in this call and returned the number of a process.
    let (pid, handle) = unsafe { (Pid::from_raw_unchecked(pid), OwnedFd::from_raw_fd(handle)) };
    let loan = Loan {
        plan,
        _stack: stack,
    };
    Ok((pid, handle, loan))
}

/// Like `clone`, but into a cgroup: clone3(2), for which no library has a wrapper. The child starts on
/// its own stack by calling [`child`], which does not return.
///
/// # Safety
/// As for `clone`. `stack` is the lowest byte of [`STACK_BYTES`] bytes that are aligned for every
/// machine.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[expect(unsafe_code, reason = "a system call that returns twice")]
unsafe fn clone3(
    plan: &Plan,
    cgroup: RawFd,
    stack: *mut u8,
    handle: *mut c_int,
) -> rustix::io::Result<c_int> {
    let arguments = clone_arguments(plan, cgroup, stack, handle);
    let plan: *mut c_void = ptr::from_ref(plan).cast_mut().cast();
    let answer: isize;
    // SAFETY: in the parent the call changes only what is named here. The child has the same registers, a
    // stack of its own and nothing to return to.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") plan,
            in("r13") child as extern "C" fn(*mut c_void) -> c_int,
            out("rcx") _,
            out("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") &raw const arguments => answer,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") plan,
            in("x21") child as extern "C" fn(*mut c_void) -> c_int,
        );
    }
    if answer < 0 {
        Err(Errno::from_raw_os_error(-answer as i32))
    } else {
        Ok(answer as c_int)
    }
}

/// The arguments of clone3(2).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[expect(unsafe_code, reason = "a structure of the kernel's that may grow")]
fn clone_arguments(
    plan: &Plan,
    cgroup: RawFd,
    stack: *mut u8,
    handle: *mut c_int,
) -> libc::clone_args {
    /// `CLONE_INTO_CGROUP` of `linux/sched.h`.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all its fields are numbers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = FLAGS as u64 | INTO_CGROUP;
    arguments.pidfd = handle as u64;
    arguments.child_tid = plan.borrows.as_ptr() as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.stack = stack as u64;
    arguments.stack_size = STACK_BYTES as u64;
    arguments.cgroup = cgroup as u64;
    arguments
}

/// Cgroups are not supported on other machines.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[expect(unsafe_code, reason = "the same signature everywhere")]
unsafe fn clone3(_: &Plan, _: RawFd, _: *mut u8, _: *mut c_int) -> rustix::io::Result<c_int> {
    Err(Errno::NOSYS)
}

/// The child's first function. It becomes the recipe, or stores the reason why not and exits.
#[expect(
    unsafe_code,
    reason = "the exit of a process that must not run any code of its parent"
)]
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `clone_child` passed, which stays valid as long as this runs.
    let plan = unsafe { &*plan.cast::<Plan>() };
    plan.has_begun.store(true, Ordering::Release);
    let errno = become_recipe(plan);
    plan.failed.store(errno.raw_os_error(), Ordering::Release);
    // SAFETY: it only ends this process.
    unsafe { libc::_exit(NO_PROGRAM) }
}

/// In the child: applies the settings and becomes the recipe. Returns only if that failed, with the
/// reason.
fn become_recipe(plan: &Plan) -> Errno {
    match set(plan) {
        Ok(()) => execute(plan),
        Err(errno) => errno,
    }
}

/// Applies the settings.
#[expect(unsafe_code, reason = "the calls that rustix has no safe form of")]
fn set(plan: &Plan) -> rustix::io::Result<()> {
    for signal in &plan.defaults {
        // The dispositions are the child's own; only the memory is shared.
        crate::proc::set_default(*signal);
    }
    for (stream, source) in (0..).zip(plan.streams) {
        // SAFETY: the child has its own table of descriptors, and each source is open and is none of the
        // three.
        check(unsafe { libc::dup2(source, stream) })?;
    }
    // SAFETY: the path ends with a zero and outlives the call.
    check(unsafe { libc::chdir(plan.folder.as_ptr()) })?;
    rustix::process::setsid()?;
    // If the runner is killed, the kernel kills the recipe's process. Processes that it left behind are
    // found by their tag.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(plan.runner) {
        // The runner ended before the line above.
        return Err(Errno::SRCH);
    }
    rustix::process::umask(plan.umask);
    if plan.is_alone {
        prefer_for_oom();
    }
    // A full disk must not prevent a start.
    let _ = record_itself(plan.record);
    // The signals have their defaults, so no handler of the runner can run now.
    unblock(&plan.none);
    Ok(())
}

/// Executes the first program that exists. Returns the reason if none can be executed.
#[expect(unsafe_code, reason = "execve, which rustix has no safe form of")]
fn execute(plan: &Plan) -> Errno {
    let environment = plan.environment.pointers.as_ptr();
    let mut refused = None;
    for (program, script) in plan.programs.pointers.iter().zip(&plan.scripts) {
        let arguments = plan.arguments.pointers.as_ptr();
        // SAFETY: lists and texts end as execve wants it and outlive the call.
        unsafe { libc::execve(*program, arguments, environment) };
        let mut errno = last_errno();
        if errno == Errno::NOEXEC {
            // SAFETY: as above.
            unsafe {
                libc::execve(c"/bin/sh".as_ptr(), script.pointers.as_ptr(), environment);
            }
            errno = last_errno();
        }
        match errno {
            Errno::ACCESS => refused = Some(errno),
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT => {}
            _ => return errno,
        }
    }
    refused.unwrap_or(Errno::NOENT)
}

/// The errno of the libc call that just failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(answer: c_int) -> rustix::io::Result<()> {
    if answer < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// The empty set of signals.
#[expect(unsafe_code, reason = "signal sets are filled in by libc")]
pub(super) fn no_signals() -> libc::sigset_t {
    // SAFETY: sigemptyset may fill in a set of zeroes.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

/// Blocks every signal in this thread and in the child that it creates. Stores the previous mask in
/// `before`.
#[expect(unsafe_code, reason = "signal masks, which rustix has no safe form of")]
fn block_all(before: &mut libc::sigset_t) {
    let mut all = no_signals();
    // SAFETY: both sets are initialized.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, before);
    }
}

#[expect(unsafe_code, reason = "signal masks, which rustix has no safe form of")]
fn unblock(before: &libc::sigset_t) {
    // SAFETY: the set is initialized.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
}

/// If memory runs out, the kernel kills the recipe and not the runner, which has to report it.
fn prefer_for_oom() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
    if let Ok(file) = file {
        // Refused only if that would lower the value, which is then already high enough.
        let _ = rustix::io::write(&file, b"500");
    }
}

/// Writes the child's line of `/proc/self/stat` up to the start time. The rest is left out so that the
/// record is never longer than the result that is written over it.
#[expect(unsafe_code, reason = "a descriptor that a plan names by its number")]
fn record_itself(record: RawFd) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let stat = rustix::fs::open(c"/proc/self/stat", flags, Mode::empty())?;
    let mut line = [0u8; 1024];
    let length = rustix::io::read(&stat, &mut line)?;
    // SAFETY: it is open in the child, which has a copy of all descriptors.
    let record = unsafe { BorrowedFd::borrow_raw(record) };
    rustix::io::write(record, up_to_start_time(&line[..length]))?;
    Ok(())
}

/// The first 22 fields. The second field is a name in parentheses that may contain any character.
fn up_to_start_time(line: &[u8]) -> &[u8] {
    let name_ends = line.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let ends = (name_ends..line.len())
        .filter(|at| line[*at] == b' ')
        .nth(20);
    &line[..ends.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_ends_with_the_start_time() {
        let line = b"7 (a ) b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 98\n";
        let short = up_to_start_time(line);
        assert!(short.ends_with(b" 4711"));
        let (entry, _) = crate::proc::parse_stat(short).unwrap();
        assert_eq!(entry.key.start, 4711);
        assert_eq!(up_to_start_time(b"cut"), b"cut");
    }
}
