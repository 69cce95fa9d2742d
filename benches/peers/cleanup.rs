//! Removes mounts and ends processes when this program ends, however it ends.
//!
//! A panic unwinds and drops their guards. For INT, TERM and HUP a thread does the same from these lists. A
//! daemon that was left in a mounted folder is found by the folder's random name in its command line or
//! environment; no other process has that name. Not covered: `kill -9` of this program, after which the user
//! has to unmount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static MOUNTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static PROCESSES: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Cleans up at a signal, and ends this program.
pub fn on_signals() {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .expect("signals can be listened to");
    std::thread::spawn(move || {
        let signal = signals.forever().next().unwrap_or(SIGINT);
        for pid in lock(&PROCESSES).drain(..) {
            end(pid, Signal::KILL);
        }
        for path in lock(&MOUNTS).drain(..) {
            detach(&path);
        }
        crate::image::remove_all();
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
}

/// Remembers a mount that has to be removed.
pub fn note_mount(path: &Path) {
    lock(&MOUNTS).push(path.to_owned());
}

/// Forgets a mount that was removed.
pub fn forget_mount(path: &Path) {
    lock(&MOUNTS).retain(|one| one != path);
}

/// Remembers a process that has to be ended.
pub fn note_process(pid: u32) {
    lock(&PROCESSES).push(pid.cast_signed());
}

/// Forgets a process that was reaped: its number may be given to another process.
pub fn forget_process(pid: u32) {
    lock(&PROCESSES).retain(|one| *one != pid.cast_signed());
}

/// Ends the processes that use a mount, and removes it.
pub fn detach(path: &Path) {
    end_all_in(path);
    let _ = Command::new("umount").arg("-l").arg(path).status();
    let _ = std::fs::remove_dir(path);
}

fn end_all_in(mount: &Path) {
    let name = mount.file_name().unwrap_or_default().as_encoded_bytes();
    let names_it = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(name.len().max(1)).any(|part| part == name)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let pid = process.file_name().to_string_lossy().parse::<i32>();
        if let Ok(pid) = pid
            && (names_it(process.path().join("environ"))
                || names_it(process.path().join("cmdline")))
        {
            end(pid, Signal::KILL);
        }
    }
}

/// Sends a signal to a process that this program started.
pub fn end(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn lock<T>(list: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    // A thread that panicked while it held the lock left a list that is still right.
    list.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
