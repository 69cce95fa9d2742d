//! Whether the kernel ended a process of an attempt for lack of memory.
//!
//! Told by the counter of the cgroup, which speaks of one task only where that task is a unit of its
//! own; everywhere else a KILL stays a signal like any other. Invariant: nothing is claimed that the
//! counter of the task's own cgroup does not show.

use super::systemd::name_of;
use crate::proc;
use crate::task::{Exit, Outcome, TaskId};

/// How often the kernel did so in this task's cgroup; `None` when it has none of its own, as with
/// every runner of a pool, which is for many tasks.
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

/// What the recipe's end by itself means, knowing the counter from before.
pub(crate) fn outcome(id: TaskId, before: Option<u64>, exit: Exit) -> Outcome {
    let outcome = Outcome::of_exit(exit);
    let rose = before.is_some() && kills(id) > before;
    match outcome.error() {
        Some(error) if rose => Outcome::out_of_memory(&error.message),
        Some(_) | None => outcome,
    }
}
