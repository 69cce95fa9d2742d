//! Recovery: runners that were killed, and spools as they are after a crash.
//!
//! Each crash point is a folder that is built by hand. A watcher must then bring it to the one correct end.
//! Files that cannot be read are kept, and the rest of the spool goes on.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::processes::is_alive;
use crate::support::{Task, World, names_in, read_json};

/// Appends the number of its attempt to `starts` in the task's folder.
const NOTES_STARTS: &str =
    "#!/bin/sh\necho $AGENTSPOOL_ATTEMPT >>\"$AGENTSPOOL_TASK_DIR/starts\"\n";

fn quiet_world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cancel_grace_sec", "0.3");
    world
}

/// A task that no watcher has run yet.
fn pending(world: &World, recipe: &str) -> Task {
    world.submit(&[recipe])
}

/// The identity of the current boot, as the program stores it.
fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let namespace: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    format!("{}/{namespace}", boot.trim())
}

/// Creates the boot record of attempt 1 as the runner of some boot left it.
fn make_boot_record(task: &Task, boot: &str) -> PathBuf {
    let attempt = task.path.join("attempts/1");
    std::fs::create_dir(&attempt).unwrap();
    // Only the kernel's part of the identity: file names do not contain the pid namespace.
    let record = format!(".1.{}", boot.split('/').next().unwrap());
    std::fs::write(task.path.join("attempts").join(record), "").unwrap();
    attempt
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, serde_json::to_string_pretty(value).unwrap()).unwrap();
}

#[track_caller]
fn assert_lost(world: &World, task: &Task, attempt: u32) {
    let result = world.result_of(task);
    assert!(task.processes().is_empty(), "{}", world.describe());
    assert_eq!(result["status"], "failed", "{result}");
    assert_eq!(result["error"]["kind"], "lost", "{result}");
    assert_eq!(result["exit_code"], Value::Null, "{result}");
    assert_eq!(result["signal"], Value::Null, "{result}");
    assert_eq!(result["attempt"], attempt, "{result}");
}

#[test]
fn a_killed_runner_loses_its_task_and_leaves_nothing_running() {
    let world = quiet_world();
    // The first child stays in the group, the second in the session, the third leaves both.
    world.recipe(
        "family",
        "#!/bin/sh\nsleep 1000 &\nenv -i sleep 1000 &\n\
         (setsid sh -c 'trap \"\" TERM; touch ready; sleep 1000' &)\nwait\n",
    );
    let task = pending(&world, "family");
    world.start_watcher();
    world.wait_for_file(&task.work(1, "ready"));
    let (runner, leader) = world.processes_of(&task, 1);
    let without_environment = || {
        let in_session = |pid: &i32| {
            crate::support::processes::session_of(*pid) == Some(leader) && is_alive(*pid)
        };
        crate::support::all_pids()
            .into_iter()
            .filter(in_session)
            .count()
    };
    world.wait_until("all children are there", || without_environment() >= 3);
    world.signal(runner, Signal::KILL);
    assert_lost(&world, &task, 1);
    assert_eq!(without_environment(), 0, "{}", world.describe());
    let run = task.run_file(1);
    assert!(run["lost_at"].is_string(), "{run}");
    world.wait_until("the status is failed", || {
        task.status()["status"] == "failed"
    });
}

#[test]
fn a_lost_task_is_tried_again_if_the_recipe_allows_it() {
    let world = quiet_world();
    // This recipe takes a lock of its own: two attempts at once would record an overlap.
    world.recipe_folder(
        "again",
        "on_lost = \"requeue\"\nmax_attempts = 3",
        "#!/bin/sh\nexec 9>\"$AGENTSPOOL_TASK_DIR/own.lock\"\n\
         flock -n 9 || echo overlap >>\"$AGENTSPOOL_TASK_DIR/overlaps\"\n\
         echo $AGENTSPOOL_ATTEMPT >>\"$AGENTSPOOL_TASK_DIR/starts\"\n\
         setsid sh -c 'trap \"\" TERM; sleep 1000' &\ntouch ready\nwait\n",
    );
    let task = pending(&world, "again");
    world.start_watcher();
    for attempt in 1..=3 {
        world.wait_for_file(&task.work(attempt, "ready"));
        let (runner, _) = world.processes_of(&task, attempt);
        // The status names the attempt once it has run for a moment.
        world.wait_until("the status names the attempt", || {
            task.status()["attempt"] == attempt
        });
        world.signal(runner, Signal::KILL);
    }
    assert_lost(&world, &task, 3);
    assert_eq!(task.read("starts"), "1\n2\n3\n");
    assert_eq!(task.read("overlaps"), "");
    assert_eq!(task.attempts(), 3);
}

