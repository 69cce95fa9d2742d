//! `status`: the documented lines in their order, the promised keys, and all ways to name a task.

use serde_json::{Value, json};

use crate::support::World;

/// The keys that scripts rely on, in their order.
const KEYS: [&str; 21] = [
    "ok",
    "id",
    "task_id",
    "name",
    "recipe",
    "status",
    "progress",
    "message",
    "session_id",
    "result",
    "error",
    "created_at",
    "started_at",
    "completed_at",
    "duration",
    "duration_seconds",
    "attempt",
    "exit_code",
    "signal",
    "condition",
    "metadata",
];

fn world() -> World {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\necho '{\"answer\": 42}'\n");
    world.recipe("fails", "#!/bin/sh\nexit 3\n");
    world
}

fn world_without_watcher() -> World {
    let world = world();
    world.set("autostart", "false");
    world
}

#[test]
fn a_running_task_is_reported_as_documented() {
    let world = World::new();
    world.recipe(
        "my-recipe",
        "#!/bin/sh\necho '45 Reading pages' >> \"$AGENTSPOOL_PROGRESS_FILE\"\nexec sleep 1000\n",
    );
    let task = world.submit(&["my-recipe", "--session-id", "session_123"]);
    world.wait_until("the progress is seen", || {
        world.json(&["status", &task.id])["progress"] == 0.45
    });
    let ran = world.run(&["status", &task.id]);
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let duration = ran.stdout.lines().nth(3).unwrap();
    let seconds = duration.strip_prefix("Duration: ").unwrap();
    let number = seconds.strip_suffix('s').unwrap();
    assert!(number.parse::<f64>().is_ok() && number.split_once('.').unwrap().1.len() == 1);
    let expected = format!(
        "Task: {}\nStatus: running\nProgress: 45%\n{duration}\nRecipe: my-recipe\n\
         Session: session_123\nMessage: Reading pages\n",
        task.id
    );
    assert_eq!(ran.stdout, expected);
    let shown = world.json(&["status", &task.id]);
    assert_eq!(shown["message"], "Reading pages");
    assert_eq!(
        (&shown["result"], &shown["completed_at"]),
        (&json!(null), &json!(null))
    );
    assert!(shown["duration"].as_f64().unwrap() > 0.0);
}

#[test]
fn json_has_exactly_the_documented_keys() {
    let world = world();
    let good = world.submit(&["works"]);
    let bad = world.submit(&["fails", "--name", "oops"]);
    world.result_of(&good);
    world.result_of(&bad);
    for (id, result, error) in [
        (&good.id, json!({"answer": 42}), json!(null)),
        (
            &bad.id,
            json!(null),
            json!({"kind": "exit", "message": "the recipe exited with code 3"}),
        ),
    ] {
        let shown = world.json(&["status", id]);
        let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
        assert_eq!(keys, KEYS);
        assert_eq!(shown["ok"], true, "the question was answered");
        assert_eq!((&shown["id"], &shown["task_id"]), (&json!(id), &json!(id)));
        assert_eq!(shown["result"], result);
        assert_eq!(shown["error"], error);
        assert_eq!(shown["duration"], shown["duration_seconds"]);
        for key in ["created_at", "started_at", "completed_at"] {
            let moment = shown[key].as_str().unwrap();
            assert!(moment.len() == 24 && moment.ends_with('Z'), "{moment}");
        }
        let row = &world.json(&["list"])["tasks"];
        let row = row
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["id"] == **id)
            .unwrap();
        let mut without_ok = shown.clone();
        without_ok.as_object_mut().unwrap().remove("ok");
        assert_eq!(*row, without_ok, "a row of list is the same object");
    }
}

#[test]
fn a_failed_task_has_a_reason() {
    let world = world();
    let task = world.submit(&["fails", "--name", "oops"]);
    world.result_of(&task);
    let ran = world.run(&["status", "oops", "--absolute"]);
    ran.succeeds();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let starts = [
        "Task: task_",
        "Status: failed",
        "Progress: 0%",
        "Duration: 0.",
        "Recipe: fails",
        "Session: session_",
        "Name: oops",
        "Error: the recipe exited with code 3",
        "Created: 2",
        "Started: 2",
        "Ended: 2",
    ];
    assert_eq!(lines.len(), starts.len(), "{}", ran.stdout);
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line:?} is not {start:?}");
    }
}

