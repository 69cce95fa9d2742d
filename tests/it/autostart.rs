//! The watcher that `submit` starts: only one starts, it does not depend on the shell that ran `submit`, and
//! no task is lost between a watcher that exits and the next one.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::processes::session_of;
use crate::support::{PROGRAM, Task, World, names_in};

/// A world with a recipe `notes` that appends a line to the file it returns.
fn noting_world() -> (World, PathBuf) {
    let world = World::new();
    let log = world.root().join("log");
    let script = format!(
        "#!/bin/sh\necho $AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT >>{}\n",
        log.display()
    );
    world.recipe("notes", &script);
    (world, log)
}

/// The watchers whose file is locked. `submit` checks the same lock: a process that was just killed may keep
/// its files open for a moment after it is no longer visible.
fn running_watchers(world: &World) -> Vec<i32> {
    let folder = world.path("watchers");
    let mut pids = Vec::new();
    for name in names_in(&folder) {
        if !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        let Ok(file) = std::fs::File::open(folder.join(&name)) else {
            continue;
        };
        if file.try_lock_shared().is_err() {
            let text = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
            let watcher: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            pids.extend(watcher["pid"].as_i64().map(|pid| pid as i32));
        }
    }
    pids
}

#[track_caller]
fn assert_each_ran_once(world: &World, log: &PathBuf, tasks: &[Task]) {
    for task in tasks {
        assert_eq!(world.result_of(task)["status"], "completed");
    }
    let text = std::fs::read_to_string(log).unwrap();
    let mut ran: Vec<&str> = text.lines().collect();
    ran.sort_unstable();
    let mut expected: Vec<String> = tasks.iter().map(|task| format!("{} 1", task.id)).collect();
    expected.sort_unstable();
    assert_eq!(ran, expected);
}