#[test]
fn a_terminated_runner_cancels_no_task() {
    let world = quiet_world();
    let script = "#!/bin/sh\necho $AGENTSPOOL_ATTEMPT >>\"$AGENTSPOOL_TASK_DIR/starts\"\n\
                  [ $AGENTSPOOL_ATTEMPT = 2 ] && exit 0\ntouch ready\nsleep 1000\n";
    world.recipe_folder("again", "on_lost = \"requeue\"", script);
    world.recipe("once", script);
    let (again, once) = (pending(&world, "again"), pending(&world, "once"));
    world.start_watcher();
    for task in [&again, &once] {
        world.wait_for_file(&task.work(1, "ready"));
        let (runner, _) = world.processes_of(task, 1);
        world.signal(runner, Signal::TERM);
    }
    let result = world.result_of(&again);
    assert_eq!(result["status"], "completed", "{result}");
    assert_eq!(
        (&result["attempt"], &result["exit_code"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(again.read("starts"), "1\n2\n");
    assert_lost(&world, &once, 1);
    assert!(!once.path.join("cancel").exists());
}

#[test]
fn an_attempt_of_this_boot_without_a_run_file_never_ran_and_runs_once() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let task = pending(&world, "notes");
    make_boot_record(&task, &boot());
    world.start_watcher();
    let result = world.result_of(&task);
    assert_eq!(
        (&result["status"], &result["attempt"]),
        (&json!("completed"), &json!(1))
    );
    assert_eq!(task.read("starts"), "1\n");
    assert_eq!(task.attempts(), 1);
}

#[test]
fn an_attempt_of_another_boot_may_have_run_and_is_not_repeated() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let without_run = pending(&world, "notes");
    make_boot_record(&without_run, "00000000-0000-4000-8000-000000000000/1");
    // The same with a run.json that names processes of the other boot: a pid alone identifies no process.
    let with_run = pending(&world, "notes");
    let other = "00000000-0000-4000-8000-000000000000/1";
    let attempt = make_boot_record(&with_run, other);
    let me = std::process::id();
    write_json(
        &attempt.join("run.json"),
        &json!({
            "v": 1, "task_id": with_run.id, "attempt": 1,
            "runner": {"pid": me, "start": 1}, "child": {"pid": me, "start": 1},
            "boot": other, "mark": "none", "started_at": "2024-05-01T10:00:00Z",
            "deadline": "2024-05-01T10:05:00Z", "timeout_sec": 300.0,
        }),
    );
    world.start_watcher();
    for task in [&without_run, &with_run] {
        assert_lost(&world, task, 1);
        assert_eq!(task.read("starts"), "", "{}", world.describe());
    }
}

#[test]
fn a_pid_that_belongs_to_another_process_now_is_not_signalled() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let task = pending(&world, "notes");
    let attempt = make_boot_record(&task, &boot());
    let mut bystander = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    write_json(
        &attempt.join("run.json"),
        &json!({
            "v": 1, "task_id": task.id, "attempt": 1,
            "runner": {"pid": bystander.id(), "start": 1},
            "child": {"pid": bystander.id(), "start": 1},
            "boot": boot(), "mark": "none", "started_at": "2024-05-01T10:00:00Z",
            "deadline": "2024-05-01T10:05:00Z", "timeout_sec": 300.0,
        }),
    );
    world.start_watcher();
    assert_lost(&world, &task, 1);
    assert!(is_alive(bystander.id() as i32));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn a_result_counts_even_if_the_status_is_older() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let task = pending(&world, "notes");
    world.run(&["watch", "--drain"]).succeeds();
    assert!(task.has_result());
    // The state between the result and the status, created by hand.
    let mut status = task.status();
    status["status"] = json!("running");
    for field in ["completed_at", "exit_code", "duration_seconds"] {
        status[field] = Value::Null;
    }
    write_json(&task.path.join("status.json"), &status);
    std::fs::write(world.path("open").join(&task.id), "").unwrap();
    assert_eq!(world.json(&["status", &task.id])["status"], "completed");
    world.start_watcher();
    world.wait_until("the status is repaired", || {
        task.status()["status"] == "completed"
    });
    assert_eq!(task.status()["exit_code"], 0);
    world.wait_until("the index entry is removed", || {
        names_of(&world, "open").is_empty()
    });
    assert_eq!(task.read("starts"), "1\n");
}