#[test]
fn a_task_is_found_by_its_name_and_parts_of_its_id() {
    let world = world_without_watcher();
    let first = world.submit(&["works", "--name", "report"]);
    let second = world.submit(&["works"]);
    let digits = first.id.strip_prefix("task_").unwrap();
    let asked = |text: &str| {
        let ran = world.run(&["status", text, "--json"]);
        ran.succeeds();
        ran.json()["task_id"].clone()
    };
    assert_eq!(asked("last"), second.id);
    assert_eq!(asked("report"), first.id);
    assert_eq!(asked(&first.id), first.id);
    assert_eq!(
        asked(&digits[18..]),
        first.id,
        "the eight characters of lists"
    );
    assert_eq!(asked(&digits[20..]), first.id, "a suffix");
    assert_eq!(asked(&digits[..25]), first.id, "a prefix");
    assert_eq!(asked(&format!("task_{}", &digits[..25])), first.id);
}

#[test]
fn an_ambiguous_part_lists_the_candidates() {
    let world = world_without_watcher();
    let first = world.submit(&["works"]);
    let second = world.submit(&["works"]);
    // Ids start with the time: two ids of the same minute share eight or more characters.
    let common = &first.id[5..10];
    let ran = world.run(&["status", common]);
    ran.ends_with(2);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        format!(
            "error: {common:?} matches several tasks: {}, {}\nhint: give more characters of the id\n",
            second.id, first.id
        )
    );
}

/// At most ten candidates are listed.
#[test]
fn an_ambiguous_part_counts_the_candidates_that_are_not_listed() {
    let world = world_without_watcher();
    let lines = "{\"recipe\": \"works\"}\n".repeat(13);
    world
        .run_with_stdin(&["submit", "--batch", "-"], lines.as_bytes())
        .succeeds();
    let common = world.tasks()[0].id[5..9].to_owned();
    let ran = world.run(&["status", &common]);
    ran.ends_with(2);
    let first = ran.stderr.lines().next().unwrap();
    assert_eq!(first.matches("task_").count(), 10, "{first}");
    assert!(first.ends_with(" and 3 more"), "{first}");
}

#[test]
fn an_unknown_name_is_code_7() {
    let world = world_without_watcher();
    let empty = world.run(&["status", "last"]);
    empty.ends_with(7);
    let task = world.submit(&["works"]);
    let digits = task.id.strip_prefix("task_").unwrap();
    // Three characters are too few. The second case is a task of another spool.
    for text in [
        &digits[23..],
        "task_00000000000000000000000000",
        "nobody",
        "",
        "../tasks",
        "task_",
    ] {
        let ran = world.run(&["status", text]);
        ran.ends_with(7);
        assert_eq!(ran.stdout, "");
        assert!(
            ran.stderr.starts_with("error: no task is called "),
            "{}",
            ran.stderr
        );
        // The task may have existed and been removed.
        let kept = "may have been removed: completed and cancelled tasks are kept for 1h (`cleanup_delay_sec`), failed ones for 7 days (`failed_cleanup_delay_sec`)";
        assert!(ran.stderr.contains(kept), "{}", ran.stderr);
        let object = world.json(&["status", text]);
        assert_eq!((&object["ok"], &object["code"]), (&json!(false), &json!(7)));
    }
}

#[test]
fn a_drop_is_pending_before_it_is_admitted() {
    let world = world_without_watcher();
    world.drop_in("report.json", "{\"recipe\": \"works\"}");
    let shown = world.json(&["status", "report"]);
    assert_eq!(shown["status"], "pending");
    assert_eq!(shown["task_id"], Value::Null);
    assert_eq!(shown["name"], "report");
    let ran = world.run(&["status", "report"]);
    ran.succeeds();
    assert!(
        ran.stdout
            .starts_with("Task: report (a drop, not admitted yet)\nStatus: pending\n")
    );
    assert!(
        ran.stderr.contains("no watcher is running"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_refused_drop_is_code_7_with_the_reason() {
    let world = world();
    world.drop_in("report.json", "{\"recipe\": \"works\", \"inptu\": 1}");
    world.start_watcher();
    world.wait_until("the drop and its reason are in rejected/", || {
        let there = crate::support::names_in(&world.path("rejected"));
        there.iter().filter(|name| !name.starts_with('.')).count() == 2
    });
    let ran = world.run(&["status", "report"]);
    ran.ends_with(7);
    assert_eq!(ran.stdout, "");
    let report = "error: the drop report.json was refused: not a request: unknown field `inptu`";
    assert!(ran.stderr.starts_with(report), "{}", ran.stderr);
}

#[test]
fn a_pending_task_without_a_watcher_has_a_note() {
    let world = world_without_watcher();
    let task = world.submit(&["works"]);
    let ran = world.run(&["status", "last"]);
    ran.succeeds();
    let expected = format!(
        "Task: {}\nStatus: pending\nProgress: 0%\nRecipe: works\nSession: {}\n",
        task.id,
        task.request()["session_id"].as_str().unwrap()
    );
    assert_eq!(ran.stdout, expected);
    assert!(ran.stderr.starts_with("note: no watcher is running on "));
}
