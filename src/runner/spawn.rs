//! Starting the recipe's process, without copying this one first.
//!
//! Not its command (`command.rs`), not how long a start may take (`start.rs`) and not its end
//! (`group.rs`). `fork` copies the page tables of
//! the runner, and both sides then fault for every page they touch, which cost a short task more than a
//! tenth of all its time (docs/design/0021-starting-without-a-copy.md); here the child borrows the runner's
//! memory until it is the recipe, as `posix_spawn` does, which has no room for our settings.
//! Where the runner has a cgroup, the child is born in it: to enter it later would stop all forks of the
//! machine for some milliseconds.
//! Invariants: until it executes the program the child makes system calls and nothing else, and no
//! signal handler of the runner's ever runs in it; and what it borrows stays until the kernel says that
//! the child has left it.

use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::futex;

use super::command::Command;
use super::control::STOPPING;
use crate::spool::Files;

/// What the child has for a stack while it borrows this process's memory; it needs less than a
/// tenth of it.
const STACK_BYTES: usize = 32 << 10;
/// Where programs are looked for without a PATH, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Handlers that the runner has, or may have from Rust's own start: they must not run in the child,
/// and what is ignored here must not be in the recipe.
const HANDLED: [c_int; 6] = [
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGXFSZ,
    libc::SIGTTOU,
];
/// What a child that could not become the recipe ends with; nobody sees it.
const NO_PROGRAM: c_int = 127;

/// The settings that are made between clone and exec.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    /// Its stdin, stdout and stderr.
    pub files: &'a Files,
    pub umask: u32,
    /// Where the child writes its line of `/proc` before it is the recipe.
    pub record: &'a File,
    /// Whether its cgroup is the task's alone.
    pub is_alone: bool,
    /// Signals that this process was started with ignored.
    pub ignored: &'a [c_int],
    /// The cgroup that it is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Those of these signals that a start does not set back to their defaults anyway.
pub(super) fn not_reset_anyway(mut signals: Vec<c_int>) -> Vec<c_int> {
    signals.retain(|signal| !STOPPING.contains(signal) && !HANDLED.contains(signal));
    signals
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// The kernel refuses to start one in that cgroup. Nothing ran; without the cgroup it may work.
    #[error("failed to start a process in the runner's cgroup: {0}")]
    Cgroup(io::Error),
    /// The kernel's reason.
    #[error(transparent)]
    Other(#[from] io::Error),
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> SpawnError {
        SpawnError::Other(errno.into())
    }
}

/// Texts as exec takes them, each made of pieces: one run of bytes, and where each text begins.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    begins: Vec<usize>,
}

/// The same with a null pointer at the end, which is the form that exec takes.
struct List {
    _bytes: Vec<u8>,
    pointers: Vec<*const c_char>,
}