fn names_of(world: &World, folder: &str) -> Vec<String> {
    let mut names = names_in(&world.path(folder));
    names.retain(|name| !name.starts_with('.'));
    names
}

#[test]
fn leftovers_of_a_killed_submitter_block_no_task() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let model = pending(&world, "notes");
    // Half built, with a free lock and index entries: the submitter was killed before the rename.
    let half_built_id = "task_01hzzzzzzzzzzzzzzzzzzzzzzz";
    let half_built = world.path("staging").join(half_built_id);
    std::fs::create_dir_all(half_built.join("attempts")).unwrap();
    for file in ["lock", "request.json"] {
        std::fs::copy(model.path.join(file), half_built.join(file)).unwrap();
    }
    std::fs::write(world.path("open").join(half_built_id), "").unwrap();
    let queue = world.path("sessions/chat/queue");
    std::fs::create_dir_all(&queue).unwrap();
    std::fs::write(queue.join(half_built_id), "").unwrap();
    // An index entry without a task.
    let without_task = "task_01hzzzzzzzzzzzzzzzzzzzzzy0";
    std::fs::write(world.path("open").join(without_task), "").unwrap();
    let later = world.submit(&["notes", "--session-id", "chat"]);
    world.start_watcher();
    for task in [&model, &later] {
        assert_eq!(world.result_of(task)["status"], "completed");
        assert_eq!(task.read("starts"), "1\n");
    }
    world.wait_until("both index entries are removed", || {
        names_of(&world, "open").is_empty()
    });
    assert_eq!(
        names_of(&world, "sessions/chat/queue"),
        Vec::<String>::new()
    );
    assert_eq!(
        world.tasks().len(),
        2,
        "the half-built task was not published"
    );
}

#[test]
fn files_that_cannot_be_read_are_kept_and_the_rest_goes_on() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let torn_request = pending(&world, "notes");
    let newer = pending(&world, "notes");
    let unknown = pending(&world, "notes");
    let torn_status = pending(&world, "notes");
    let torn_result = pending(&world, "notes");
    let healthy = pending(&world, "notes");
    std::fs::write(torn_request.path.join("request.json"), "{\"recipe\": \"no").unwrap();
    let mut request = newer.request();
    request["v"] = json!(2);
    write_json(&newer.path.join("request.json"), &request);
    let mut request = unknown.request();
    request["colour"] = json!("blue");
    write_json(&unknown.path.join("request.json"), &request);
    std::fs::write(torn_status.path.join("status.json"), "{\"v\": 1, \"ta").unwrap();
    std::fs::write(torn_result.path.join("result.json"), "{\"v\": 1, \"ok").unwrap();
    let kept: Vec<(PathBuf, Vec<u8>)> = [
        torn_request.path.join("request.json"),
        newer.path.join("request.json"),
        unknown.path.join("request.json"),
        torn_result.path.join("result.json"),
    ]
    .map(|path| (path.clone(), std::fs::read(path).unwrap()))
    .into();

    world.start_watcher();
    for task in [&torn_status, &healthy] {
        assert_eq!(world.result_of(task)["status"], "completed");
        assert_eq!(task.read("starts"), "1\n");
    }
    world.wait_until("the torn status is replaced", || {
        std::fs::read_to_string(torn_status.path.join("status.json"))
            .is_ok_and(|text| text.contains("\"completed\""))
    });
    for (task, condition) in [
        (&torn_request, "damaged"),
        (&newer, "newer"),
        (&unknown, "newer"),
        (&torn_result, "damaged"),
    ] {
        world.wait_until(&format!("{} is reported as {condition}", task.id), || {
            world.json(&["status", &task.id])["condition"] == condition
        });
        assert_eq!(task.read("starts"), "", "{}", task.id);
    }
    for task in [&torn_request, &newer, &unknown] {
        world.wait_until("its status file has the condition too", || {
            read_json(&task.path.join("status.json"))["condition"].is_string()
        });
        assert_eq!(task.status()["status"], "pending");
        assert!(!task.has_result());
    }
    for (path, bytes) in kept {
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{}", path.display());
    }

    // The request is fixed by hand; the next scan runs the task.
    let fixed = healthy.read("request.json");
    std::fs::write(torn_request.path.join("request.json"), fixed).unwrap();
    assert_eq!(world.result_of(&torn_request)["status"], "completed");
}

