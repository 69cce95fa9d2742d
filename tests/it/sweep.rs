//! What is removed from a spool and when: ages, limits, leftovers, clocks, and concurrent sweeps.
//!
//! Ages are created with settings of 0 and with files that have an older date, never by waiting. Not the
//! arithmetic of plans (unit tests of `sweeper/plan.rs`) and not `clear`. Invariant: only finished tasks are
//! removed, only by a clock that can be trusted, and a dry run changes nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use agentspool::task::TaskId;
use serde_json::{Value, json};

use crate::support::{Ran, Task, World, names_in, read_json};

/// Finished tasks are due at once, and nothing runs by itself.
fn world() -> World {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe("bad", "#!/bin/sh\nexit 3\n");
    world.set("autostart", "false");
    world.set("cleanup_delay_sec", "0");
    world
}

fn finished(world: &World, recipe: &str) -> Task {
    let task = world.submit(&[recipe]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    assert!(task.has_result());
    task
}

fn sweep(world: &World) -> Value {
    let swept = world.json(&["sweep"]);
    assert_eq!(swept["ok"], true, "{swept}");
    swept
}

/// A pass that only records the clocks.
fn first_pass(world: &World) {
    let swept = sweep(world);
    assert_ne!(swept["only_recorded"], Value::Null, "{swept}");
}

/// A first pass as in a spool that has been swept for a long time: earlier ages count.
fn first_of_many(world: &World) {
    first_pass(world);
    let path = world.path("sweep.json");
    let mut clocks: Value = crate::support::read_json(&path);
    clocks["ages_from"] = json!("2020-01-01T00:00:00.000Z");
    fs::write(path, clocks.to_string()).unwrap();
}

/// Every file and folder below a folder with its content, as one text.
fn snapshot(folder: &Path) -> String {
    let mut names = names_in(folder);
    names.sort();
    let mut text = String::new();
    for name in names {
        let path = folder.join(&name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let changed = metadata.modified().unwrap();
        if metadata.is_dir() {
            text += &format!("{}/ {changed:?}\n{}", path.display(), snapshot(&path));
        } else if metadata.is_symlink() {
            text += &format!("{} -> {:?}\n", path.display(), fs::read_link(&path));
        } else {
            text += &format!(
                "{} {changed:?} {:?}\n",
                path.display(),
                fs::read(&path).unwrap()
            );
        }
    }
    text
}

fn date_back(path: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    fs::File::open(path).unwrap().set_modified(then).unwrap();
}

const DAY: Duration = Duration::from_secs(86_400);

fn old_id(age: Duration) -> String {
    let then = SystemTime::now() - age;
    let ms = then.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    TaskId::from_parts(u64::try_from(ms.as_millis()).unwrap(), 9).to_string()
}

#[test]
fn the_first_pass_only_records_and_the_second_removes() {
    let world = world();
    let (ok, bad) = (finished(&world, "ok"), finished(&world, "bad"));
    let cancelled = world.submit(&["ok"]);
    world.run(&["cancel", &cancelled.id]).succeeds();
    first_pass(&world);
    assert_eq!(world.tasks().len(), 3);
    let clock = read_json(&world.path("sweep.json"));
    for key in ["v", "wall", "boottime_sec", "boot"] {
        assert_ne!(clock[key], Value::Null, "{key}");
    }

    let swept = sweep(&world);
    assert_eq!(swept["only_recorded"], Value::Null);
    assert_eq!(swept["task_ids"], json!([ok.id, cancelled.id]));
    assert_eq!(swept["cleared"], 2);
    assert!(swept["freed_bytes"].as_u64().unwrap() > 0);
    assert_eq!(world.only_task().id, bad.id);
    world.run(&["status", &ok.id]).ends_with(7);

    world.set("failed_cleanup_delay_sec", "0");
    assert_eq!(sweep(&world)["task_ids"], json!([bad.id]));
    assert!(world.tasks().is_empty());
    assert!(names_in(&world.path("trash")).is_empty());
}

#[test]
fn young_tasks_are_kept() {
    let world = world();
    world.set("cleanup_delay_sec", "3600");
    let task = finished(&world, "ok");
    first_pass(&world);
    assert_eq!(sweep(&world)["cleared"], 0);
    assert_eq!(world.only_task().id, task.id);
}

#[test]
fn json_has_the_documented_keys() {
    let world = world();
    let swept = sweep(&world);
    let keys: Vec<&str> = swept
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "ok",
            "dry_run",
            "busy",
            "only_recorded",
            "cleared",
            "task_ids",
            "skipped",
            "rejected",
            "litter",
            "names",
            "sessions",
            "freed_bytes",
            "mounted",
            "errors"
        ]
    );
}

