//! Verbs for several tasks: named ones, or those that a filter selects.
//!
//! Not what a verb does with one task (`cancel.rs`, `clear.rs` and so on). Checked: an unknown task keeps no
//! other from being handled, the exit code is the first that is not 0, and the JSON form has both lists.

use serde_json::{Value, json};

use crate::support::{Task, World};

/// Two recipes, and no watcher.
fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe("bad", "#!/bin/sh\nexit 3\n");
    world
}

fn run_to_end(world: &World, task: &Task) {
    world.run(&["runner", "--once", &task.id]).succeeds();
}

fn ids(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|task| task["task_id"].as_str().unwrap())
        .collect()
}

#[test]
fn several_tasks_are_cancelled_and_an_unknown_one_stops_nothing() {
    let world = world();
    let [first, second, third] = [0; 3].map(|_| world.submit(&["ok"]));
    let ran = world.run(&["cancel", &first.id, "nobody", &second.id]);
    ran.ends_with(7);
    let expected = format!("Cancelled: {}\nCancelled: {}\n", first.id, second.id);
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr.contains("no task is called \"nobody\""),
        "{}",
        ran.stderr
    );
    assert!(!third.has_result(), "{}", world.describe());
    let ran = world.run(&["cancel", &third.id, "nobody", "--json"]);
    let object = ran.ends_with(7).json();
    assert_eq!(ids(&object["tasks"]), [third.id.as_str()], "{object}");
    assert_eq!(object["tasks"][0]["status"], "cancelled", "{object}");
    let failed = json!([{"task": "nobody", "code": 7, "error": "no task is called \"nobody\""}]);
    assert_eq!(
        (&object["failed"], &object["ok"], &object["code"]),
        (&failed, &json!(false), &json!(7))
    );
}

#[test]
fn a_filter_selects_what_is_cancelled() {
    let world = world();
    let (ok, bad) = (world.submit(&["ok"]), world.submit(&["bad"]));
    let labelled = world.submit(&["bad", "--label", "night"]);
    let in_session = world.submit(&["bad", "--session-id", "s"]);
    let object = world.json(&["cancel", "--label", "night"]);
    assert_eq!(ids(&object["tasks"]), [labelled.id.as_str()]);
    let object = world.json(&["cancel", "--session", "s"]);
    assert_eq!(ids(&object["tasks"]), [in_session.id.as_str()]);
    let object = world.json(&["cancel", "--recipe", "bad", "--status", "pending,running"]);
    assert_eq!(ids(&object["tasks"]), [bad.id.as_str()]);
    // An empty selection is an answer.
    let ran = world.run(&["cancel", "--recipe", "bad"]);
    assert_eq!(ran.succeeds().stderr, "note: no task matches\n");
    let object = world.json(&["cancel", "--all"]);
    assert_eq!(ids(&object["tasks"]), [ok.id.as_str()]);
    let object = world.json(&["cancel", "--since", "1h"]);
    assert_eq!(object, json!({"ok": true, "tasks": [], "failed": []}));
}

#[test]
fn nothing_is_selected_by_accident() {
    let world = world();
    let task = world.submit(&["ok"]);
    for arguments in [
        &["cancel"][..],
        &["cancel", &task.id, "--all"],
        &["cancel", &task.id, "--status", "pending"],
        &["cancel", "--all", "--status", "pending"],
        &["clear", &task.id, "--status", "pending"],
        &["status"],
        &["result"],
        &["wait"],
    ] {
        world.run(arguments).ends_with(2);
    }
    assert!(!task.has_result(), "{}", world.describe());
}

#[test]
fn named_tasks_are_cleared() {
    let world = world();
    let [over, open, other] = [0; 3].map(|_| world.submit(&["ok"]));
    run_to_end(&world, &over);
    run_to_end(&world, &other);
    let ran = world.run(&["clear", &over.id, &open.id]);
    ran.ends_with(1);
    assert_eq!(ran.stdout, "Cleared 1 task\n");
    let expected = format!(
        "error: the task {0} has not ended\nhint: cancel it first: `agentspool cancel {0}`\n",
        open.id
    );
    assert_eq!(ran.stderr, expected);
    assert!(
        !over.path.exists() && other.path.exists(),
        "{}",
        world.describe()
    );
    let object = world.run(&["clear", &open.id, "nobody", "--all", "--json"]);
    let object = object.ends_with(7).json();
    assert_eq!(object["task_ids"], json!([open.id]), "{object}");
    assert_eq!(object["failed"][0]["task"], "nobody", "{object}");
    assert!(other.path.exists(), "only named tasks are cleared");
}

