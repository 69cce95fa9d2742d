//! `clear`: what was selected is removed, what is locked or open stays, and `--dry-run` changes nothing.

use serde_json::{Value, json};

use crate::support::terminal::{On, Terminal};
use crate::support::{Task, World, names_in};

struct Four {
    completed: Task,
    failed: Task,
    cancelled: Task,
    pending: Task,
}

/// One finished task of each kind, and a pending one that no watcher runs.
fn one_of_each(world: &World) -> Four {
    world.recipe("works", "#!/bin/sh\n");
    world.recipe("fails", "#!/bin/sh\nexit 1\n");
    let completed = world.submit(&["works", "--name", "good"]);
    let failed = world.submit(&["fails"]);
    world.run(&["wait", &completed.id, &failed.id]).ends_with(3);
    let watcher = world.watcher_pids()[0];
    let watcher = rustix::process::Pid::from_raw(watcher).unwrap();
    rustix::process::kill_process(watcher, rustix::process::Signal::TERM).unwrap();
    world.set("autostart", "false");
    world.wait_until("the watcher has exited", || world.processes().is_empty());
    let cancelled = world.submit(&["works"]);
    world.run(&["cancel", &cancelled.id]).succeeds();
    let pending = world.submit(&["works"]);
    Four {
        completed,
        failed,
        cancelled,
        pending,
    }
}