#[test]
fn limits_remove_the_oldest_first() {
    let world = world();
    world.set("cleanup_delay_sec", "3600");
    let tasks: Vec<Task> = (0..4).map(|_| finished(&world, "ok")).collect();
    first_pass(&world);
    world.set("max_finished_tasks", "3");
    assert_eq!(sweep(&world)["task_ids"], json!([tasks[0].id]));
    world.set("max_finished_bytes", "1");
    let rest: Vec<&str> = tasks[1..].iter().map(|task| task.id.as_str()).collect();
    assert_eq!(sweep(&world)["task_ids"], json!(rest));
}

#[test]
fn running_pending_and_locked_tasks_are_never_removed() {
    let world = world();
    world.set("max_finished_tasks", "0");
    let gate = world.root().join("gate");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.05; done\n",
        gate.display()
    );
    world.recipe("gate", &script);
    let running = world.submit(&["gate"]);
    let mut runner = world
        .command(&["runner", "--once", &running.id])
        .spawn()
        .unwrap();
    world.wait_running(&running);
    let pending = world.submit(&["ok"]);
    let held = finished(&world, "ok");
    let lock = fs::File::open(held.path.join("lock")).unwrap();
    lock.try_lock().unwrap();
    first_pass(&world);
    let swept = sweep(&world);
    assert_eq!(swept["cleared"], 0, "{swept}");
    assert_eq!(swept["skipped"], json!([held.id]));
    assert_eq!(world.tasks().len(), 3);
    drop(lock);
    assert_eq!(sweep(&world)["task_ids"], json!([held.id]));
    fs::write(&gate, "").unwrap();
    assert!(runner.wait().unwrap().success());
    assert_eq!(running.result()["status"], "completed");
    assert!(!pending.has_result());
}

#[test]
fn names_are_removed_with_their_tasks() {
    let world = world();
    let named = world.submit(&["ok", "--name", "report"]);
    world.run(&["runner", "--once", &named.id]).succeeds();
    // A name is any link to the task, also one that a person created.
    let again = format!("../tasks/{}", named.id);
    std::os::unix::fs::symlink(again, world.path("names/again")).unwrap();
    let kept = world.submit(&["ok", "--name", "kept"]);
    let nowhere = format!("../tasks/{}", old_id(DAY));
    std::os::unix::fs::symlink(nowhere, world.path("names/dangling")).unwrap();
    let unplaced = format!(".{}.link", old_id(DAY));
    std::os::unix::fs::symlink("x", world.path("names").join(unplaced)).unwrap();
    first_pass(&world);
    let swept = sweep(&world);
    assert_eq!(swept["task_ids"], json!([named.id]));
    assert_eq!((&swept["names"], &swept["litter"]), (&json!(1), &json!(1)));
    assert_eq!(names_in(&world.path("names")), ["kept"]);
    assert_eq!(world.json(&["status", "kept"])["task_id"], kept.id);
}

/// Before the first pass there is no record to compare the clock with.
#[test]
fn ages_start_with_the_first_pass() {
    let world = world();
    let file = world
        .path("rejected")
        .join(format!("{}-x", old_id(40 * DAY)));
    fs::write(file.with_extension("json"), "[]").unwrap();
    first_pass(&world);
    assert_eq!(sweep(&world)["rejected"], 0);
    assert_eq!(names_in(&world.path("rejected")).len(), 1);
}

#[test]
fn refused_drops_are_removed_by_age() {
    let world = world();
    for id in [old_id(40 * DAY), old_id(20 * DAY)] {
        let file = world.path("rejected").join(format!("{id}-x"));
        fs::write(file.with_extension("json"), "[]").unwrap();
        fs::write(file.with_extension("reason.json"), "{}").unwrap();
    }
    let folder = world
        .path("rejected")
        .join(format!("{}-dir.json", old_id(31 * DAY)));
    fs::create_dir_all(&folder).unwrap();
    first_of_many(&world);
    assert_eq!(sweep(&world)["rejected"], 3);
    assert_eq!(names_in(&world.path("rejected")).len(), 2);
    world.set("rejected_keep_sec", "86400");
    assert_eq!(sweep(&world)["rejected"], 2);
    assert!(names_in(&world.path("rejected")).is_empty());
}