#[test]
fn the_status_and_the_results_of_several_tasks_are_lists() {
    let world = world();
    let (ok, bad) = (world.submit(&["ok"]), world.submit(&["bad"]));
    run_to_end(&world, &ok);
    run_to_end(&world, &bad);
    let object = world.json(&["status", &ok.id, &bad.id]);
    assert_eq!(ids(&object["tasks"]), [ok.id.as_str(), bad.id.as_str()]);
    assert_eq!(object["failed"], json!([]));
    let text = world
        .run(&["status", &ok.id, &bad.id])
        .succeeds()
        .stdout
        .clone();
    assert_eq!(text.matches("Task: ").count(), 2, "{text}");
    assert!(text.contains("\n\nTask: "), "{text}");
    let ran = world.run(&["result", &ok.id, &bad.id, "--json"]);
    // As for one task: the code of the first that failed.
    let object = ran.ends_with(3).json();
    assert_eq!(object["tasks"][0]["output"], "fine", "{object}");
    assert_eq!(object["tasks"][1]["exit_code"], 3, "{object}");
    world.run(&["result", &ok.id, &bad.id]).ends_with(2);
    let object = world.json(&["result", "--status", "completed"]);
    assert_eq!(ids(&object["tasks"]), [ok.id.as_str()]);
    world.run(&["wait", "--recipe", "bad"]).succeeds();
    let listed = world.run(&["list", "-q", "--recipe", "bad"]).stdout;
    assert_eq!(listed, format!("{}\n", bad.id));
}

/// A name or `last` may lead to another task by the time the command waits.
#[test]
fn what_was_cancelled_is_waited_for_by_its_id() {
    let world = World::new();
    world.recipe(
        "slow",
        "#!/bin/sh\ntrap 'until [ -e go ]; do sleep 0.02; done; exit 1' TERM\ntouch ready\nwhile :; do sleep 0.02; done\n",
    );
    world.start_watcher();
    let [first, second] = [0; 2].map(|_| world.submit(&["slow"]));
    for task in [&first, &second] {
        world.wait_for_file(&task.work(1, "ready"));
    }
    let cancel = world.start(&["cancel", &first.id, "last", "--json"]);
    world.wait_until("both are requested", || {
        [&first, &second]
            .iter()
            .all(|task| task.path.join("cancel").exists())
    });
    let third = world.submit(&["slow"]);
    for task in [&first, &second] {
        std::fs::write(task.work(1, "go"), "").unwrap();
    }
    let ran = cancel.end();
    let object = ran.succeeds().json();
    assert_eq!(
        ids(&object["tasks"]),
        [first.id.as_str(), second.id.as_str()]
    );
    assert!(!third.path.join("cancel").exists(), "{}", world.describe());
}

#[test]
fn an_empty_label_selects_nothing() {
    let world = world();
    let task = world.submit(&["ok"]);
    for verb in ["cancel", "clear", "list", "wait"] {
        let ran = world.run(&[verb, "--label", ""]);
        ran.ends_with(2);
        assert!(ran.stderr.contains("the label is empty"), "{}", ran.stderr);
    }
    assert!(
        !task.has_result() && task.path.exists(),
        "{}",
        world.describe()
    );
}

/// The index of a copy is empty until a watcher has compared it with the tasks.
#[test]
fn a_filter_finds_the_tasks_of_a_copy() {
    let world = world();
    let task = world.submit(&["ok"]);
    for entry in std::fs::read_dir(world.path("open")).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
    let listed = world.run(&["list", "-q", "--status", "pending"]).stdout;
    assert_eq!(listed, format!("{}\n", task.id));
    let object = world.json(&["cancel", "--all"]);
    assert_eq!(ids(&object["tasks"]), [task.id.as_str()]);
}

#[test]
fn a_dry_run_is_one_object() {
    let world = world();
    let task = world.submit(&["ok"]);
    run_to_end(&world, &task);
    let ran = world.run(&["clear", &task.id, "nobody", "--dry-run", "--json"]);
    let object = ran.ends_with(7).json();
    assert_eq!(object["would_clear"], json!([task.id]), "{object}");
    assert_eq!(
        (&object["ok"], &object["failed"][0]["task"]),
        (&json!(false), &json!("nobody"))
    );
}
