//! Whether the kernel killed a process of an attempt because memory ran out.
//!
//! Does not set limits (`systemd.rs`). The answer comes from the counter of the cgroup, which counts for
//! one task only if the task is its own unit. Everywhere else a KILL is a signal like any other.
//! Invariant: out of memory is reported only if the counter of the task's own cgroup shows it.

use super::systemd::name_of;
use crate::proc;
use crate::task::{Exit, Outcome, TaskId};

/// The number of processes that the kernel killed in this task's cgroup. `None` if the task has no cgroup
/// of its own, as with runners of a pool, which run many tasks.
pub(crate) fn kills(id: TaskId) -> Option<u64> {
    let own = proc::read_text("/proc/self/cgroup")?;
    let unit = format!("/{}", name_of(id));
    own.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let file = if !path.ends_with(&unit) {
            return None;
        } else if controllers.is_empty() {
            format!("/sys/fs/cgroup{path}/memory.events")
        } else if controllers == "memory" {
            format!("/sys/fs/cgroup/memory{path}/memory.oom_control")
        } else {
            return None;
        };
        let text = proc::read_text(file)?;
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    })
}

/// The outcome of a recipe that exited by itself; `before` is the counter before it started.
pub(crate) fn outcome(id: TaskId, before: Option<u64>, exit: Exit) -> Outcome {
    let outcome = Outcome::of_exit(exit);
    let rose = before.is_some() && kills(id) > before;
    match outcome.error() {
        Some(error) if rose => Outcome::out_of_memory(&error.message),
        Some(_) | None => outcome,
    }
}