#[test]
fn a_task_without_its_lock_is_reported_and_runs() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    // The first task is as after a restore from a backup without empty files and folders. The second one has
    // a folder in place of the lock.
    let (bare, odd) = (pending(&world, "notes"), pending(&world, "notes"));
    std::fs::remove_file(bare.path.join("lock")).unwrap();
    std::fs::remove_dir(bare.path.join("attempts")).unwrap();
    std::fs::remove_file(odd.path.join("lock")).unwrap();
    std::fs::create_dir_all(odd.path.join("lock/x")).unwrap();
    let printed = world.run(&["doctor"]).stdout;
    let line = printed.lines().find(|line| line.contains("`lock`"));
    assert!(
        line.is_some_and(|line| line.contains("2 tasks")),
        "{printed}"
    );
    for task in [&bare, &odd] {
        assert_eq!(world.json(&["status", &task.id])["status"], "pending");
    }
    world.start_watcher();
    for task in [&bare, &odd] {
        assert_eq!(world.result_of(task)["status"], "completed");
        assert_eq!(task.read("starts"), "1\n");
    }
    world.wait_until("both are finalized", || names_of(&world, "open").is_empty());
    std::fs::remove_file(bare.path.join("lock")).unwrap();
    let cleared = world.json(&["clear"]);
    assert_eq!(cleared["cleared"], 2, "{cleared}");
}

#[test]
fn a_task_whose_lock_is_removed_is_not_run_twice() {
    let world = quiet_world();
    world.recipe(
        "gate",
        "#!/bin/sh\ntouch ready\nwhile [ ! -e go ]; do sleep 0.02; done\n",
    );
    let task = pending(&world, "gate");
    let watcher = world.start_watcher();
    world.wait_for_file(&task.work(1, "ready"));
    std::fs::remove_file(task.path.join("lock")).unwrap();
    world.kill_watcher(watcher);
    world.start_watcher();
    // When a later task has ended, the watcher has also offered this task to a runner.
    world.recipe("notes", NOTES_STARTS);
    let other = pending(&world, "notes");
    assert_eq!(world.result_of(&other)["status"], "completed");
    assert!(!task.has_result());
    std::fs::write(task.work(1, "go"), "").unwrap();
    assert_eq!(world.result_of(&task)["status"], "completed");
    assert_eq!(task.attempts(), 1);
}

/// Another file in place of the lock, as after a restore over a spool in use.
#[test]
fn a_task_whose_lock_is_replaced_is_not_run_twice() {
    let world = quiet_world();
    world.recipe(
        "gate",
        "#!/bin/sh\ntouch ready\nwhile [ ! -e go ]; do sleep 0.02; done\n",
    );
    let task = pending(&world, "gate");
    let watcher = world.start_watcher();
    world.wait_for_file(&task.work(1, "ready"));
    std::fs::remove_file(task.path.join("lock")).unwrap();
    std::fs::write(task.path.join("lock"), "").unwrap();
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
    world.kill_watcher(watcher);
    world.start_watcher();
    world.recipe("notes", NOTES_STARTS);
    let other = pending(&world, "notes");
    assert_eq!(world.result_of(&other)["status"], "completed");
    assert!(!task.has_result());
    std::fs::write(task.work(1, "go"), "").unwrap();
    assert_eq!(world.result_of(&task)["status"], "completed");
    assert_eq!(task.attempts(), 1);
}

#[test]
fn a_replaced_result_part_never_becomes_the_result() {
    let world = quiet_world();
    let script = |make: &str| {
        format!(
            "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR/attempts/1\"\nmv result.part old\n{make}\necho fine\n"
        )
    };
    world.recipe("folder", &script("mkdir -p result.part/in"));
    world.recipe(
        "file",
        &script("echo '{\"v\":1,\"ok\":false}' >result.part"),
    );
    world.recipe("link", &script("ln -s /etc/passwd result.part"));
    world.recipe("fifo", &script("mkfifo result.part"));
    world.recipe(
        "above",
        &script("mkdir -p ../../result.part/in; rm -rf result.part"),
    );
    let tasks = ["folder", "file", "link", "fifo", "above"].map(|recipe| pending(&world, recipe));
    world.run(&["watch", "--drain"]).succeeds();
    for task in tasks {
        assert!(
            task.path.join("result.json").is_file(),
            "{}",
            world.describe()
        );
        let result = task.result();
        assert_eq!(result["status"], "completed", "{result}");
        assert_eq!(result["output"], "fine", "{result}");
    }
}

