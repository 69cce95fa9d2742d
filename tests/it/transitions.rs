//! The log of our own processes: one line for each transition of a task, with the same fields everywhere.
//!
//! Not a task's logs (`logs.rs`). The journal is tested in `tests/rig/journal.rs`. Invariant: a line names
//! the task, its recipe, its session and its attempt; no line contains a secret.

use std::fs;

use crate::support::{Task, World};

fn world() -> World {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe("bad", "#!/bin/sh\nexit 3\n");
    world.set("autostart", "false");
    world
}

fn log(world: &World) -> String {
    fs::read_to_string(world.root().join("watch.log")).unwrap()
}

/// The log lines of a task: the words after the level, without the fields.
fn transitions(log: &str, task: &Task) -> Vec<String> {
    let of_task = log.lines().filter(|line| line.contains(&task.id));
    of_task
        .map(|line| {
            let (_, words) = line.split_once(" INFO ").unwrap_or(("", line));
            words.split(" task=").next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_task_has_one_line_for_each_transition() {
    let world = world();
    let ended = [
        (world.submit(&["ok", "--session-id", "chat"]), "completed"),
        (world.submit(&["bad"]), "failed"),
        (world.submit(&["ok"]), "cancelled"),
    ];
    fs::write(ended[2].0.path.join("cancel"), "").unwrap();
    world.start_watcher();
    world.drop_in(
        "dropped.json",
        "{\"recipe\": \"ok\", \"session_id\": \"chat\"}",
    );
    world.wait_until("the drop is a task", || world.tasks().len() == 4);
    for task in &world.tasks() {
        world.result_of(task);
        world.wait_until("its end is logged", || {
            let message = transitions(&log(&world), task);
            message
                .iter()
                .any(|words| ["completed", "failed", "cancelled"].contains(&words.as_str()))
        });
    }
    let log = log(&world);
    for (task, word) in &ended {
        let expected = match *word {
            "cancelled" => vec!["cancelled"],
            word => vec!["started", word],
        };
        assert_eq!(transitions(&log, task), expected, "{log}");
    }
    let dropped = world.tasks().pop().unwrap();
    assert_eq!(
        transitions(&log, &dropped),
        ["admitted", "started", "completed"],
        "{log}"
    );
    for line in log.lines().filter(|line| line.contains(" task=")) {
        for field in [" recipe=", " session="] {
            assert!(line.contains(field), "no{field} in {line}");
        }
    }
    let failed = log.lines().find(|line| line.contains(" failed ")).unwrap();
    assert!(
        failed.contains("attempt=1 exit_code=3 kind=exit"),
        "{failed}"
    );
}

#[test]
fn a_loss_and_the_retry_are_logged() {
    let world = world();
    let gate = world.root().join("gate");
    let script = format!(
        "#!/bin/sh\necho >> '{0}.began'\nwhile [ ! -e '{0}' ]; do sleep 0.05; done\n",
        gate.display()
    );
    world.recipe_folder("again", "on_lost = \"requeue\"", &script);
    let task = world.submit(&["again"]);
    let mut runner = world
        .command(&["runner", "--once", &task.id])
        .spawn()
        .unwrap();
    let began = world.root().join("gate.began");
    world.wait_for_lines(&began, 1);
    runner.kill().unwrap();
    runner.wait().unwrap();
    world.start_watcher();
    world.wait_for_lines(&began, 2);
    fs::write(&gate, "").unwrap();
    world.result_of(&task);
    world.wait_until("its end is logged", || {
        log(&world).contains("completed task=")
    });
    let message = transitions(&log(&world), &task);
    assert_eq!(message, ["lost", "retrying", "started", "completed"]);
}

#[test]
fn quiet_verbose_and_the_filter_set_what_is_logged() {
    let world = world();
    let task = world.submit(&["ok"]);
    let quiet = world.run(&["--quiet", "runner", "--once", &task.id]);
    assert_eq!(quiet.succeeds().stderr, "");
    let submit = ["submit", "--recipe", "ok", "--json"];
    let silent = world.run(&submit);
    assert!(!silent.stderr.contains("accepted"), "{}", silent.stderr);
    let message = world.run(&[&["-v"], &submit[..]].concat());
    let id = message.json()["task_id"].as_str().unwrap().to_owned();
    let expected = format!(" INFO accepted task={id} recipe=ok session=session_");
    assert!(message.stderr.contains(&expected), "{}", message.stderr);

    let mut filtered = world.command(&["runner", "--once", &id]);
    filtered.env("AGENTSPOOL_LOG", "agentspool::events=info");
    let ran = crate::support::Ran::of(&mut filtered);
    assert_eq!(
        transitions(&ran.stderr, &world.task(&id)),
        ["started", "completed"],
        "{}",
        ran.stderr
    );

    let mut wrong = world.command(&["list"]);
    wrong.env("AGENTSPOOL_LOG", "agentspool=loud");
    let ran = crate::support::Ran::of(&mut wrong);
    ran.ends_with(2);
    assert!(ran.stderr.contains("AGENTSPOOL_LOG"), "{}", ran.stderr);
}

/// The variable is inherited by processes with another stderr, for example by the commands of a task. Such a
/// process must write to its stderr.
#[test]
fn a_journal_variable_for_another_stderr_is_ignored() {
    let world = world();
    let task = world.submit(&["ok"]);
    let mut command = world.command(&["runner", "--once", &task.id]);
    command.env("JOURNAL_STREAM", "8:12345");
    let ran = crate::support::Ran::of(&mut command);
    assert_eq!(
        transitions(&ran.stderr, &task),
        ["started", "completed"],
        "{}",
        ran.stderr
    );
}

#[test]
fn no_line_contains_a_secret() {
    let world = world();
    world.recipe_folder(
        "secret",
        "env_accept = [\"TOKEN\"]",
        "#!/bin/sh\necho $TOKEN\n",
    );
    let task = world.submit(&[
        "secret",
        "--env",
        "TOKEN=hunter2",
        "--input",
        "{\"key\": \"hunter2\"}",
    ]);
    let ran = world.run(&["-vvv", "runner", "--once", &task.id]);
    assert_eq!(task.result()["output"], "hunter2");
    assert!(!ran.succeeds().stderr.contains("hunter2"), "{}", ran.stderr);
}