#[test]
fn leftovers_are_removed_unless_they_are_locked() {
    let world = world();
    let staged = |name: &str, lock: bool| {
        let folder = world.path("staging").join(name);
        fs::create_dir_all(folder.join("attempts")).unwrap();
        if lock {
            fs::write(folder.join("lock"), "").unwrap();
        }
        folder
    };
    let unlocked = old_id(Duration::ZERO);
    let (held, young, aged) = (old_id(DAY), old_id(2 * DAY), old_id(3 * DAY));
    staged(&unlocked, true);
    fs::write(world.path("open").join(&unlocked), "").unwrap();
    let lock = fs::File::open(staged(&held, true).join("lock")).unwrap();
    lock.try_lock().unwrap();
    staged(&young, false);
    let folder = staged(&aged, false);
    fs::remove_dir(folder.join("attempts")).unwrap();
    date_back(&folder, DAY);
    // A drop in a claim is not removed at any age.
    let claim = world
        .path("staging")
        .join(format!("{}.claim", old_id(4 * DAY)));
    fs::create_dir(&claim).unwrap();
    fs::write(claim.join("x.json"), "{").unwrap();
    date_back(&claim, DAY);
    fs::create_dir_all(
        world
            .path("trash")
            .join(format!("{}.00000000/in", old_id(DAY))),
    )
    .unwrap();

    first_pass(&world);
    sweep(&world);
    let mut left = names_in(&world.path("staging"));
    left.sort();
    let mut expected = vec![
        held,
        young,
        claim.file_name().unwrap().to_str().unwrap().to_owned(),
    ];
    expected.sort();
    assert_eq!(left, expected);
    assert!(names_in(&world.path("trash")).is_empty());
    assert!(
        !world.path("open").join(unlocked).exists(),
        "its index entry is left"
    );
    drop(lock);
    sweep(&world);
    assert_eq!(names_in(&world.path("staging")).len(), 2);
}

#[test]
fn unused_sessions_are_removed_unless_a_task_waits_in_them() {
    let world = world();
    world.set("session_keep_sec", "86400");
    let session = |name: &str| {
        let folder = world.path("sessions").join(name);
        fs::create_dir_all(folder.join("queue")).unwrap();
        fs::create_dir_all(folder.join("state")).unwrap();
        fs::write(folder.join("state/memory"), "x").unwrap();
        folder
    };
    let age = |folder: &Path| {
        for below in ["state/memory", "state", "queue", ""] {
            date_back(&folder.join(below), 2 * DAY);
        }
    };
    // The submitter was killed before it created the task.
    fs::write(session("abandoned").join("queue").join(old_id(DAY)), "").unwrap();
    let (idle, waiting, used) = (session("idle"), session("waiting"), session("used"));
    let task = world.submit(&["ok", "--session-id", "waiting"]);
    for folder in [&idle, &waiting, &used, &world.path("sessions/abandoned")] {
        age(folder);
    }
    fs::write(used.join("state/memory"), "used today").unwrap();
    first_of_many(&world);
    assert_eq!(sweep(&world)["sessions"], 2);
    let mut left = names_in(&world.path("sessions"));
    left.sort();
    assert_eq!(left, ["used", "waiting"]);
    assert_eq!(
        fs::read_to_string(waiting.join("state/memory")).unwrap(),
        "x"
    );
    world.run(&["runner", "--once", &task.id]).succeeds();
}