#[test]
fn a_watcher_with_only_damaged_tasks_exits() {
    let world = World::new();
    world.set("idle_exit_sec", "1");
    world.recipe("notes", NOTES_STARTS);
    world.set("autostart", "false");
    let broken = pending(&world, "notes");
    std::fs::write(broken.path.join("request.json"), "{").unwrap();
    world.set("autostart", "true");
    let task = pending(&world, "notes");
    world.result_of(&task);
    world.wait_until("the autostarted watcher exits", || {
        world.watcher_pids().is_empty()
    });
    assert!(!broken.has_result());
}

#[test]
fn a_copy_of_a_spool_in_use_does_not_affect_the_original() {
    let world = World::new();
    world.recipe(
        "gate",
        "#!/bin/sh\nwhile [ ! -e \"$AGENTSPOOL_DIR/../open-gate\" ]; do sleep 0.02; done\n",
    );
    let task = world.submit(&["gate"]);
    world.wait_running(&task);
    let copy = world.root().join("copy");
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), world.spool().as_os_str(), copy.as_os_str()])
        .status()
        .unwrap();
    assert!(copied.success());
    let in_copy = |arguments: &[&str]| {
        let all = [&["--spool", copy.to_str().unwrap()], arguments].concat();
        world.run(&all)
    };
    // A copy must not repeat the tasks of the original until a person resumes it.
    let drained = in_copy(&["watch", "--drain"]);
    drained.succeeds();
    assert!(drained.stderr.contains("copy"), "{}", drained.stderr);
    assert!(
        drained.stderr.contains("1 task waits"),
        "{}",
        drained.stderr
    );
    assert_eq!(
        std::fs::read_to_string(copy.join("paused")).unwrap(),
        "copy"
    );
    assert!(
        !copy
            .join("tasks")
            .join(&task.id)
            .join("result.json")
            .exists()
    );
    assert!(in_copy(&["doctor"]).stdout.contains("copy"));
    in_copy(&["resume", "--set", "autostart=false"]).succeeds();
    in_copy(&["watch", "--drain"]).succeeds();
    // In the copy the task is lost; in the original it still runs.
    let lost = read_json(&copy.join("tasks").join(&task.id).join("result.json"));
    assert_eq!(lost["error"]["kind"], "lost");
    let uuid = |spool: &Path| read_json(&spool.join("identity.json"))["uuid"].clone();
    assert_ne!(uuid(&copy), uuid(world.spool()));
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
    std::fs::write(world.root().join("open-gate"), "").unwrap();
    assert_eq!(world.result_of(&task)["status"], "completed");
}

fn copy_of(world: &World, name: &str) -> PathBuf {
    let copy = world.root().join(name);
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), world.spool().as_os_str(), copy.as_os_str()])
        .status()
        .unwrap();
    assert!(copied.success());
    copy
}

#[test]
fn a_copy_of_a_spool_in_use_finds_every_task() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    world.run(&["watch", "--drain"]).succeeds();
    let tasks = [
        world.submit(&["notes", "--session-id", "chat"]),
        world.submit(&["notes", "--session-id", "chat"]),
        pending(&world, "notes"),
    ];
    // Folders are copied one after another, so entries that were created during the copy are missing.
    let copy = copy_of(&world, "copy");
    std::fs::remove_file(copy.join("open").join(&tasks[2].id)).unwrap();
    std::fs::remove_file(copy.join("sessions/chat/queue").join(&tasks[0].id)).unwrap();
    let spool = copy.to_str().unwrap();
    world.run(&["--spool", spool, "list"]).succeeds();
    let drained = world.run(&["--spool", spool, "watch", "--drain"]);
    assert!(
        drained.stderr.contains("3 tasks wait"),
        "{}",
        drained.stderr
    );
    let mut queue = names_in(&copy.join("sessions/chat/queue"));
    queue.sort();
    assert_eq!(queue, [tasks[0].id.as_str(), tasks[1].id.as_str()]);
    let resumed = ["--spool", spool, "--set", "autostart=false", "resume"];
    world.run(&resumed).succeeds();
    world
        .run(&["--spool", spool, "watch", "--drain"])
        .succeeds();
    for task in &tasks {
        assert!(
            copy.join("tasks")
                .join(&task.id)
                .join("result.json")
                .exists()
        );
        assert!(!task.has_result());
    }
}

