//! What must be gone when this program is, however it ends: mounts and processes.
//!
//! A panic unwinds and drops their guards; for INT, TERM and HUP a thread does the same by this
//! list. Not held: `kill -9` of this program, after which `umount` is for the person who did it.

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
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
}

/// A mount that is to be taken away.
pub fn note_mount(path: &Path) {
    lock(&MOUNTS).push(path.to_owned());
}

/// It is no more.
pub fn forget_mount(path: &Path) {
    lock(&MOUNTS).retain(|one| one != path);
}

/// A process that is to be ended.
pub fn note_process(pid: u32) {
    lock(&PROCESSES).push(pid.cast_signed());
}

/// It was waited for: its number may be another's from now on.
pub fn forget_process(pid: u32) {
    lock(&PROCESSES).retain(|one| *one != pid.cast_signed());
}

/// Takes a mount away now or as soon as the last process in it ends.
pub fn detach(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
    let _ = std::fs::remove_dir(path);
}

/// Sends a signal to a process of ours.
pub fn end(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

fn lock<T>(list: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    // Whoever panicked with it left a list that is still right.
    list.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
