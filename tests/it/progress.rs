//! `progress` and the progress file: how a recipe reports its progress, and how it is shown.

use serde_json::json;

use crate::support::{PROGRAM, Ran, World};

#[test]
fn a_recipe_reports_by_the_command_or_by_lines() {
    let world = World::new();
    let go = world.root().join("go");
    // The program is found by its name: its folder is on the PATH of every task.
    let gate = format!("until [ -e '{0}'$1 ]; do sleep 0.02; done", go.display());
    let script = format!(
        "#!/bin/sh\nreached() {{\n{gate}\n}}\n\
         agentspool progress 45 -m 'Reading pages' || exit 1\nreached 1\n\
         echo '60 Writing' >> \"$AGENTSPOOL_PROGRESS_FILE\"\nreached 2\n\
         echo '{{\"progress\": 0.75, \"message\": \"Almost\"}}' >> \"$AGENTSPOOL_PROGRESS_FILE\"\nreached 3\n\
         echo nonsense >> \"$AGENTSPOOL_PROGRESS_FILE\"\necho '80' >> \"$AGENTSPOOL_PROGRESS_FILE\"\nreached 4\n"
    );
    world.recipe("steps", &script);
    let task = world.submit(&["steps"]);
    for (step, progress, message) in [
        (1, 0.45, "Reading pages"),
        (2, 0.6, "Writing"),
        (3, 0.75, "Almost"),
        (4, 0.8, ""),
    ] {
        world.wait_until(&format!("step {step} is seen"), || {
            let shown = world.json(&["status", &task.id]);
            shown["progress"] == progress && (message.is_empty() || shown["message"] == message)
        });
        // A program that reads the file sees the same.
        assert_eq!(task.status()["progress"], progress);
        std::fs::write(format!("{}{step}", go.display()), "").unwrap();
    }
    let result = world.result_of(&task);
    assert_eq!(result["status"], "completed");
    assert_eq!(world.json(&["status", &task.id])["progress"], 1.0);
}

#[test]
fn the_result_has_the_metrics_of_the_recipe_and_of_the_runner() {
    let world = World::new();
    // The second report changes one key. The third is too large. A name of ours is not accepted. The last
    // report comes after far more lines than are read at once.
    world.recipe(
        "counts",
        "#!/bin/sh\nexec >> \"$AGENTSPOOL_PROGRESS_FILE\"\n\
         echo '{\"metrics\": {\"usage\": {\"tokens\": 3}, \"model\": \"small\", \"stdout_bytes\": 77}}'\n\
         yes '{\"message\": \"a long way\"}' | head -n 20000\n\
         printf '{\"metrics\": {\"large\": \"%3000s\"}}\\n' x\n\
         echo '{\"progress\": 0.5, \"metrics\": {\"usage\": {\"tokens\": 12}}}'\nexit 3\n",
    );
    let task = world.submit(&["counts"]);
    let result = world.result_of(&task);
    let metrics = &result["metrics"];
    assert_eq!(result["status"], "failed");
    assert_eq!(metrics["usage"], json!({"tokens": 12}));
    assert_eq!(metrics["model"], "small");
    assert_eq!(metrics["large"], serde_json::Value::Null);
    assert_eq!(metrics["stdout_bytes"], 0);
    assert!(metrics["queued_seconds"].is_number());
}

#[test]
fn the_command_writes_one_line_and_prints_nothing() {
    let world = World::new();
    let file = world.root().join("progress");
    for (percent, message) in [("0", None), ("45", Some("two\nlines")), ("99.5", None)] {
        let mut command = world.command(&["progress", percent]);
        command.env("AGENTSPOOL_PROGRESS_FILE", &file);
        if let Some(message) = message {
            command.args(["-m", message]);
        }
        let ran = Ran::of(&mut command);
        ran.succeeds();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            json!({"progress": 0.0}),
            json!({"progress": 0.45, "message": "two\nlines"}),
            json!({"progress": 0.995})
        ]
    );
    let mut command = world.command(&["progress", "50", "--json"]);
    let ran = Ran::of(command.env("AGENTSPOOL_PROGRESS_FILE", &file));
    assert_eq!(ran.json(), json!({"ok": true}));
}

#[test]
fn a_call_outside_a_task_or_a_wrong_percentage_is_an_error() {
    let world = World::new();
    let ran = world.run(&["progress", "50"]);
    ran.ends_with(2);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: this process is not in a task: AGENTSPOOL_PROGRESS_FILE is not set\n\
         hint: use `agentspool progress` only inside a recipe\n"
    );
    for percent in ["101", "-1", "nan", "half"] {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["progress", "--json", "--", percent]);
        let ran = Ran::of(command.env("AGENTSPOOL_PROGRESS_FILE", world.root().join("p")));
        ran.ends_with(2);
        assert_eq!(ran.json()["code"], 2, "{percent}");
    }
    assert!(!world.root().join("p").exists());
}

/// A recipe reports as fast as it can write; the watcher's log must not grow with the reports.
#[test]
fn metrics_that_are_left_out_are_reported_once() {
    let world = World::new();
    world.recipe(
        "floods",
        "#!/bin/sh\nexec >> \"$AGENTSPOOL_PROGRESS_FILE\"\n\
         printf '{\"metrics\": {\"a\": \"%990s\"}}\\n' x\n\
         yes '{\"metrics\": {\"another\": \"value that is as long as this\"}}' | head -n 3000\n",
    );
    let task = world.submit(&["floods"]);
    world.result_of(&task);
    let log = || std::fs::read_to_string(world.path("watchers/log")).unwrap();
    world.wait_until("the end is logged", || log().contains("completed"));
    let log = log();
    assert_eq!(
        log.matches("were ignored: a task keeps at most").count(),
        1,
        "{log}"
    );
    assert!(log.contains("the metrics of 3000 reports"), "{log}");
}
