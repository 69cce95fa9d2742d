//! The schemas in `spool/schema/` and the files that the program writes agree.
//!
//! A mixed load creates every kind of file, and each file is checked against its schema. The parser and the
//! request's schema get the same cases. Not the meaning of the files.

use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::{Task, World, names_in, read_json};

const SCHEMAS: [&str; 4] = ["request", "status", "result", "reason"];

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("spool")
        .join(path)
}

fn schema(name: &str) -> Value {
    read_json(&repository(&format!("schema/{name}.schema.json")))
}

fn validator(name: &str) -> Validator {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema(name))
        .unwrap()
}

#[track_caller]
fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|fault| format!("{}: {fault}", fault.instance_path))
        .collect();
    assert!(faults.is_empty(), "{what}: {faults:#?}\n{value:#}");
}

/// A spool in which one task at a time runs, so that later tasks stay pending.
fn world() -> World {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    world.recipe("works", "#!/bin/sh\necho '{\"a\": 1}'\n");
    world.recipe("fails", "#!/bin/sh\necho no >&2\nexit 3\n");
    world.recipe("crashes", "#!/bin/sh\nkill -SEGV $$\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    world.recipe(
        "large",
        "#!/bin/sh\nhead -c 1500000 /dev/zero | tr '\\0' x\n",
    );
    // No program can be started with such an argument.
    let unstartable = world.path("recipes/unstartable");
    std::fs::create_dir(&unstartable).unwrap();
    let manifest = "command = [\"true\", \"\\u0000\"]\n";
    std::fs::write(unstartable.join("recipe.toml"), manifest).unwrap();
    world.recipe_folder("gone", "", "#!/bin/sh\n");
    world.recipe_folder(
        "steps",
        "",
        "#!/bin/sh\necho '45 Reading' >> \"$AGENTSPOOL_PROGRESS_FILE\"\nexec sleep 1000\n",
    );
    world
}

fn each_status(world: &World) -> Vec<Task> {
    world
        .tasks()
        .into_iter()
        .filter(|task| task.path.join("status.json").exists())
        .collect()
}

/// Checks all files that exist now.
fn check_all(world: &World, seen: &mut Vec<String>) {
    let [request, status, result, reason] = SCHEMAS.map(validator);
    for task in each_status(world) {
        assert_valid(&request, &task.request(), &task.id);
        assert_valid(&status, &task.status(), &task.id);
        seen.push(task.status()["status"].as_str().unwrap().to_owned());
        if task.has_result() {
            let value = task.result();
            assert_valid(&result, &value, &task.id);
            let kind = value["error"]["kind"].as_str().unwrap_or("none");
            seen.push(format!("{} by {kind}", value["status"].as_str().unwrap()));
            if value["output_file"].is_string() {
                seen.push("output in a file".to_owned());
            }
        }
    }
    for name in names_in(&world.path("rejected")) {
        if name.ends_with(".reason.json") {
            assert_valid(
                &reason,
                &read_json(&world.path("rejected").join(&name)),
                &name,
            );
            seen.push("reason".to_owned());
        }
    }
}

#[test]
fn every_written_file_is_valid() {
    let world = world();
    world.set("autostart", "false");
    let mut seen = Vec::new();

    // No watcher runs yet.
    let doomed = world.submit(&["gone"]);
    let never = world.submit(&["works"]);
    world.run(&["cancel", &never.id]).succeeds();
    world.submit(&[
        "works",
        "--name",
        "full",
        "--metadata",
        r#"{"who": ["me"]}"#,
        "--config",
        r#"{"k": 1}"#,
        "--input",
        "null",
        "--session-id",
        "s",
        "--timeout",
        "0.5",
    ]);
    for recipe in ["fails", "crashes", "large", "unstartable"] {
        world.submit(&[recipe]);
    }
    world.submit(&["sleeps", "--timeout", "0.1"]);
    world.drop_in("dropped.json", "{\"recipe\": \"works\"}");
    world.drop_in("no name of a task.json", "{\"recipe\": \"works\"}");
    world.drop_in("bad.json", "{\"recipe\": \"works\", \"inptu\": 1}");
    world.drop_in("bad\u{7}\"\\.json", "[]");
    check_all(&world, &mut seen);

    std::fs::remove_dir_all(world.path("recipes/gone")).unwrap();
    let stopped = world.submit(&["steps"]);
    world.start_watcher();
    world.wait_until("progress is reported", || {
        stopped.status()["progress"] == 0.45
    });
    check_all(&world, &mut seen);
    world.run(&["cancel", &stopped.id]).succeeds();
    world.wait_until("the drops are decided on", || {
        names_in(&world.path("incoming"))
            .iter()
            .all(|name| !name.ends_with(".json"))
            && names_in(&world.path("rejected")).len() == 4
    });
    world.run(&["wait", "--all"]);
    world.wait_until("the last status is written", || {
        each_status(&world)
            .iter()
            .all(|task| !task.status()["completed_at"].is_null())
    });
    check_all(&world, &mut seen);

    assert_eq!(doomed.result()["error"]["kind"], "recipe");
    for kind in [
        "pending",
        "running",
        "completed",
        "failed",
        "cancelled",
        "reason",
        "completed by none",
        "cancelled by none",
        "failed by exit",
        "failed by signal",
        "failed by timeout",
        "failed by spawn",
        "failed by recipe",
        "output in a file",
    ] {
        assert!(
            seen.iter().any(|met| met == kind),
            "{kind} was not seen: {seen:?}"
        );
    }
    // A task that was lost with its runner.
    let lost = world.submit(&["sleeps"]);
    world.wait_running(&lost);
    let run = read_json(&lost.path.join("attempts/1/run.json"));
    let runner = run["runner"]["pid"].as_i64().unwrap() as i32;
    let runner = rustix::process::Pid::from_raw(runner).unwrap();
    rustix::process::kill_process(runner, rustix::process::Signal::KILL).unwrap();
    assert_eq!(world.result_of(&lost)["error"]["kind"], "lost");
    assert_valid(&validator("result"), &lost.result(), "lost");
}

