//! What must be true of a spool after any crash and one recovery: I1 to I8 as far as files show them.
//!
//! For the tests that kill, cut the power and fill the disk. It reads the files as any program would and does
//! not ask our program, so that both cannot be wrong in the same way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agentspool::task::{Request, TaskId, session_of};
use serde_json::Value;

use super::{Task, World, names_in, read_json};

/// The results at some moment. None of them may ever change.
#[derive(Default)]
pub struct Results(BTreeMap<String, String>);

impl Results {
    /// The results that exist now.
    pub fn of(world: &World) -> Results {
        let tasks = world.tasks().into_iter().filter(Task::has_result);
        Results(
            tasks
                .map(|task| (task.id.clone(), task.read("result.json")))
                .collect(),
        )
    }

    /// I6: a result is complete or absent and never changes. A task may have been removed.
    #[track_caller]
    pub fn assert_unchanged(&self, world: &World) {
        for (id, before) in &self.0 {
            let task = world.task(id);
            if task.path.exists() {
                assert_eq!(
                    &task.read("result.json"),
                    before,
                    "the result of {id} changed"
                );
            }
        }
    }
}

/// What a test knows about its spool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Tasks whose id was printed and that were not removed.
    pub acknowledged: &'a [String],
    /// Whether every task should have ended by now.
    pub is_drained: bool,
    /// How many attempts a task may have; 0 stands for 1.
    pub most_attempts: usize,
    /// Whether a status file may be older than its result: the disk refused the write.
    pub status_may_lag: bool,
}

/// Checks everything that holds at any moment at which none of our processes runs.
#[track_caller]
pub fn check(world: &World, known: Known<'_>) {
    for id in known.acknowledged {
        let there = world.path("tasks").join(id).exists();
        assert!(
            there,
            "{id} was acknowledged and is lost\n{}",
            world.describe()
        );
    }
    for name in names_in(&world.path("tasks")) {
        assert!(
            name.parse::<TaskId>().is_ok(),
            "{name} in tasks/ is not a task"
        );
        check_task(world, &world.task(&name), known);
    }
    for name in names_in(&world.path("names")) {
        let target = std::fs::read_link(world.path("names").join(&name)).unwrap();
        let id = target.file_name().unwrap().to_str().unwrap();
        assert!(
            id.parse::<TaskId>().is_ok(),
            "names/{name} leads to {target:?}"
        );
    }
    let survivors = world.processes();
    assert!(survivors.is_empty(), "{survivors:?} are still running");
}

#[track_caller]
fn check_task(world: &World, task: &Task, known: Known<'_>) {
    let id = &task.id;
    // I1: every folder in tasks/ is complete.
    let request = std::fs::read(task.path.join("request.json")).unwrap_or_default();
    assert!(
        Request::parse(&request).is_ok(),
        "{id} has no valid request\n{}",
        world.describe()
    );
    assert!(task.path.join("lock").is_file(), "{id} has no lock");
    // I4 and the limit of attempts.
    let attempts = task.attempts();
    let most = known.most_attempts.max(1);
    assert!(
        attempts <= most,
        "{id} has {attempts} attempts\n{}",
        world.describe()
    );
    let entry = world.path("open").join(id);
    if task.has_result() {
        check_result(world, task, attempts);
        if known.is_drained {
            check_stable(world, task, known);
        }
    } else {
        check_queued(world, task);
        // An extra index entry costs time; a missing one would lose the task.
        assert!(
            entry.exists(),
            "{id} is unfinished and has no index entry\n{}",
            world.describe()
        );
        assert!(
            !known.is_drained,
            "{id} has no result\n{}",
            world.describe()
        );
    }
}

