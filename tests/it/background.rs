//! The documented group `background`: every command line of the page, with only the program's name changed.
//!
//! What each verb does is tested in its own file. Here: the words are accepted and mean the same below
//! `background`. The page's two scripts run in `tests/rig/page.rs`, which needs jq.

use serde_json::json;

use crate::support::terminal::On;
use crate::support::{Task, World};

fn world() -> World {
    let world = World::new();
    world.recipe("my-recipe", "#!/bin/sh\ncat\n");
    world
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn submit_takes_every_documented_flag() {
    let world = world();
    world.set("autostart", "false");
    let submitted = |more: &[&str]| -> Task {
        let mut arguments = words("background submit --recipe my-recipe");
        arguments.extend(more);
        let ran = world.run(&arguments);
        ran.succeeds();
        let json = world.tasks().pop().unwrap();
        assert!(ran.stdout.contains(&json.id), "{}", ran.stdout);
        json
    };
    assert_eq!(submitted(&[]).request()["recipe"], "my-recipe");
    let query = json!({"query": "test"});
    for flag in ["--input", "-i"] {
        assert_eq!(
            submitted(&[flag, r#"{"query": "test"}"#]).request()["input"],
            query
        );
    }
    let most = json!({"max_tokens": 1000});
    for flag in ["--config", "-c"] {
        assert_eq!(
            submitted(&[flag, r#"{"max_tokens": 1000}"#]).request()["config"],
            most
        );
    }
    for flag in ["--session-id", "-s"] {
        assert_eq!(
            submitted(&[flag, "session_123"]).request()["session_id"],
            "session_123"
        );
    }
    assert_eq!(
        submitted(&["--timeout", "600"]).request()["timeout_sec"],
        600.0
    );
    let object = world.json(&words("background submit --recipe my-recipe"));
    assert_eq!(object["ok"], true);
    let missing = world.run(&words("background submit"));
    missing.ends_with(2);
    assert!(missing.stderr.contains("--recipe"), "{}", missing.stderr);
}

#[test]
fn list_takes_every_documented_flag() {
    let world = world();
    let task = world.submit(&["my-recipe"]);
    world.result_of(&task);
    for (line, tasks) in [
        ("background list", 1),
        ("background list --status running", 0),
        ("background list --status completed", 1),
        ("background list --status failed", 0),
        ("background list --page 1 --page-size 20", 1),
        ("background list --page 2 --page-size 20", 0),
    ] {
        let ran = world.run(&words(line));
        ran.succeeds();
        assert_eq!(ran.stdout.lines().count(), tasks, "{line}");
        assert_eq!(ran.stderr, "");
        let object = world.json(&words(line));
        assert_eq!(object["tasks"].as_array().unwrap().len(), tasks, "{line}");
    }
    let panel = world.run_on_terminal(On::Stdout, 80, &["background", "list"]);
    assert!(
        panel.stdout.starts_with("╭─ Background Tasks ─"),
        "{}",
        panel.stdout
    );
}

#[test]
fn status_cancel_and_clear_take_every_documented_flag() {
    let world = world();
    let task = world.submit(&["my-recipe"]);
    world.result_of(&task);
    let ran = world.run(&["background", "status", &task.id]);
    ran.succeeds();
    assert!(
        ran.stdout
            .starts_with(&format!("Task: {}\nStatus: completed\n", task.id))
    );
    assert_eq!(ran.stdout, world.run(&["status", &task.id]).stdout);
    assert_eq!(
        world.json(&["background", "status", &task.id])["status"],
        "completed"
    );
    world.run(&["background", "cancel", &task.id]).succeeds();
    assert_eq!(
        world.json(&["background", "cancel", &task.id])["already_terminal"],
        true
    );
    for (line, cleared) in [
        ("background clear --older-than 3600", 0),
        ("background clear", 1),
        ("background clear --all", 0),
    ] {
        let ran = world.run(&words(line));
        ran.succeeds();
        let tasks = if cleared == 1 { "task" } else { "tasks" };
        assert_eq!(ran.stdout, format!("Cleared {cleared} {tasks}\n"), "{line}");
        assert_eq!(ran.stderr, "");
    }
    assert_eq!(world.json(&words("background clear"))["ok"], true);
}

#[test]
fn recipe_run_takes_every_documented_flag() {
    let world = world();
    world.set("autostart", "false");
    for (more, field, value) in [
        (&[][..], "recipe", json!("my-recipe")),
        (
            &["--input", r#"{"query": "test"}"#],
            "input",
            json!({"query": "test"}),
        ),
        (
            &["--session-id", "session_123"],
            "session_id",
            json!("session_123"),
        ),
    ] {
        let mut arguments = words("recipe run my-recipe --background");
        arguments.extend(more);
        let ran = world.run(&arguments);
        ran.succeeds();
        assert_eq!(world.tasks().pop().unwrap().request()[field], value);
    }
}

#[test]
fn our_own_verbs_are_in_the_group() {
    let world = world();
    let task = world.submit(&["my-recipe", "--input", "7"]);
    world.run(&["background", "wait", &task.id]).succeeds();
    assert_eq!(world.run(&["background", "result", "last"]).stdout, "7\n");
    assert_eq!(world.run(&["background", "logs", "last"]).stdout, "7");
    world.run(&["background"]).ends_with(2);
    world.run(&["background", "lst"]).ends_with(2);
}