#[test]
fn after_a_clock_jump_nothing_is_removed_and_ages_start_again() {
    for years in [1, -1] {
        let world = world();
        world.set("cleanup_delay_sec", "600");
        let task = finished(&world, "ok");
        first_pass(&world);
        // As if the clock had been wrong at the last pass and was set right since, or the reverse.
        let mut clock = read_json(&world.path("sweep.json"));
        let wall = clock["wall"].as_str().unwrap();
        let year: i32 = wall[..4].parse().unwrap();
        clock["wall"] = format!("{}-06-01T00:00:00.000Z", year + years).into();
        fs::write(world.path("sweep.json"), clock.to_string()).unwrap();
        // And as if the task had ended long ago by the present clock.
        let ended = date_result_back(&world, &task);

        let swept = sweep(&world);
        assert_eq!(
            swept["only_recorded"], "the clock jumped since the last pass",
            "{years} years"
        );
        assert_eq!(swept["cleared"], 0);
        let swept = sweep(&world);
        assert_eq!(
            (&swept["only_recorded"], &swept["cleared"]),
            (&Value::Null, &json!(0))
        );
        assert!(
            task.has_result(),
            "its age starts at the jump, not at {ended}"
        );
        let clock = read_json(&world.path("sweep.json"));
        assert_ne!(clock["ages_from"], Value::Null, "{clock}");
        world.set("cleanup_delay_sec", "0");
        assert_eq!(sweep(&world)["cleared"], 1);
    }
}

/// Changes a finished task's files as if it had ended a year earlier.
fn date_result_back(world: &World, task: &Task) -> String {
    let mut ended = String::new();
    for file in ["result.json", "status.json"] {
        let path = task.path.join(file);
        let mut value = read_json(&path);
        let at = value["completed_at"].as_str().unwrap().to_owned();
        let year: i32 = at[..4].parse().unwrap();
        ended = format!("{}-01-01T00:00:00.000Z", year - 1);
        value["completed_at"] = ended.clone().into();
        fs::write(path, value.to_string()).unwrap();
    }
    let _ = world;
    ended
}

#[test]
fn after_a_boot_or_without_a_record_a_pass_only_records() {
    let world = world();
    let task = finished(&world, "ok");
    first_pass(&world);
    let mut clock = read_json(&world.path("sweep.json"));
    clock["boot"] = "00000000-0000-0000-0000-000000000000".into();
    fs::write(world.path("sweep.json"), clock.to_string()).unwrap();
    first_pass(&world);
    fs::write(world.path("sweep.json"), "{ torn").unwrap();
    first_pass(&world);
    assert!(task.has_result());
    assert_eq!(sweep(&world)["cleared"], 1);
}

#[test]
fn a_second_sweep_reports_that_it_is_busy() {
    let world = world();
    let task = finished(&world, "ok");
    first_pass(&world);
    let lock = fs::File::open(world.path("sweep.lock")).unwrap();
    lock.try_lock().unwrap();
    let swept = sweep(&world);
    assert_eq!(
        (&swept["busy"], &swept["cleared"]),
        (&json!(true), &json!(0))
    );
    let message = world.run(&["sweep"]);
    message.succeeds();
    assert_eq!(message.stdout, "Another sweep is running\n");
    assert!(task.has_result());
    drop(lock);
    assert_eq!(sweep(&world)["cleared"], 1);
}

#[test]
fn a_dry_run_changes_nothing_and_lists_what_would_be_removed() {
    let world = world();
    let task = finished(&world, "ok");
    let named = world.submit(&["ok", "--name", "n"]);
    world.run(&["runner", "--once", &named.id]).succeeds();
    let trash_entry = format!("{}.00000000", old_id(DAY));
    first_pass(&world);
    fs::create_dir(world.path("trash").join(trash_entry)).unwrap();
    let before = snapshot(world.spool());
    let dry = world.json(&["sweep", "--dry-run"]);
    let message = world.run(&["sweep", "--dry-run"]);
    assert_eq!(snapshot(world.spool()), before);
    assert_eq!(dry["dry_run"], true);
    assert_eq!(dry["task_ids"], json!([task.id, named.id]));
    for id in [&task.id, &named.id] {
        assert!(
            message.stdout.contains(&format!("would clear {id}")),
            "{}",
            message.stdout
        );
    }
    let real = sweep(&world);
    assert_eq!(real["task_ids"], dry["task_ids"]);
    assert_eq!(real["litter"], dry["litter"]);
    assert_eq!(real["names"], dry["names"]);
}

#[test]
fn a_dry_run_of_a_new_spool_changes_nothing() {
    let world = world();
    finished(&world, "ok");
    let before = snapshot(world.spool());
    world.run(&["sweep", "--dry-run"]).succeeds();
    assert_eq!(snapshot(world.spool()), before);
}