impl Texts {
    /// Adds a text.
    ///
    /// # Errors
    /// It holds a zero, which ends a text for the kernel.
    fn push(&mut self, pieces: &[&OsStr]) -> io::Result<()> {
        self.begins.push(self.bytes.len());
        for piece in pieces {
            if piece.as_bytes().contains(&0) {
                let why = format!("{} holds a zero byte", Path::new(piece).display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            self.bytes.extend_from_slice(piece.as_bytes());
        }
        self.bytes.push(0);
        Ok(())
    }

    fn into_list(self) -> List {
        let begins = self.begins.iter();
        let texts = begins.map(|at| self.bytes[*at..].as_ptr().cast());
        List {
            pointers: texts.chain([ptr::null()]).collect(),
            // Moving it does not move what it points to.
            _bytes: self.bytes,
        }
    }
}

/// All that the child reads. It is made before, because the child may not allocate. The descriptors stay
/// open until the start is over.
struct Plan {
    /// Tried one after the other: one path, or one for each folder of PATH.
    programs: List,
    /// `/bin/sh`, the program and its arguments, for each program: what execvp(3) does with a
    /// script that names no interpreter.
    scripts: Vec<List>,
    arguments: List,
    environment: List,
    folder: CString,
    /// Become 0, 1 and 2.
    streams: [RawFd; 3],
    record: RawFd,
    cgroup: Option<RawFd>,
    is_alone: bool,
    /// Signals that are set back to what they do by default.
    defaults: Vec<c_int>,
    runner: Pid,
    umask: Mode,
    none: libc::sigset_t,
    /// 1 as long as the child is in this process's memory. The kernel writes the 0 and wakes who waits for it.
    borrows: AtomicU32,
    /// Whether the child came to run at all.
    has_begun: AtomicBool,
    /// Why the child could not become the recipe, 0 while it can: written by it, read once it is gone.
    failed: AtomicI32,
}

/// A process that is on its way to the recipe: the kernel reads the program, which takes as long as its disk.
pub(super) struct Start {
    pid: Pid,
    /// `None` once it was handed on.
    handle: Option<OwnedFd>,
    plan: Rc<Plan>,
    /// Nothing is ever pushed: its room is the child's.
    _stack: Vec<u128>,
}

impl Start {
    /// Begins to start the command as the leader of a session of its own, which the kernel kills should the
    /// calling thread end.
    ///
    /// # Errors
    /// A text that no program can be given, or the kernel's reason why there is no such process: nothing runs
    /// then.
    pub fn begin(command: &Command<'_>, setting: &Setting<'_>) -> Result<Start, SpawnError> {
        clone_with(Rc::new(Plan::new(command, setting)?))
    }

    /// Waits so long until the child is the recipe or gone; whether it is.
    pub fn is_over(&self, time: Duration) -> bool {
        let begun = Instant::now();
        while self.plan.borrows.load(Ordering::Acquire) != 0 {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            let left = left.try_into().ok();
            // Shared, as the kernel wakes it. Woken, over already or disturbed: it is looked at again.
            let _ = futex::wait(&self.plan.borrows, futex::Flags::empty(), 1, left.as_ref());
        }
        true
    }

    /// Kills the child, also where a filter of system calls refuses handles: nobody has reaped it yet.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// The recipe's number and a handle of it. Waits until the start is over.
    ///
    /// # Errors
    /// The kernel's reason why it did not become the recipe: nothing of it runs then.
    pub fn finish(mut self) -> Result<(Pid, OwnedFd), SpawnError> {
        self.wait();
        let failed = self.plan.failed.load(Ordering::Acquire);
        let error = if failed != 0 {
            SpawnError::from(Errno::from_raw_os_error(failed))
        } else if self.plan.cgroup.is_some() && !self.plan.has_begun.load(Ordering::Acquire) {
            // Killed as it was born: its cgroup is being killed, or was before (Linux 6.6 and newer).
            SpawnError::Cgroup(Errno::CANCELED.into())
        } else if let Some(handle) = self.handle.take() {
            return Ok((self.pid, handle));
        } else {
            SpawnError::from(Errno::BADF)
        };
        // It has ended, and is reaped here: nobody else knows of it.
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
        Err(error)
    }

    fn wait(&self) {
        while !self.is_over(Duration::from_secs(60)) {}
    }
}

impl Drop for Start {
    /// What the child borrows is given back only once it has left it.
    fn drop(&mut self) {
        self.wait();
    }
}

impl Plan {
    /// # Errors
    /// A text that no program can be given.
    fn new(command: &Command<'_>, setting: &Setting<'_>) -> io::Result<Plan> {
        let arguments: Vec<&OsStr> = command.arguments.iter().map(OsString::as_os_str).collect();
        let mut programs = Texts::default();
        let mut scripts = Vec::new();
        for program in candidates(command)? {
            programs.push(&[program.as_os_str()])?;
            let shell = [OsStr::new("/bin/sh"), program.as_os_str()];
            scripts.push(list_of(shell.into_iter().chain(arguments.iter().copied()))?);
        }
        let mut environment = Texts::default();
        for (name, value) in &command.environment {
            environment.push(&[name, OsStr::new("="), value])?;
        }
        let files = setting.files;
        let streams = [&files.stdin, &files.stdout, &files.stderr].map(AsRawFd::as_raw_fd);
        if streams.iter().any(|stream| *stream <= libc::STDERR_FILENO) {
            // Rust keeps these three open from the start, so no file of ours ever is one of them.
            return Err(Errno::BADF.into());
        }
        let signals = STOPPING.into_iter().chain(HANDLED);
        Ok(Plan {
            programs: programs.into_list(),
            scripts,
            arguments: list_of([command.program.as_os_str()].into_iter().chain(arguments))?,
            environment: environment.into_list(),
            folder: CString::new(command.folder.as_os_str().as_bytes())?,
            streams,
            record: setting.record.as_raw_fd(),
            cgroup: setting.cgroup.map(|cgroup| cgroup.as_raw_fd()),
            is_alone: setting.is_alone,
            defaults: signals.chain(setting.ignored.iter().copied()).collect(),
            runner: rustix::process::getpid(),
            umask: Mode::from_raw_mode(setting.umask),
            none: no_signals(),
            borrows: AtomicU32::new(1),
            has_begun: AtomicBool::new(false),
            failed: AtomicI32::new(0),
        })
    }

    /// In the child: makes the settings and becomes the recipe. Returns only why it could not.
    fn become_recipe(&self) -> Errno {
        match self.set() {
            Ok(()) => self.execute(),
            Err(errno) => errno,
        }
    }

    #[expect(unsafe_code, reason = "the calls that rustix has no safe form of")]
    fn set(&self) -> rustix::io::Result<()> {
        for signal in &self.defaults {
            // The dispositions are the child's own; only the memory is shared.
            crate::proc::set_default(*signal);
        }
        for (stream, source) in (0..).zip(self.streams) {
            // SAFETY: the table of descriptors is the child's own, and each source is open and
            // none of the three.
            check(unsafe { libc::dup2(source, stream) })?;
        }
        // SAFETY: the path ends with a zero and outlives the call.
        check(unsafe { libc::chdir(self.folder.as_ptr()) })?;
        rustix::process::setsid()?;
        // Should the runner die, the kernel ends the recipe's process; what it left behind is
        // found by its mark.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(self.runner) {
            // It died before the line above.
            return Err(Errno::SRCH);
        }
        rustix::process::umask(self.umask);
        if self.is_alone {
            prefer_for_oom();
        }
        // A full disk must not keep anything from running.
        let _ = record_itself(self.record);
        // No handler of the runner's is left that could run now.
        unblock(&self.none);
        Ok(())
    }

    #[expect(unsafe_code, reason = "execve, which rustix has no safe form of")]
    fn execute(&self) -> Errno {
        let environment = self.environment.pointers.as_ptr();
        let mut refused = None;
        for (program, script) in self.programs.pointers.iter().zip(&self.scripts) {
            let arguments = self.arguments.pointers.as_ptr();
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
}

/// The child leaves our memory by exec or exit and is never stopped for it: the kernel then clears
/// [`Plan::borrows`] (`CLONE_CHILD_CLEARTID`, as for a thread that is joined).
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;

/// Makes the child.
#[expect(unsafe_code, reason = "clone, which rustix has no form of")]
fn clone_with(plan: Rc<Plan>) -> Result<Start, SpawnError> {
    let mut stack = Vec::<u128>::with_capacity(STACK_BYTES / size_of::<u128>());
    let room = stack.spare_capacity_mut().as_mut_ptr_range();
    let mut handle: c_int = -1;
    let mut mask = no_signals();
    block_all(&mut mask);
    let shared: *mut c_void = Rc::as_ptr(&plan).cast_mut().cast();
    // SAFETY: `Start` keeps plan and stack until the kernel has said that the child has left this memory, and
    // neither moves. Meanwhile both sides only read the plan, but for its atomics, and the stack is the child's
    // alone; it grows down from its end, which is aligned for any machine. The child makes system calls, through rustix and libc, which may write
    // this thread's errno and nothing else. The kernel writes the handle before either side goes on.
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
            check(pid).map(|()| pid).map_err(SpawnError::from)
        },
        Some(cgroup) => unsafe { clone3(&plan, cgroup, room.start.cast(), &raw mut handle) }
            .map_err(|errno| match errno {
                Errno::AGAIN | Errno::NOMEM | Errno::INTR => SpawnError::from(errno),
                errno => SpawnError::Cgroup(errno.into()),
            }),
    };
    unblock(&mask);
    let pid = pid?;
    // SAFETY: the kernel made the handle for this call, and gave the number of a process.
    let (pid, handle) = unsafe { (Pid::from_raw_unchecked(pid), OwnedFd::from_raw_fd(handle)) };
    Ok(Start {
        pid,
        handle: Some(handle),
        plan,
        _stack: stack,
    })
}

/// Like `clone`, into a cgroup: clone3(2), which no library has a form of. The child begins on its own
/// stack by calling [`child`], which does not return.
///
/// # Safety
/// As for `clone`; `stack` is the lowest byte of [`STACK_BYTES`] bytes that are aligned for any machine.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[expect(unsafe_code, reason = "a system call that returns twice")]
unsafe fn clone3(
    plan: &Plan,
    cgroup: RawFd,
    stack: *mut u8,
    handle: *mut c_int,
) -> rustix::io::Result<c_int> {
    /// `CLONE_INTO_CGROUP` of `linux/sched.h`.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all of its fields are numbers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = FLAGS as u64 | INTO_CGROUP;
    arguments.pidfd = handle as u64;
    arguments.child_tid = plan.borrows.as_ptr() as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.stack = stack as u64;
    arguments.stack_size = STACK_BYTES as u64;
    arguments.cgroup = cgroup as u64;
    let plan: *mut c_void = ptr::from_ref(plan).cast_mut().cast();
    let answer: isize;
    // SAFETY: in the parent the call changes what is named here and no more. The child has the same
    // registers, a stack of its own and nothing to return to.
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

/// No cgroup on other machines.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[expect(unsafe_code, reason = "the same signature everywhere")]
unsafe fn clone3(_: &Plan, _: RawFd, _: *mut u8, _: *mut c_int) -> rustix::io::Result<c_int> {
    Err(Errno::NOSYS)
}

/// The child's first function: it becomes the recipe or leaves the reason and goes.
#[expect(
    unsafe_code,
    reason = "the end of a process that must not run anything of its parent's"
)]
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `clone_with` handed over, which stays as long as this runs.
    let plan = unsafe { &*plan.cast::<Plan>() };
    plan.has_begun.store(true, Ordering::Release);
    let errno = plan.become_recipe();
    plan.failed.store(errno.raw_os_error(), Ordering::Release);
    // SAFETY: it ends this process and nothing else.
    unsafe { libc::_exit(NO_PROGRAM) }
}