#[test]
fn many_submits_at_once_start_one_watcher() {
    let (world, log) = noting_world();
    let submits: Vec<_> = (0..12)
        .map(|_| {
            let mut command = world.command(&["--quiet", "submit", "--recipe", "notes"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut tasks = Vec::new();
    for submit in submits {
        let output = submit.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        tasks.push(world.task(String::from_utf8_lossy(&output.stdout).trim()));
    }
    assert_each_ran_once(&world, &log, &tasks);
    assert_eq!(running_watchers(&world).len(), 1, "{}", world.describe());
    let text = std::fs::read_to_string(world.path("watchers/log")).unwrap();
    assert_eq!(text.matches("watching").count(), 1, "{text}");
}

#[test]
fn a_submit_inside_a_task_starts_no_watcher_and_its_task_runs_once() {
    let (world, log) = noting_world();
    world.set("autostart", "false");
    world.recipe(
        "orders",
        "#!/bin/sh\nagentspool config set autostart true >&2\n\
         agentspool --quiet submit --recipe notes\n",
    );
    let first = world.submit(&["orders"]);
    // A runner without a watcher: only the submit inside the task could start one.
    world.run(&["runner", "--once", &first.id]).succeeds();
    let id = first.result()["output"].as_str().unwrap().to_owned();
    assert_eq!(running_watchers(&world), Vec::<i32>::new());
    assert!(
        !world.path("watchers/log").exists(),
        "none was started and left"
    );
    let second = world.task(&id);
    assert!(!second.has_result());
    world.start_watcher();
    assert_each_ran_once(&world, &log, &[second]);
}

#[test]
fn a_submit_while_the_watcher_exits_loses_no_task() {
    let (world, log) = noting_world();
    world.set("idle_exit_sec", "0.01");
    let mut tasks = Vec::new();
    for n in 0..40 {
        tasks.push(world.submit(&["notes"]));
        // Only some results are waited for, so that the next submit comes before, during or after the exit
        // of the watcher.
        if n % 3 != 0 {
            world.result_of(&tasks[n]);
        }
    }
    assert_each_ran_once(&world, &log, &tasks);
    world.wait_until("at most one watcher is left", || {
        running_watchers(&world).len() <= 1
    });
    world.wait_until("the last watcher exits", || {
        running_watchers(&world).is_empty()
    });
    assert!(
        names_in(&world.path("open"))
            .iter()
            .all(|name| name.starts_with('.'))
    );
}

#[test]
fn submits_from_many_shells_lose_no_task_while_watchers_exit() {
    let (world, log) = noting_world();
    world.set("idle_exit_sec", "0");
    // Four shells; each one runs one submit after another.
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let mut shell = Command::new("sh");
            shell
                .args([
                    "-c",
                    "for n in 1 2 3 4 5 6 7 8; do \"$0\" -q submit --recipe notes; done",
                ])
                .arg(PROGRAM)
                .env("AGENTSPOOL_DIR", world.spool())
                .env("HOME", world.root().join("home"))
                .stdout(Stdio::piped());
            shell.spawn().unwrap()
        })
        .collect();
    let mut tasks = Vec::new();
    for shell in loops {
        let output = shell.wait_with_output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        tasks.extend(printed.lines().map(|id| world.task(id)));
    }
    assert_eq!(tasks.len(), 32);
    assert_each_ran_once(&world, &log, &tasks);
    world.wait_until("all watchers exit", || running_watchers(&world).is_empty());
}

#[test]
fn the_watcher_is_detached_from_the_shell_that_started_it() {
    let (world, _) = noting_world();
    world.recipe("stays", "#!/bin/sh\nsleep 1000\n");
    // In a pipe, and with an open file that the watcher must not inherit, as under flock(1).
    let script =
        format!("exec 9>held\nflock 9\n{PROGRAM} --quiet submit --recipe stays\nkill -HUP 0\n");
    // The process that runs the tests may ignore SIGHUP (nohup), and a shell cannot undo that for itself.
    let mut shell = Command::new("env");
    shell
        .args(["--default-signal=HUP", "sh", "-c", &script])
        .env("AGENTSPOOL_DIR", world.spool())
        .env("HOME", world.root().join("home"))
        .current_dir(world.root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let mut shell = shell.spawn().unwrap();
    let mut printed = String::new();
    // The read ends only once no process has the pipe open, although the watcher and the task still run.
    shell
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .unwrap();
    let status = shell.wait().unwrap();
    assert_eq!(status.code(), None, "the shell was ended by its own SIGHUP");
    let task = world.task(printed.trim());
    world.wait_running(&task);
    let watcher = running_watchers(&world);
    assert_eq!(watcher.len(), 1, "{}", world.describe());
    let watcher = watcher[0];
    assert_eq!(session_of(watcher), Some(watcher), "a session of its own");
    let link = |name: &str| std::fs::read_link(format!("/proc/{watcher}/{name}")).unwrap();
    assert_eq!(link("cwd"), PathBuf::from("/"));
    assert_eq!(link("fd/0"), PathBuf::from("/dev/null"));
    assert_eq!(link("fd/1"), PathBuf::from("/dev/null"));
    assert_eq!(link("fd/2"), world.path("watchers/log"));
    let held = world.root().join("held");
    let lock = std::fs::File::open(&held).unwrap();
    lock.try_lock()
        .expect("the shell's own lock was released with the shell");
    world.run(&["cancel", &task.id]).succeeds();
}

#[test]
fn without_autostart_submit_only_prints_a_note() {
    let (world, _) = noting_world();
    world.set("autostart", "false");
    let ran = world.run(&["submit", "--recipe", "notes"]);
    ran.succeeds();
    assert!(ran.stdout.contains("Status: pending"), "{}", ran.stdout);
    assert!(ran.stderr.contains("watch"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(running_watchers(&world), Vec::<i32>::new());
    let task = world.only_task();
    assert_eq!(
        (task.request()["recipe"].as_str(), task.attempts()),
        (Some("notes"), 0)
    );
}

#[test]
fn a_task_is_on_disk_when_submit_returns_even_if_its_watcher_is_killed() {
    let (world, _) = noting_world();
    let task = world.submit(&["notes"]);
    assert_eq!(task.request()["recipe"], "notes");
    for pid in running_watchers(&world) {
        world.signal(pid, Signal::KILL);
    }
    world.wait_until("no watcher runs", || running_watchers(&world).is_empty());
    // The next submit finds that the file belongs to a watcher that was killed.
    let next = world.submit(&["notes"]);
    for task in [&task, &next] {
        assert_eq!(world.result_of(task)["status"], "completed");
        assert_eq!(task.attempts(), 1);
    }
    assert_eq!(running_watchers(&world).len(), 1);
}

#[test]
fn a_secret_of_the_submitting_shell_is_not_passed_to_the_task() {
    let (world, _) = noting_world();
    world.recipe("env", "#!/bin/sh\nenv\n");
    let mut command = world.command(&["--quiet", "submit", "--recipe", "env"]);
    command
        .env("OPENAI_API_KEY", "sk-very-secret")
        .env("PATH_TO_SECRET", "/very-secret")
        .env("XDG_CONFIG_HOME", "/etc/xdg-of-the-test");
    let ran = crate::support::Ran::of(&mut command);
    ran.succeeds();
    let result = world.result_of(&world.task(ran.stdout.trim()));
    let output = result["output"].as_str().unwrap();
    assert!(!output.contains("very-secret"), "{output}");
    assert!(
        output.contains("XDG_CONFIG_HOME=/etc/xdg-of-the-test"),
        "{output}"
    );
    assert!(output.contains("HOME="), "{output}");
    // The secret is not in the spool either.
    let found = Command::new("grep")
        .args(["-r", "very-secret"])
        .arg(world.spool())
        .output()
        .unwrap();
    assert!(found.stdout.is_empty());
}

/// The variables of the task are cleared. A watcher that a command started here would end with the task.
#[test]
fn a_submit_inside_a_task_starts_no_watcher_without_the_variables_of_the_task() {
    let (world, _) = noting_world();
    let other = world.root().join("other");
    world.run(&["init", other.to_str().unwrap()]).succeeds();
    std::fs::create_dir_all(other.join("recipes")).unwrap();
    crate::support::write_executable(&other.join("recipes/later"), "#!/bin/sh\n:\n");
    let script = format!(
        "#!/bin/sh\nexec env -i sh -c '(\"{PROGRAM}\" --spool \"{other}\" submit --recipe later) 2>&1'\n",
        other = other.display()
    );
    world.recipe("cleaned", &script);
    let task = world.submit(&["cleaned"]);
    let printed = world.result_of(&task)["output"].to_string();
    assert!(printed.contains("no watcher is running on"), "{printed}");
    assert!(
        !other.join("watchers/log").exists(),
        "a watcher was started"
    );
    let ran = world.run(&["recipe", "run", "cleaned"]);
    ran.succeeds();
    assert_eq!(names_in(&other.join("tasks")).len(), 2, "{}", ran.stdout);
}