#[track_caller]
fn check_result(world: &World, task: &Task, attempts: usize) {
    let result: Value = read_json(&task.path.join("result.json"));
    let message = || format!("{result}\n{}", world.describe());
    assert_eq!(result["task_id"], task.id, "{}", message());
    let status = result["status"].as_str().unwrap_or_default();
    assert!(
        ["completed", "failed", "cancelled"].contains(&status),
        "{}",
        message()
    );
    assert_eq!(result["ok"], status == "completed", "{}", message());
    let attempt = result["attempt"].as_u64().unwrap();
    assert!(attempt <= attempts as u64, "{}", message());
    // I7: the output file of a result exists, and the output is in only one place.
    if let Some(file) = result["output_file"].as_str() {
        assert!(task.path.join(file).is_file(), "{}", message());
        assert!(result["output"].is_null(), "{}", message());
    }
    // A completed task names its last attempt; a failed one has a kind of error.
    if status == "completed" {
        assert_eq!(attempt, attempts as u64, "{}", message());
        assert_eq!(result["exit_code"], 0, "{}", message());
    } else if status == "failed" {
        assert!(result["error"]["kind"].is_string(), "{}", message());
    }
}

/// The state after a result is finalized: the status agrees, and no index entry and no variable is left.
#[track_caller]
fn check_stable(world: &World, task: &Task, known: Known<'_>) {
    let result = task.result();
    // The shown status agrees even if the file does not.
    let status = if known.status_may_lag {
        world.json(&["status", &task.id])
    } else {
        task.status()
    };
    for key in ["status", "attempt", "error"] {
        assert_eq!(status[key], result[key], "{key}\n{}", world.describe());
    }
    for left in [
        task.path.join("env.json"),
        world.path("open").join(&task.id),
        queue_entry(world, task),
    ] {
        assert!(!left.exists(), "{} is left", left.display());
    }
}

/// An unfinished task of a named session has an entry in the session's queue.
#[track_caller]
fn check_queued(world: &World, task: &Task) {
    let session = task.request()["session_id"].as_str().map(str::to_owned);
    let made = task.id.parse().map(session_of).unwrap();
    if session.is_some_and(|session| session != made.as_str()) {
        let entry = queue_entry(world, task);
        assert!(
            entry.exists(),
            "{} is missing\n{}",
            entry.display(),
            world.describe()
        );
    }
}

fn queue_entry(world: &World, task: &Task) -> PathBuf {
    let request = task.request();
    let session = request["session_id"].as_str().unwrap_or("-");
    world
        .path("sessions")
        .join(session)
        .join("queue")
        .join(&task.id)
}

/// No command shows `running` for a task that is not locked or has no attempt.
#[track_caller]
pub fn assert_no_false_running(world: &World) {
    let listed = world.json(&["list"]);
    for row in listed["tasks"].as_array().unwrap() {
        if row["status"] != "running" {
            continue;
        }
        let task = world.task(row["task_id"].as_str().unwrap());
        // The task may have ended since it was listed.
        let is_true = is_held(&task) || task.has_result();
        assert!(
            is_true && task.attempts() > 0,
            "{row} is not true\n{}",
            world.describe()
        );
    }
}

/// Whether a running process has the lock of the task, as the kernel knows.
pub fn is_held(task: &Task) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(task.path.join("lock"))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// After a sweep nothing half built is left. Files that are removed by age are first made old. A sweep must
/// have recorded the clocks before.
#[track_caller]
pub fn assert_clean_after_sweep(world: &World) {
    assert!(world.path("sweep.json").exists());
    for folder in ["staging", "names", "open", "rejected"] {
        for name in names_in(&world.path(folder)) {
            make_old(&world.path(folder).join(name));
        }
    }
    world.run(&["sweep"]).succeeds();
    for folder in ["staging", "trash"] {
        let left = names_in(&world.path(folder));
        assert!(
            left.is_empty(),
            "{folder}/ has {left:?}\n{}",
            world.describe()
        );
    }
    for folder in ["names", "tasks", "rejected"] {
        let left = names_in(&world.path(folder));
        let hidden: Vec<_> = left.iter().filter(|name| name.starts_with('.')).collect();
        assert!(
            hidden.is_empty(),
            "{folder}/ has {hidden:?}\n{}",
            world.describe()
        );
    }
}

fn make_old(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    // A link has no file to open, and its own time does not count.
    if !path.is_symlink() {
        let _ = std::fs::File::open(path).and_then(|file| file.set_modified(then));
    }
}