#[test]
fn commands_print_valid_results() {
    let world = world();
    let ran = world.run(&["submit", "--recipe", "works", "--wait", "--json"]);
    assert_valid(&validator("result"), &ran.json(), "submit --wait --json");
    assert_valid(
        &validator("result"),
        &world.json(&["result", "last"]),
        "result --json",
    );
}

#[test]
fn the_schemas_are_draft_2020_12_and_describe_every_field() {
    for name in SCHEMAS {
        let schema = schema(name);
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{name}");
        for (field, described) in schema["properties"].as_object().unwrap() {
            let refers = described["$ref"].is_string() || described["anyOf"][0]["$ref"].is_string();
            assert!(
                described["description"].is_string() || refers,
                "{name}.{field} is not described"
            );
        }
        assert_eq!(
            schema.get("additionalProperties").is_some(),
            name == "request"
        );
    }
    let description = schema("request")["description"].to_string();
    for word in ["key", "retries", "priority", "after", "not_before"] {
        assert!(
            description.contains(word),
            "the reserved word {word} is not named"
        );
    }
}

#[test]
fn the_examples_are_valid() {
    let folder = repository("examples");
    let names = names_in(&folder);
    assert!(names.len() >= 2);
    for name in names {
        assert_valid(
            &validator("request"),
            &read_json(&folder.join(&name)),
            &name,
        );
    }
}

#[test]
fn a_wrong_file_is_not_valid() {
    let world = world();
    let task = world.submit(&["fails"]);
    world.result_of(&task);
    world.wait_until("its status is written", || {
        task.status()["status"] == "failed"
    });
    let changed = |value: Value, field: &str, to: Value| {
        let mut value = value;
        value[field] = to;
        value
    };
    let [_, status, result, _] = SCHEMAS.map(validator);
    for (field, to) in [
        ("ok", json!(true)),
        ("status", json!("running")),
        ("status", json!("completed")),
        ("error", json!(null)),
        ("error", json!({"kind": "bad luck", "message": ""})),
        ("completed_at", json!("2026-01-31 12:00")),
        ("task_id", json!("task_1")),
        ("v", json!(2)),
    ] {
        assert!(
            !result.is_valid(&changed(task.result(), field, to.clone())),
            "{field}: {to}"
        );
    }
    for (field, to) in [
        ("progress", json!(45)),
        ("status", json!("queued")),
        ("condition", json!("odd")),
        ("updated_at", json!(null)),
    ] {
        assert!(
            !status.is_valid(&changed(task.status(), field, to.clone())),
            "{field}: {to}"
        );
    }
    for (validator, value) in [(&status, task.status()), (&result, task.result())] {
        assert_valid(
            validator,
            &changed(value, "later", json!({})),
            "an unknown field is ignored",
        );
    }
}

#[test]
fn the_parser_and_the_schema_agree() {
    let world = world();
    world.set("autostart", "false");
    let request = validator("request");
    let long = "x".repeat(101);
    for (value, is_good) in [
        (json!({"recipe": "works"}), true),
        (
            json!({"v": 1, "recipe": "works", "input": null, "config": {}, "metadata": {}}),
            true,
        ),
        (
            json!({"recipe": "works", "config": null, "session_id": null, "timeout_sec": null}),
            true,
        ),
        (
            json!({"recipe": "works", "name": null, "label": null, "metadata": null}),
            true,
        ),
        (
            json!({"recipe": "works", "name": "n", "label": "l", "timeout_sec": 0.5}),
            true,
        ),
        (
            json!({"recipe": "works", "input": [1, {"deep": [null]}], "session_id": "s.1"}),
            true,
        ),
        (json!({"recipe": "works", "timeout_sec": 315_576_000}), true),
        (json!({}), false),
        (json!([]), false),
        (json!({"recipe": 1}), false),
        (json!({"recipe": null}), false),
        (json!({"recipe": "../works"}), false),
        (json!({"recipe": long}), false),
        (json!({"recipe": "works", "inptu": 1}), false),
        (json!({"recipe": "works", "retries": 1}), false),
        (json!({"recipe": "works", "command": ["rm"]}), false),
        (json!({"recipe": "works", "v": 2}), false),
        (json!({"recipe": "works", "v": "1"}), false),
        (json!({"recipe": "works", "v": null}), false),
        (json!({"recipe": "works", "config": []}), false),
        (json!({"recipe": "works", "metadata": "x"}), false),
        (json!({"recipe": "works", "timeout_sec": 0}), false),
        (json!({"recipe": "works", "timeout_sec": "5m"}), true),
        (json!({"recipe": "works", "timeout_sec": "1h 30m"}), true),
        (json!({"recipe": "works", "timeout_sec": "soon"}), false),
        (json!({"recipe": "works", "timeout_sec": 1e12}), false),
        (json!({"recipe": "works", "name": "last"}), false),
        (json!({"recipe": "works", "name": "task_1"}), false),
        (json!({"recipe": "works", "name": "a b"}), false),
        (json!({"recipe": "works", "session_id": ".x"}), false),
        (json!({"recipe": "works", "label": 1}), false),
    ] {
        let is_valid = request.is_valid(&value);
        let line = value.to_string();
        let ran = world.run_with_stdin(&["submit", "--batch", "-", "-q"], line.as_bytes());
        assert_eq!(
            (is_valid, ran.code == 0),
            (is_good, is_good),
            "{line}\n{}",
            ran.stderr
        );
    }
}