/// The paths to try, as execvp(3) would with the recipe's own PATH.
fn candidates(command: &Command<'_>) -> io::Result<Vec<PathBuf>> {
    let program = &command.program;
    if program.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    if program.as_os_str().as_bytes().contains(&b'/') {
        return Ok(vec![program.clone()]);
    }
    let search = command.environment.get(OsStr::new("PATH"));
    let search = search.map_or(OsStr::new(DEFAULT_PATH), |search| &**search);
    // An empty folder in it is the one the recipe runs in.
    let folders = std::env::split_paths(search);
    Ok(folders
        .map(|folder| Path::new(".").join(folder).join(program))
        .collect())
}

fn list_of<'a>(texts: impl Iterator<Item = &'a OsStr>) -> io::Result<List> {
    let mut list = Texts::default();
    for text in texts {
        list.push(&[text])?;
    }
    Ok(list.into_list())
}

/// Of the libc call that failed just now.
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

#[expect(unsafe_code, reason = "signal sets are filled in by libc")]
fn no_signals() -> libc::sigset_t {
    // SAFETY: a set of zeroes is one that sigemptyset may fill in.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

/// Blocks every signal in this thread and in the child it makes; `before` is what was blocked.
#[expect(unsafe_code, reason = "signal masks, which rustix has no safe form of")]
fn block_all(before: &mut libc::sigset_t) {
    let mut all = no_signals();
    // SAFETY: both sets are whole.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, before);
    }
}

#[expect(unsafe_code, reason = "signal masks, which rustix has no safe form of")]
fn unblock(before: &libc::sigset_t) {
    // SAFETY: the set is whole.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
}

/// Should memory run out, the recipe goes and not the runner that has to tell of it.
fn prefer_for_oom() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty());
    if let Ok(file) = file {
        // Refused only where it would be lowered: then it is high already.
        let _ = rustix::io::write(&file, b"500");
    }
}

/// Says who the child is, in the kernel's own words: the fields of `/proc/self/stat` up to the start
/// time, so that the record is never longer than the result that is written over it.
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

/// The first 22 fields; the second is a name in parentheses that may hold anything.
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

    #[test]
    fn a_zero_is_refused() {
        let refused = list_of([OsStr::new("a\0b")].into_iter());
        assert!(refused.is_err());
    }
}
