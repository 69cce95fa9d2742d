//! What tests ask the kernel about processes, and how they signal them.
//!
//! Invariant: only pids that a spool's own files name are signalled, and only while the process belongs to
//! the test's world.

use std::path::Path;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{Task, World, read_json};

impl Task {
    /// `run.json` of an attempt.
    pub fn run_file(&self, attempt: u32) -> Value {
        read_json(&self.path.join(format!("attempts/{attempt}/run.json")))
    }

    /// A file or folder in an attempt's work folder.
    pub fn work(&self, attempt: u32, name: &str) -> std::path::PathBuf {
        self.path.join(format!("attempts/{attempt}/work/{name}"))
    }
}

impl World {
    /// Waits until a recipe has created a file in its work folder.
    #[track_caller]
    pub fn wait_for_file(&self, path: &Path) {
        self.wait_until(&format!("{} exists", path.display()), || path.exists());
    }

    /// Waits until the record of a running attempt names its processes: `(runner, child)`.
    #[track_caller]
    pub fn processes_of(&self, task: &Task, attempt: u32) -> (i32, i32) {
        let path = task.path.join(format!("attempts/{attempt}/run.json"));
        let mut found = None;
        self.wait_until(&format!("{} names the child", path.display()), || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let run: Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = |key: &str| run[key]["pid"].as_i64().map(|pid| pid as i32);
            found = pid("runner").zip(pid("child"));
            found.is_some()
        });
        found.unwrap()
    }

    /// Signals a process that a file of this world named.
    pub fn signal(&self, pid: i32, signal: Signal) {
        let pid = Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Runners of this world, by their arguments. A recipe that is not executed yet has its runner's
    /// arguments; it is recognized by its parent.
    pub fn runners(&self) -> Vec<i32> {
        let mut alike: Vec<i32> = self
            .processes()
            .into_iter()
            .filter(|(_, command)| command.trim_end().ends_with(" runner"))
            .map(|(pid, _)| pid)
            .collect();
        let all = alike.clone();
        alike.retain(|pid| parent_of(*pid).is_some_and(|parent| !all.contains(&parent)));
        alike
    }
}

/// The state letter of a process; `None` if it does not exist.
pub fn state(pid: i32) -> Option<char> {
    stat_fields(pid)?.first()?.chars().next()
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Clock ticks that a process has used, user and system.
pub fn ticks(pid: i32) -> u64 {
    let fields = stat_fields(pid).unwrap();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The parent of a process; `None` if it does not exist.
fn parent_of(pid: i32) -> Option<i32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// The session of a process.
pub fn session_of(pid: i32) -> Option<i32> {
    stat_fields(pid)?.get(3)?.parse().ok()
}

/// The fields of `/proc/<pid>/stat` after the program's name: the first one is the state.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}