#[test]
fn a_moved_or_remounted_spool_keeps_its_identity() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let identity = |spool: &Path| read_json(&spool.join("identity.json"));
    let first = identity(world.spool());
    assert!(
        first["device"].is_u64() && first["boot"].is_string(),
        "{first}"
    );
    // Moved: another path.
    let moved = world.root().join("moved");
    std::fs::rename(world.spool(), &moved).unwrap();
    let spool = moved.to_str().unwrap();
    world.run(&["--spool", spool, "list"]).succeeds();
    assert_eq!(identity(&moved)["uuid"], first["uuid"]);
    assert_eq!(identity(&moved)["path"], spool);
    // Mounted again, for example as an overlay, whose device then has another number.
    let mut other = identity(&moved);
    other["device"] = json!(1);
    write_json(&moved.join("identity.json"), &other);
    world.run(&["--spool", spool, "list"]).succeeds();
    assert_eq!(identity(&moved)["uuid"], first["uuid"]);
    // After a boot, devices may have other numbers.
    let mut other = identity(&moved);
    other["device"] = json!(1);
    other["boot"] = json!("00000000-0000-4000-8000-000000000000");
    write_json(&moved.join("identity.json"), &other);
    world.run(&["--spool", spool, "list"]).succeeds();
    assert_eq!(identity(&moved)["uuid"], first["uuid"]);
    assert_eq!(identity(&moved)["boot"], first["boot"]);
    // As an earlier version of the program wrote it.
    let bare = json!({"v": 1, "uuid": first["uuid"], "inode": first["inode"]});
    write_json(&moved.join("identity.json"), &bare);
    world.run(&["--spool", spool, "list"]).succeeds();
    assert_eq!(identity(&moved)["device"], first["device"]);
    assert_eq!(identity(&moved)["uuid"], first["uuid"]);
    assert!(!moved.join("paused").exists());
}

/// Version 1 of the program wrote tags without the path of the attempt's folder, so the copy of a spool has
/// the same tags.
#[test]
fn processes_of_a_version_1_runner_are_found_by_tag_and_folder() {
    let world = quiet_world();
    world.recipe(
        "old",
        "#!/bin/sh\nexport AGENTSPOOL_MARK=\"${AGENTSPOOL_MARK%/*}\"\n\
         (setsid sleep 1000 >/dev/null 2>&1 &)\n\
         (cd / && setsid sleep 1000 >/dev/null 2>&1 &)\ntouch ready\nexec sleep 1000\n",
    );
    let task = pending(&world, "old");
    let mut runner = world
        .command(&["runner", "--once", &task.id])
        .spawn()
        .unwrap();
    world.wait_for_file(&task.work(1, "ready"));
    let (number, _) = world.processes_of(&task, 1);
    let path = task.path.join("attempts/1/run.json");
    let mut run = task.run_file(1);
    let tag = run["mark"]
        .as_str()
        .unwrap()
        .rsplit_once('/')
        .unwrap()
        .0
        .to_owned();
    let tagged = || {
        let entry = format!("AGENTSPOOL_MARK={tag}\0");
        let all = crate::support::all_pids().into_iter();
        all.filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&entry) && is_alive(*pid)
        })
        .collect::<Vec<_>>()
    };
    world.wait_until("all three are there", || tagged().len() == 3);
    run["mark"] = tag.clone().into();
    run.as_object_mut().unwrap().remove("cgroup");
    std::fs::write(path, run.to_string()).unwrap();
    world.signal(number, Signal::KILL);
    runner.wait().unwrap();
    world.run(&["runner", "--once", &task.id]).succeeds();
    assert_eq!(task.result()["error"]["kind"], "lost");
    // The process that left the folder could belong to a copy.
    let left = tagged();
    assert_eq!(left.len(), 1, "{}", world.describe());
    world.signal(left[0], Signal::KILL);
}

