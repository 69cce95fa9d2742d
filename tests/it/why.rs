//! `agentspool why`: each reason for which a task waits, and the output after the reason no longer holds.
//!
//! Not the order of starts (`session.rs`, `limits.rs`).

use serde_json::Value;

use crate::support::{Task, World};

const HELD: &str =
    "#!/bin/sh\nwhile [ ! -e \"$AGENTSPOOL_SPOOL_DIR/../go\" ]; do sleep 0.01; done\n";

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("rescan_sec", "0.3");
    let held = HELD.replace("$AGENTSPOOL_SPOOL_DIR/..", world.root().to_str().unwrap());
    world.recipe("held", &held);
    world
}

fn reasons(world: &World, task: &Task) -> Vec<String> {
    let answer = world.json(&["why", &task.id]);
    assert_eq!(answer["task_id"], task.id.as_str());
    let reasons = answer["reasons"].as_array().unwrap();
    let word = |reason: &Value| reason["reason"].as_str().unwrap().to_owned();
    reasons.iter().map(word).collect()
}

fn why_output(world: &World, task: &Task) -> String {
    let ran = world.run(&["why", &task.id]);
    ran.succeeds();
    ran.stdout
}

#[test]
fn a_command_in_advice_names_the_spool_that_was_named() {
    let world = World::new();
    world.recipe("echo", "#!/bin/sh\n");
    world.run(&["pause"]).succeeds();
    let task = world.submit(&["echo"]);
    let spool = world.spool();
    let spool = spool.to_str().unwrap();
    let why = world.run(&["--spool", spool, "why", &task.id]);
    let resume = format!("`agentspool --spool {spool} resume`");
    assert!(why.stdout.contains(&resume), "{}", why.stdout);
    let ran = world.run(&["--spool", spool, "result", &task.id]);
    let wait = format!("`agentspool --spool {spool} wait {}`", task.id);
    assert!(ran.stderr.contains(&wait), "{}", ran.stderr);
    // Without the flag the variable names the spool for the advised command too.
    let why = world.run(&["why", &task.id]);
    assert!(why.stdout.contains("`agentspool resume`"), "{}", why.stdout);
}

#[test]
fn reasons_that_hold_all_tasks_come_first() {
    let world = world();
    let task = world.submit(&["held"]);
    world.run(&["pause"]).succeeds();
    assert_eq!(reasons(&world, &task), ["watcher", "paused"]);
    let lines = why_output(&world, &task);
    assert!(
        lines.contains("agentspool watch") && lines.contains("agentspool resume"),
        "{lines}"
    );
    world.run(&["resume"]).succeeds();
    world.start_watcher();
    world.wait_running(&task);
    assert!(reasons(&world, &task).is_empty());
    assert_eq!(
        why_output(&world, &task),
        format!("{} is running\n", task.id)
    );
    world.run(&["cancel", &task.id]).succeeds();
    assert_eq!(
        why_output(&world, &task),
        format!("{} was cancelled\n", task.id)
    );
    world.run(&["why", "nobody"]).ends_with(7);
}

#[test]
fn the_reason_session_names_the_earlier_task() {
    let world = world();
    world.start_watcher();
    let first = world.submit(&["held", "--session-id", "s"]);
    let second = world.submit(&["held", "--session-id", "s"]);
    world.wait_running(&first);
    let answer = world.json(&["why", &second.id]);
    assert_eq!(answer["reasons"][0]["reason"], "session");
    assert_eq!(answer["reasons"][0]["task_id"], first.id.as_str());
    let status = world.run(&["status", &second.id]);
    let line = format!(
        "Reason: waits for {}, an earlier task of the session s\n",
        first.id
    );
    assert!(status.stdout.contains(&line), "{}", status.stdout);
    std::fs::write(world.root().join("go"), "").unwrap();
    world.result_of(&second);
    assert!(reasons(&world, &second).is_empty());
}

#[test]
fn the_reason_slot_names_the_limit() {
    let world = world();
    world.set("max_concurrent", "2");
    let held = HELD.replace("$AGENTSPOOL_SPOOL_DIR/..", world.root().to_str().unwrap());
    world.recipe_folder("one", "max_concurrent = 1", &held);
    world.start_watcher();
    let first = world.submit(&["one"]);
    world.wait_running(&first);
    let second = world.submit(&["one"]);
    world.wait_until("it waits for its recipe", || {
        reasons(&world, &second) == ["slot"]
    });
    let line = why_output(&world, &second);
    assert!(line.contains("recipe one: at most 1"), "{line}");
    let other = world.submit(&["held"]);
    world.wait_running(&other);
    let third = world.submit(&["held"]);
    world.wait_until("it waits for any slot", || {
        reasons(&world, &third) == ["slot"]
    });
    let line = why_output(&world, &third);
    assert!(line.contains("at most 2 run at once"), "{line}");
    assert_eq!(reasons(&world, &second), ["slot", "slot"]);
    std::fs::write(world.root().join("go"), "").unwrap();
    world.result_of(&third);
}

#[test]
fn a_task_with_damaged_files_has_a_reason() {
    let world = world();
    let task = world.submit(&["held"]);
    std::fs::write(task.path.join("request.json"), "{").unwrap();
    world.start_watcher();
    world.wait_until("it is reported as damaged", || {
        reasons(&world, &task)
            .first()
            .is_some_and(|it| it == "damaged")
    });
    assert!(why_output(&world, &task).contains("agentspool doctor"));
}

#[test]
fn a_drop_waits_for_its_admission() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\n");
    world.drop_in("early.json", "{\"recipe\": ");
    let reason = |word: &str| {
        let object = world.json(&["why", "early"]);
        assert_eq!(object["task_id"], serde_json::Value::Null, "{object}");
        assert_eq!(object["reasons"][0]["reason"], word, "{object}");
    };
    reason("watcher");
    world.start_watcher();
    reason("admission");
    let printed = world.run(&["why", "early"]).succeeds().stdout.clone();
    assert!(printed.contains("refused after 60 seconds"), "{printed}");
}