fn left(world: &World) -> Vec<String> {
    world.tasks().into_iter().map(|task| task.id).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn finished_tasks_are_removed_with_their_names() {
    let world = World::new();
    let four = one_of_each(&world);
    let object = world.json(&["clear"]);
    assert_eq!(
        keys(&object),
        ["ok", "cleared", "task_ids", "skipped", "freed_bytes"]
    );
    let removed = [&four.cancelled.id, &four.failed.id, &four.completed.id];
    assert_eq!(
        (&object["ok"], &object["cleared"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(object["task_ids"], json!(removed));
    assert_eq!(object["skipped"], json!([]));
    assert!(object["freed_bytes"].as_u64().unwrap() > 0);
    assert_eq!(left(&world), [four.pending.id]);
    for folder in ["names", "trash"] {
        assert_eq!(names_in(&world.path(folder)).len(), 0, "{folder}");
    }
    let again = world.run(&["clear"]);
    again.succeeds();
    assert_eq!(
        (again.stdout.as_str(), again.stderr.as_str()),
        ("Cleared 0 tasks\n", "")
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::new();
    let four = one_of_each(&world);
    let before = left(&world);
    let ran = world.run(&["clear", "--all", "--dry-run"]);
    ran.succeeds();
    let expected = format!(
        "would cancel and clear {}\nwould clear {}\nwould clear {}\nwould clear {}\n",
        four.pending.id, four.cancelled.id, four.failed.id, four.completed.id
    );
    assert_eq!(ran.stdout, expected);
    let object = world.json(&["clear", "--dry-run"]);
    assert_eq!(object["would_clear"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&object["dry_run"], &object["cleared"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(left(&world), before);
    assert!(!four.pending.path.join("cancel").exists());
}

#[test]
fn only_tasks_of_one_status_are_removed() {
    let world = World::new();
    let four = one_of_each(&world);
    let ran = world.run(&["clear", "--status", "failed"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "Cleared 1 task\n");
    assert!(!left(&world).contains(&four.failed.id));
    let quiet = world.run(&["clear", "--status", "succeeded", "-q"]);
    quiet.succeeds();
    assert_eq!(quiet.stdout, format!("{}\n", four.completed.id));
    for open in ["pending", "running"] {
        let ran = world.run(&["clear", "--status", open]);
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(left(&world), [four.cancelled.id, four.pending.id]);
}

#[test]
fn only_tasks_that_ended_long_enough_ago_are_removed() {
    let world = World::new();
    let four = one_of_each(&world);
    // As if the task had ended earlier. Only the time in its files matters.
    for (file, mut content) in [
        ("result.json", four.failed.result()),
        ("status.json", four.failed.status()),
    ] {
        content["completed_at"] = "2020-01-01T00:00:00.000Z".into();
        std::fs::write(four.failed.path.join(file), content.to_string()).unwrap();
    }
    for (age, cleared) in [("36500d", 0), ("3600", 1), ("1h30m", 0), ("0", 2)] {
        let object = world.json(&["clear", "--older-than", age]);
        assert_eq!(object["cleared"], cleared, "--older-than {age}");
    }
    assert_eq!(left(&world), [four.pending.id]);
    let bad = world.run(&["clear", "--older-than", "long"]);
    bad.ends_with(2);
    assert_eq!(bad.stdout, "");
}

#[test]
fn all_cancels_first_and_then_removes_everything() {
    let world = World::new();
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    world.set("max_concurrent", "1");
    let running = world.submit(&["sleeps"]);
    let pending = world.submit(&["sleeps"]);
    world.wait_running(&running);
    let object = world.json(&["clear", "--all"]);
    assert_eq!(object["cleared"], 2);
    assert_eq!(object["task_ids"], json!([pending.id, running.id]));
    assert!(left(&world).is_empty());
    assert!(running.processes().is_empty());
}

#[test]
fn a_terminal_is_asked_before_tasks_are_cancelled() {
    let world = World::new();
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    let task = world.submit(&["sleeps"]);
    world.wait_running(&task);
    for (typed, arguments) in [
        (Some("n\n"), &["clear", "--all"][..]),
        (Some("\n"), &["clear", "--all", "-q"]),
        (None, &["clear", "--all", "--dry-run"]),
    ] {
        let mut command = world.command(arguments);
        let mut terminal = Terminal::start(&mut command, On::All, 80);
        if let Some(typed) = typed {
            world.wait_until("it asks", || terminal.seen().contains("[y/N]"));
            terminal.type_in(typed);
        }
        let ran = terminal.end();
        ran.ends_with(if typed.is_some() { 4 } else { 0 });
        assert!(task.path.exists(), "{}", ran.stdout);
        assert!(!task.path.join("cancel").exists());
    }
    let mut command = world.command(&["clear", "--all"]);
    let mut terminal = Terminal::start(&mut command, On::All, 80);
    world.wait_until("it asks", || terminal.seen().contains("[y/N]"));
    assert!(
        terminal.seen().contains("1 pending or running task"),
        "{}",
        terminal.seen()
    );
    terminal.type_in("y\n");
    terminal.end().succeeds();
    assert!(left(&world).is_empty());

    let task = world.submit(&["sleeps"]);
    let ran = world.run_on_terminal(On::All, 80, &["clear", "--all", "--yes"]);
    ran.succeeds();
    assert!(!ran.stdout.contains("[y/N]"), "{}", ran.stdout);
    assert!(!task.path.exists());
    // No unfinished task would be removed, so there is no question.
    world.recipe("works", "#!/bin/sh\n");
    let task = world.submit(&["works"]);
    world.result_of(&task);
    world
        .run_on_terminal(On::All, 80, &["clear", "--all"])
        .succeeds();
    assert!(left(&world).is_empty());
}

#[test]
fn a_locked_task_is_skipped() {
    let world = World::new();
    let four = one_of_each(&world);
    let lock = std::fs::File::open(four.failed.path.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let object = world.json(&["clear"]);
    assert_eq!(
        (&object["cleared"], &object["skipped"]),
        (&json!(2), &json!([four.failed.id]))
    );
    let ran = world.run(&["clear"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "Cleared 0 tasks\n");
    assert_eq!(
        ran.stderr,
        "note: 1 task is in use and was kept: a process works on it or holds it open\n"
    );
    drop(lock);
    assert_eq!(world.json(&["clear"])["cleared"], 1);
}

#[test]
fn a_task_that_is_locked_for_a_moment_is_waited_for() {
    let world = World::new();
    let four = one_of_each(&world);
    let lock = std::fs::File::open(four.failed.path.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    // The newest task is checked first. Once it is removed, the command soon reaches the locked one.
    let clearing = world.start(&["clear", "--json"]);
    world.wait_until("it has started", || !four.cancelled.path.exists());
    drop(lock);
    let object = clearing.end().json();
    assert_eq!(
        (&object["cleared"], &object["skipped"]),
        (&json!(3), &json!([]))
    );
}