/// At the path in the copy's identity there is nothing, or the copy itself.
#[test]
fn a_copy_is_recognized_wherever_its_original_is() {
    use std::os::unix::ffi::OsStrExt;
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    let task = pending(&world, "notes");
    let drain = |spool: &Path| {
        world.run(&["--spool", spool.to_str().unwrap(), "watch", "--drain"]);
        spool.join("paused").exists()
    };
    // The last command ran in a container, where the spool has another path.
    let path = world.path("identity.json");
    let mut identity = read_json(&path);
    identity["path"] = json!("/container/spool");
    write_json(&path, &identity);
    assert!(drain(&copy_of(&world, "copy")));
    // The original was moved away and the copy put in its place.
    let old = world.root().join("old");
    std::fs::rename(world.spool(), &old).unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), old.as_os_str(), world.spool().as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    assert!(drain(world.spool()));
    assert!(!task.has_result());
    // The parent folder has a name that is not text, and a link leads to it.
    let folder = world.root().join(std::ffi::OsStr::from_bytes(b"\xff"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(&old, folder.join("spool")).unwrap();
    let link = world.root().join("link");
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    let spool = link.join("spool");
    let list = |spool: &Path| world.run(&["--spool", spool.to_str().unwrap(), "list"]);
    list(&spool).succeeds();
    let written = read_json(&spool.join("identity.json"));
    assert!(written["path_bytes"].is_array(), "{written}");
    let uuid = |spool: &Path| read_json(&spool.join("identity.json"))["uuid"].clone();
    let before = uuid(&spool);
    list(&spool).succeeds();
    assert_eq!(read_json(&spool.join("identity.json")), written);
    assert!(!drain(&spool));
    assert_eq!(uuid(&spool), before);
    assert!(
        spool
            .join("tasks")
            .join(&task.id)
            .join("result.json")
            .exists()
    );
}

/// As `docs/operating.md` describes a restore: restored tasks have no entry in `open/`.
#[test]
fn restored_tasks_are_found() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    world.run(&["watch", "--drain"]).succeeds();
    let task = pending(&world, "notes");
    let copy = copy_of(&world, "copy");
    world.run(&["cancel", &task.id]).succeeds();
    world.run(&["watch", "--drain"]).succeeds();
    world.run(&["clear", "--all"]).succeeds();
    assert!(!task.path.exists());
    std::fs::rename(copy.join("tasks").join(&task.id), &task.path).unwrap();
    world.run(&["doctor"]).ends_with(1);
    let doctor = world.run(&["doctor"]).stdout;
    assert!(
        doctor.contains("without an index entry in open/"),
        "{doctor}"
    );
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(task.result()["status"], "completed");
    // A task whose result is lost is not run again and does not stay pending.
    std::fs::remove_file(task.path.join("result.json")).unwrap();
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(task.result()["error"]["kind"], "lost");
}

#[test]
fn a_spool_restored_without_its_identity_is_compared_again() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    world.run(&["watch", "--drain"]).succeeds();
    let tasks = [
        world.submit(&["notes", "--session-id", "chat"]),
        world.submit(&["notes", "--session-id", "chat"]),
    ];
    std::fs::remove_file(world.path("identity.json")).unwrap();
    std::fs::remove_file(world.path("open").join(&tasks[0].id)).unwrap();
    std::fs::remove_file(world.path("sessions/chat/queue").join(&tasks[0].id)).unwrap();
    world.run(&["list"]).succeeds();
    assert_eq!(names_in(&world.path("open")), [] as [&str; 0]);
    world.run(&["watch", "--drain"]).succeeds();
    for task in &tasks {
        assert_eq!(task.result()["status"], "completed");
    }
}