/// A watcher that is named its spool by `--spool` has no AGENTSPOOL_DIR, or has another one.
#[test]
fn a_watcher_sweeps_the_spool_that_it_serves() {
    for is_autostarted in [false, true] {
        let world = world();
        let other = world.root().join("other");
        let spool = world.spool().display().to_string();
        let with = |arguments: &[&str]| {
            let mut command = world.command(&["--spool", &spool]);
            command.args(arguments).env("AGENTSPOOL_DIR", &other);
            command
        };
        world.run(&["init", "other"]).succeeds();
        world.set("sweep_every_sec", "1");
        let task = match is_autostarted {
            true => {
                world.set("autostart", "true");
                let ran = Ran::of(&mut with(&["submit", "--recipe", "ok", "-q"]));
                world.task(ran.succeeds().stdout.trim())
            }
            false => finished(&world, "ok"),
        };
        let started = (!is_autostarted).then(|| with(&["watch"]).spawn().unwrap());
        world.wait_until("the watcher sweeps the task", || !task.path.exists());
        assert!(!other.join("sweep.json").exists(), "it swept another spool");
        if let Some(mut child) = started {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn a_watcher_sweeps_by_itself() {
    let world = world();
    world.set("sweep_every_sec", "1");
    let task = finished(&world, "ok");
    world.start_watcher();
    world.wait_until("the task is swept", || !task.path.exists());
    assert!(world.path("sweep.json").exists());
}

/// A task with an unreadable result is not removed. Its status may be `completed`, but the result decides.
#[test]
fn a_task_whose_result_cannot_be_read_is_kept() {
    let world = world();
    world.set("max_finished_tasks", "0");
    for damage in ["", "{\"v\": 1, \"ta", "[]", "{\"v\": 99}"] {
        let task = finished(&world, "ok");
        fs::write(task.path.join("result.json"), damage).unwrap();
        sweep(&world);
        let swept = sweep(&world);
        assert_eq!(swept["only_recorded"], Value::Null);
        assert_eq!(swept["cleared"], 0, "{damage:?}");
        assert_eq!(task.read("result.json"), damage);
    }
    assert_eq!(world.tasks().len(), 4);
}

#[test]
fn a_task_without_status_is_swept_by_its_result() {
    let world = world();
    let task = finished(&world, "ok");
    fs::remove_file(task.path.join("status.json")).unwrap();
    first_pass(&world);
    assert_eq!(sweep(&world)["task_ids"], json!([task.id]));
}

/// A lock that was removed or replaced stops neither the pass nor the task's removal.
#[test]
fn a_task_without_a_usable_lock_is_swept() {
    let world = world();
    let broken = finished(&world, "ok");
    fs::remove_file(broken.path.join("lock")).unwrap();
    fs::create_dir(broken.path.join("lock")).unwrap();
    let whole = finished(&world, "ok");
    first_pass(&world);
    let swept = world.json(&["sweep"]);
    assert!(!whole.path.exists(), "{swept}");
    assert!(!broken.path.exists(), "{swept}");
}

/// Each status has a setting of its own. Until the one for cancelled tasks is set, the setting for completed
/// tasks applies to them.
#[test]
fn cancelled_tasks_have_a_retention_of_their_own() {
    let world = world();
    world.set("cancelled_cleanup_delay_sec", "3600");
    let cancelled = world.submit(&["ok"]);
    world.run(&["cancel", &cancelled.id]).succeeds();
    let completed = finished(&world, "ok");
    first_pass(&world);
    assert_eq!(sweep(&world)["task_ids"], json!([completed.id]));
    world
        .run(&["config", "unset", "cancelled_cleanup_delay_sec"])
        .succeeds();
    assert_eq!(sweep(&world)["task_ids"], json!([cancelled.id]));
}

/// The plan reads the status file, which any program may have changed. Only the result counts.
#[test]
fn a_wrong_status_does_not_make_a_task_due() {
    let world = world();
    world.set("cleanup_delay_sec", "3600");
    let task = finished(&world, "ok");
    let mut status = task.status();
    status["status"] = "completed".into();
    status["completed_at"] = "2001-01-01T00:00:00.000Z".into();
    fs::write(task.path.join("status.json"), status.to_string()).unwrap();
    first_pass(&world);
    // With a limit every task is checked, whatever the age in its id.
    world.set("max_finished_tasks", "5");
    assert_eq!(sweep(&world)["cleared"], 0);
    assert!(task.has_result());
}

/// For a task with a large result the status is read first, but the result still decides.
#[test]
fn a_large_result_decides_like_a_small_one() {
    let world = world();
    world.recipe("much", "#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\n");
    world.set("cleanup_delay_sec", "3600");
    let task = finished(&world, "much");
    assert!(task.read("result.json").len() > 100_000);
    first_of_many(&world);
    world.set("max_finished_tasks", "5");
    assert_eq!(sweep(&world)["cleared"], 0);
    let status = task.read("status.json");
    let mut early = task.status();
    early["completed_at"] = "2001-01-01T00:00:00.000Z".into();
    fs::write(task.path.join("status.json"), early.to_string()).unwrap();
    assert_eq!(sweep(&world)["cleared"], 0);
    fs::write(task.path.join("status.json"), status).unwrap();
    world.set("cleanup_delay_sec", "0");
    assert_eq!(
        world.json(&["sweep", "--dry-run"])["task_ids"],
        json!([task.id])
    );
    assert_eq!(sweep(&world)["task_ids"], json!([task.id]));
    assert!(!task.path.exists());
}

/// Files that recipes leave: trees deeper than any path or limit of open files, folders without write
/// permission for their owner, and links that lead out of the spool.
#[test]
fn any_tree_of_files_can_be_removed() {
    let world = world();
    let outside = world.root().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let script = format!(
        "#!/bin/sh\nln -s '{0}' link\nmkdir sealed\nln -s '{0}' sealed/link\n\
         echo x > sealed/file\nchmod 500 sealed\nmkdir dark\necho x > dark/file\nchmod 0 dark\n\
         mkdir -p dim/dim\necho x > dim/file\necho x > dim/dim/file\nchmod 400 dim/dim dim\n",
        outside.display()
    );
    world.recipe("odd", &script);
    let task = finished(&world, "odd");
    assert_eq!(
        task.result()["status"],
        "completed",
        "{}",
        task.read("attempts/1/stderr.log")
    );
    make_deep(&task.path.join("attempts/1/work"), 1500);
    first_pass(&world);
    let swept = sweep(&world);
    assert_eq!(swept["task_ids"], json!([task.id]), "{swept}");
    assert!(!task.path.exists());
    assert!(names_in(&world.path("trash")).is_empty());
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "x");
    assert!(swept["freed_bytes"].as_u64().unwrap() > 0);
}

/// Nested folders, deeper than the longest possible path.
fn make_deep(folder: &Path, depth: usize) {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deeper", flags, Mode::empty()).unwrap();
    }
}

/// A sweep of many tasks works in batches, and no task is forgotten between two of them.
#[test]
fn one_pass_removes_more_tasks_than_one_batch() {
    let world = world();
    world.set("durability", "process");
    let requests = "{\"recipe\": \"ok\"}\n".repeat(600);
    let ids = world.run_with_stdin(&["submit", "--batch", "-"], requests.as_bytes());
    ids.succeeds();
    // Cancelled tasks are finalized without a process for each.
    for task in world.tasks() {
        fs::write(task.path.join("cancel"), "").unwrap();
    }
    world.run(&["watch", "--drain"]).succeeds();
    world.wait_until("no process works on them", || world.processes().is_empty());
    let held = world.tasks().remove(300);
    let lock = fs::File::open(held.path.join("lock")).unwrap();
    lock.try_lock().unwrap();
    first_pass(&world);
    let swept = sweep(&world);
    assert_eq!(
        (&swept["cleared"], &swept["skipped"]),
        (&json!(599), &json!([held.id]))
    );
    assert_eq!(
        names_in(&world.path("tasks")),
        std::slice::from_ref(&held.id)
    );
    let left = names_in(&world.path("open"));
    assert!(left.iter().all(|name| name.starts_with('.')), "{left:?}");
}

#[test]
fn a_loop_runs_pass_after_pass_until_it_is_stopped() {
    let world = world();
    let message = world.root().join("report");
    let mut child = world
        .command(&["sweep", "--every", "1s"])
        .stdout(fs::File::create(&message).unwrap())
        .spawn()
        .unwrap();
    let text = world.wait_for_lines(&message, 1);
    assert!(text.contains("this pass removed nothing by age"), "{text}");
    // Settings are read again at each pass, without a restart.
    world.set("cleanup_delay_sec", "0");
    let task = finished(&world, "ok");
    world.wait_until("a later pass sweeps", || !task.path.exists());
    world.wait_until("the pass is reported", || {
        fs::read_to_string(&message)
            .unwrap()
            .contains(" Swept 1 task, ")
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let text = fs::read_to_string(&message).unwrap();
    for line in text.lines() {
        let (at, what) = line.split_once(' ').unwrap();
        assert!(at.ends_with('Z') && what.starts_with("Swept "), "{line}");
    }
}

#[test]
fn a_loop_with_json_prints_one_object_at_its_end() {
    let world = world();
    let task = finished(&world, "ok");
    first_pass(&world);
    let sweeps = world.start(&["sweep", "--cron", "* * * * * *", "--json"]);
    world.wait_until("it is swept", || !task.path.exists());
    world.wait_until("it catches interrupts", || sweeps.catches_interrupts());
    sweeps.interrupt();
    let ran = sweeps.end();
    let object = ran.succeeds().json();
    assert_eq!(
        (&object["ok"], &object["cleared"]),
        (&json!(true), &json!(1))
    );
    assert!(object["passes"].as_u64().unwrap() > 0);
}

#[test]
fn a_failed_pass_does_not_end_a_loop() {
    let world = world();
    let log = world.root().join("log");
    let mut child = world
        .command(&["sweep", "--every", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    world.wait_until("the first pass has run", || {
        world.path("sweep.json").exists()
    });
    let settings = fs::read_to_string(world.path("spool.json")).unwrap();
    fs::write(world.path("spool.json"), "{").unwrap();
    world.wait_until("a pass fails", || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("this pass failed: ")
    });
    fs::write(world.path("spool.json"), settings).unwrap();
    let task = finished(&world, "ok");
    world.wait_until("a later pass sweeps", || !task.path.exists());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_bad_schedule_is_one_clear_error() {
    let world = world();
    for (arguments, expected) in [
        (&["--cron", "*/5 * *"][..], "five fields"),
        (&["--cron", "61 * * * *"], "five fields"),
        (&["--cron", "0 0 30 2 *"], "never matches a time"),
        (&["--every", "0"], "at least one second"),
        (&["--every", "soon"], "90s, 5m"),
        (
            &["--every", "5m", "--cron", "* * * * *"],
            "cannot be used with",
        ),
        (&["--every", "5m", "--dry-run"], "cannot be used with"),
    ] {
        let arguments = [&["sweep"], arguments].concat();
        let ran = world.run(&arguments);
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
        let errors = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains(expected),
            "{arguments:?}: {}",
            ran.stderr
        );
        let object = world.json(&arguments);
        assert_eq!((&object["ok"], &object["code"]), (&json!(false), &json!(2)));
    }
    assert!(!world.path("sweep.json").exists(), "nothing was swept");
}

/// One line for each removed task, with its fields.
#[test]
fn each_removal_is_reported() {
    let world = world();
    let task = world.submit(&["ok", "--session-id", "chat"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    first_pass(&world);
    let message = world.run(&["--verbose", "sweep"]);
    let expected = format!("INFO swept task={} recipe=ok session=chat\n", task.id);
    assert!(message.stderr.ends_with(&expected), "{}", message.stderr);
}

#[test]
fn a_shared_lock_on_a_task_prevents_its_sweep_but_not_clear() {
    let world = world();
    first_pass(&world);
    let held = finished(&world, "ok");
    let other = finished(&world, "ok");
    // Any program may do this: `flock --shared tasks/ID`.
    let hold = fs::File::open(&held.path).unwrap();
    fs2::FileExt::try_lock_shared(&hold).unwrap();
    let swept = sweep(&world);
    assert_eq!(swept["task_ids"], json!([other.id]), "{swept}");
    assert_eq!(swept["skipped"], json!([held.id]), "{swept}");
    assert_eq!(held.result()["output"], "fine");
    drop(hold);
    assert_eq!(sweep(&world)["task_ids"], json!([held.id]));

    let asked_for = finished(&world, "ok");
    let hold = fs::File::open(&asked_for.path).unwrap();
    fs2::FileExt::try_lock_shared(&hold).unwrap();
    world.run(&["clear"]).succeeds();
    assert!(!asked_for.path.exists());
}
