//! `cancel`: pending tasks without a watcher, running tasks, finished tasks, and `--no-wait`.
//!
//! Not the end of every child process (`stop.rs`).

use serde_json::{Value, json};

use crate::support::World;

fn world() -> World {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    world
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
fn a_pending_task_is_cancelled_without_a_watcher() {
    let world = world();
    world.set("autostart", "false");
    let task = world.submit(&["works", "--name", "never"]);
    let ran = world.run(&["cancel", "never"]);
    ran.succeeds();
    assert_eq!(ran.stdout, format!("Cancelled: {}\n", task.id));
    assert_eq!(ran.stderr, "");
    let result = task.result();
    assert_eq!(
        (&result["status"], &result["ok"]),
        (&json!("cancelled"), &json!(false))
    );
    assert_eq!(
        (&result["error"], &result["attempt"]),
        (&json!(null), &json!(0))
    );
    assert_eq!(task.attempts(), 0, "it was never started");
    assert_eq!(world.json(&["status", "never"])["status"], "cancelled");
    assert!(
        world.processes().is_empty(),
        "no process was started for it"
    );
}

#[test]
fn a_running_task_has_ended_when_cancel_returns() {
    let world = world();
    let task = world.submit(&["sleeps"]);
    world.wait_running(&task);
    let ran = world.run(&["cancel", &task.id, "--json"]);
    ran.succeeds();
    assert!(task.has_result());
    assert!(task.processes().is_empty());
    let object = ran.json();
    let promised = [
        "ok",
        "task_id",
        "status",
        "cancelled_at",
        "already_terminal",
    ];
    assert_eq!(keys(&object), promised);
    assert_eq!(object["task_id"], task.id);
    assert_eq!(object["status"], "cancelled");
    assert_eq!(object["cancelled_at"], task.result()["completed_at"]);
    assert_eq!(object["already_terminal"], false);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_finished_task_keeps_its_status() {
    let world = world();
    let task = world.submit(&["works"]);
    let before = world.result_of(&task);
    let ran = world.run(&["cancel", "last"]);
    ran.succeeds();
    assert_eq!(
        ran.stdout,
        format!("Task {} had already completed\n", task.id)
    );
    let object = world.json(&["cancel", "last"]);
    assert_eq!(object["already_terminal"], true);
    assert_eq!(object["status"], "completed");
    assert_eq!(task.result(), before);
    assert!(!task.path.join("cancel").exists(), "no marker for nothing");
    let quiet = world.run(&["cancel", "last", "-q"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (0, ""));
}

#[test]
fn with_no_wait_the_request_is_reported() {
    let world = world();
    // The task takes time to end: a command that waited would print how it ended.
    world.recipe(
        "stubborn",
        "#!/bin/sh\ntrap '' TERM\necho up\nwhile :; do sleep 0.05; done\n",
    );
    let task = world.submit(&["stubborn"]);
    world.wait_for_lines(&task.path.join("attempts/1/stdout.log"), 1);
    let ran = world.run(&["cancel", &task.id, "--no-wait", "--json"]);
    ran.succeeds();
    let object = ran.json();
    assert_eq!(object["cancel_requested"], true);
    assert_eq!(object["already_terminal"], false);
    assert_eq!(object["cancelled_at"], Value::Null);
    assert_eq!(object["status"], "running");
    assert!(task.path.join("cancel").exists());
    let again = world.run(&["cancel", &task.id, "--no-wait"]);
    again.succeeds();
    assert_eq!(
        again.stdout,
        format!("Cancellation of {} requested\n", task.id)
    );
    // A user may stop waiting; the cancellation goes on.
    let waiting = world.start(&["cancel", &task.id]);
    world.wait_until("it catches interrupts", || waiting.catches_interrupts());
    waiting.interrupt();
    waiting.end().ends_with(130);
}

#[test]
fn a_marker_created_by_hand_cancels_a_task() {
    let world = world();
    let task = world.submit(&["sleeps"]);
    world.wait_running(&task);
    std::fs::write(task.path.join("cancel"), "").unwrap();
    assert_eq!(world.result_of(&task)["status"], "cancelled");
}

#[test]
fn a_drop_that_is_not_admitted_cannot_be_cancelled() {
    let world = world();
    world.set("autostart", "false");
    world.drop_in("report.json", "{\"recipe\": \"works\"}");
    let ran = world.run(&["cancel", "report"]);
    ran.ends_with(1);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: report is a drop that no watcher has admitted yet\n\
         hint: remove incoming/report.json, or wait until it is admitted\n"
    );
    assert!(world.path("incoming/report.json").exists());
}