/// Another kind of file in place of a file or folder of the task: it is reported, and a drain ends.
#[test]
fn a_task_with_a_file_that_cannot_be_opened_is_damaged_and_reported() {
    let world = quiet_world();
    world.recipe("notes", NOTES_STARTS);
    type Damage = (&'static str, fn(&Path));
    let damage: [Damage; 3] = [
        ("request.json", |path| std::fs::create_dir(path).unwrap()),
        ("request.json", |path| {
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap()
        }),
        ("attempts", |path| std::fs::write(path, "").unwrap()),
    ];
    for (name, make) in damage {
        let task = pending(&world, "notes");
        let path = task.path.join(name);
        std::fs::rename(&path, world.root().join(format!("{}.{name}", task.id))).unwrap();
        make(&path);
        world.run(&["watch", "--drain"]).succeeds();
        assert!(!task.has_result());
        let status = world.json(&["status", &task.id]);
        assert_eq!(status["condition"], "damaged", "{name}: {status}");
        let doctor = world.run(&["doctor"]).stdout;
        assert!(doctor.contains(&task.id), "{name}: {doctor}");
        std::fs::remove_dir_all(&task.path).unwrap();
    }
}

/// A recipe can write in its own task's folder. Whatever it does to the records of its attempt, the task is
/// lost if its runner is killed: it does not run again, and its processes are ended.
#[test]
fn a_started_task_is_lost_whatever_its_recipe_did_to_the_records() {
    const HARMS: [&str; 11] = [
        "mkdir attempts/02 attempts/+7 attempts/00",
        "mkdir attempts/2",
        "mkdir attempts/4294967295",
        "touch attempts/9",
        "rm -rf attempts/1",
        "mv attempts/1 attempts/old",
        "rm -rf attempts",
        "mv attempts away",
        "rm -f attempts/1/run.json attempts/1/result.part",
        "rm -f attempts/1/run.json attempts/1/result.part attempts/.1.*",
        "rm -f attempts/.1.*",
    ];
    let world = quiet_world();
    world.set("max_concurrent", "11");
    for (number, harm) in HARMS.iter().enumerate() {
        // The status is `running` before the records are removed, as it is after 20 ms.
        world.recipe(
            &format!("harm-{number}"),
            &format!(
                "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"\necho start >>starts\n\
                 while ! grep -q running status.json; do sleep 0.02; done\n{harm}\n\
                 setsid sleep 1000 &\ntouch harmed\nsleep 1000\n"
            ),
        );
    }
    let tasks: Vec<Task> = (0..HARMS.len())
        .map(|number| pending(&world, &format!("harm-{number}")))
        .collect();
    let watcher = world.start_watcher();
    for task in &tasks {
        world.wait_for_file(&task.path.join("harmed"));
    }
    let runners: Vec<i32> = world
        .processes()
        .into_iter()
        .filter(|(_, line)| line.contains(" runner"))
        .map(|(pid, _)| pid)
        .collect();
    assert!(runners.len() >= HARMS.len(), "{}", world.describe());
    world.kill_watcher(watcher);
    for runner in runners {
        world.signal(runner, Signal::KILL);
    }
    world.start_watcher();
    for (task, harm) in tasks.iter().zip(HARMS) {
        let result = world.result_of(task);
        assert_eq!(result["error"]["kind"], "lost", "{harm}: {result}");
        assert_eq!(task.read("starts"), "start\n", "{harm}");
        assert!(task.processes().is_empty(), "{harm}: {}", world.describe());
    }
}

/// The record of an attempt names its session and its cgroup. Without the record, a process that kept nothing
/// of its attempt could not be identified, and the next attempt would run at the same time.
#[test]
fn attempts_do_not_overlap_whatever_the_recipe_did_to_the_record() {
    const HARMS: [&str; 5] = [
        ": >run.json",
        "echo '{' >run.json",
        "rm run.json; mkdir run.json; touch run.json/in-the-way",
        "chmod 0 run.json result.part",
        // No record names the processes any more.
        "echo '{' >run.json; echo '{' >result.part",
    ];
    let world = quiet_world();
    let mut tasks = Vec::new();
    for (number, harm) in HARMS.iter().enumerate() {
        let recipe = format!("harm-{number}");
        world.recipe_folder(
            &recipe,
            "on_lost = \"requeue\"\nmax_attempts = 2",
            &format!(
                "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"\n\
                 if [ $AGENTSPOOL_ATTEMPT = 2 ]; then flock -n own true || echo >overlap; exit; fi\n\
                 while ! grep -q running status.json; do sleep 0.02; done\n\
                 env -i sh -c 'flock 9; echo $$ >bare; exec sleep 1000' 9>own </dev/null >/dev/null 2>&1 &\n\
                 while [ ! -s bare ]; do sleep 0.02; done\n\
                 (cd attempts/1 && {harm})\ntouch harmed\nsleep 1000\n"
            ),
        );
        tasks.push(pending(&world, &recipe));
    }
    let watcher = world.start_watcher();
    for task in &tasks {
        world.wait_for_file(&task.path.join("harmed"));
    }
    let runners = world.processes();
    world.kill_watcher(watcher);
    for (runner, _) in runners.iter().filter(|(_, line)| line.contains(" runner")) {
        world.signal(*runner, Signal::KILL);
    }
    world.start_watcher();
    let unknown = tasks.pop().unwrap();
    for (task, harm) in tasks.iter().zip(HARMS) {
        let result = world.result_of(task);
        assert_eq!(
            (&result["status"], &result["attempt"]),
            (&json!("completed"), &json!(2)),
            "{harm}"
        );
        assert!(!task.path.join("overlap").exists(), "{harm}");
    }
    world.wait_until("it is reported as stuck", || {
        unknown.status()["condition"] == "stuck"
    });
    let bare = unknown.read("bare").trim().parse().unwrap();
    assert!(is_alive(bare) && !unknown.path.join("attempts/2").exists());
    world.signal(bare, Signal::KILL);
    for record in ["run.json", "result.part"] {
        std::fs::remove_file(unknown.path.join("attempts/1").join(record)).unwrap();
    }
    assert_eq!(world.result_of(&unknown)["attempt"], 2);
}
