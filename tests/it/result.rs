//! `result`: the output of a task, in every way in which a recipe can write it, and the exit code.

use serde_json::json;

use crate::support::{Task, World};

fn ended(world: &World, script: &str, arguments: &[&str]) -> Task {
    world.recipe("r", script);
    let mut all = vec!["r"];
    all.extend(arguments);
    let task = world.submit(&all);
    world.result_of(&task);
    task
}

#[test]
fn text_is_printed_as_text_and_json_as_json() {
    let world = World::new();
    for (script, stdout, output) in [
        ("echo two; echo lines", "two\nlines\n", json!("two\nlines")),
        (
            "echo '{\"b\": 1.50, \"a\": [2]}'",
            "{\"b\": 1.50, \"a\": [2]}\n",
            json!({"b": 1.5, "a": [2]}),
        ),
        ("echo 42", "42\n", json!(42)),
        // No output, and an explicit null.
        ("echo null", "", json!(null)),
        ("echo '\"quoted\"'", "quoted\n", json!("quoted")),
        ("echo '{} {}'", "{} {}\n", json!("{} {}")),
        ("printf ''", "", json!(null)),
    ] {
        let task = ended(&world, &format!("#!/bin/sh\n{script}\n"), &[]);
        let ran = world.run(&["result", &task.id]);
        ran.succeeds();
        assert_eq!(ran.stdout, stdout, "{script}");
        assert_eq!(ran.stderr, "");
        assert_eq!(task.result()["output"], output, "{script}");
    }
}

#[test]
fn json_is_the_result_file_with_the_promised_keys() {
    let world = World::new();
    let task = ended(&world, "#!/bin/sh\necho 1\n", &["--session-id", "s"]);
    let ran = world.run(&["result", "last", "--json"]);
    ran.succeeds();
    let object = ran.json();
    assert_eq!(object, task.result());
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    let promised = [
        "v",
        "task_id",
        "ok",
        "status",
        "recipe",
        "output",
        "error",
        "exit_code",
        "signal",
        "attempt",
        "started_at",
        "completed_at",
        "ended_in",
        "duration_seconds",
        "session_id",
        "metrics",
    ];
    assert_eq!(keys, promised);
    assert_eq!(object["session_id"], "s");
    assert_eq!(object["metrics"]["stdout_bytes"], 2);
}

#[test]
fn the_result_file_wins_over_stdout() {
    let world = World::new();
    let script =
        "#!/bin/sh\necho chatter\necho '[\"from the file\"]' > \"$AGENTSPOOL_RESULT_FILE\"\n";
    let task = ended(&world, script, &[]);
    assert_eq!(task.result()["output"], json!(["from the file"]));
    assert_eq!(world.run(&["logs", "last", "--stdout"]).stdout, "chatter\n");
}

#[test]
fn a_large_output_stays_a_file_and_is_copied_whole() {
    let world = World::new();
    // 3 MiB of lines that are all different, so that a missing or repeated piece is noticed.
    let count = 3 * 1024 * 1024 / 8;
    let lines = format!("seq -f %07.0f 1 {count}");
    let expected: String = (1..=count).map(|n| format!("{n:07}\n")).collect();
    for (script, file) in [
        (format!("#!/bin/sh\n{lines}\n"), "attempts/1/stdout.log"),
        (
            format!("#!/bin/sh\necho chatter\n{lines} > \"$AGENTSPOOL_RESULT_FILE\"\n"),
            "attempts/1/output",
        ),
    ] {
        let task = ended(&world, &script, &[]);
        let result = task.result();
        assert_eq!(result["output"], json!(null));
        let named = result["output_file"].as_str().unwrap();
        assert_eq!(named, file);
        assert!(task.path.join(named).exists());
        assert!(task.read("result.json").len() < 4096);
        let ran = world.run(&["result", &task.id]);
        ran.succeeds();
        assert!(ran.stdout == expected, "{} bytes", ran.stdout.len());
        assert_eq!(ran.stderr, "");
        let shown = world.json(&["status", &task.id]);
        assert_eq!(
            (&shown["result"], &shown["output_file"]),
            (&json!(null), &json!(named))
        );
    }
}

#[test]
fn a_large_output_of_a_second_attempt_has_only_that_attempt() {
    let world = World::new();
    // The first attempt writes and is lost with its runner; the second one writes other lines.
    let script = "#!/bin/sh\necho attempt $AGENTSPOOL_ATTEMPT\n\
                  [ $AGENTSPOOL_ATTEMPT = 1 ] && exec sleep 1000\nseq -f %07.0f 1 200000\n";
    world.recipe_folder("r", "on_lost = \"requeue\"", script);
    let task = world.submit(&["r"]);
    let log = task.path.join("attempts/1/stdout.log");
    world.wait_for_lines(&log, 1);
    let (runner, _) = world.processes_of(&task, 1);
    world.signal(runner, rustix::process::Signal::KILL);
    let result = world.result_of(&task);
    assert_eq!(
        (&result["status"], &result["attempt"]),
        (&json!("completed"), &json!(2))
    );
    assert_eq!(result["output_file"], "attempts/2/stdout.log");
    let ran = world.run(&["result", &task.id]);
    ran.succeeds();
    assert!(
        ran.stdout.starts_with("attempt 2\n0000001\n"),
        "{:.40}",
        ran.stdout
    );
    assert_eq!(ran.stdout.lines().count(), 200_001);
}

#[test]
fn an_unfinished_task_has_no_result_yet() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("r", "#!/bin/sh\n");
    let task = world.submit(&["r"]);
    let ran = world.run(&["result", "last"]);
    ran.ends_with(1);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        format!(
            "error: the task {0} is pending: there is no result yet\n\
             hint: wait for it with `agentspool wait {0}`\n",
            task.id
        )
    );
    assert_eq!(world.json(&["result", "last"])["code"], 1);
    world.drop_in("dropped.json", "{\"recipe\": \"r\"}");
    world.run(&["result", "dropped"]).ends_with(1);
    world.run(&["result", "nobody"]).ends_with(7);
}

#[test]
fn the_exit_code_shows_the_end_and_the_output_is_printed() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    ended(&world, "#!/bin/sh\necho partial\nexit 4\n", &[]);
    let failed = world.run(&["result", "last"]);
    failed.ends_with(3);
    assert_eq!(failed.stdout, "partial\n");
    assert_eq!(failed.stderr, "failed: the recipe exited with code 4\n");

    ended(&world, "#!/bin/sh\necho partial\nkill -SEGV $$\n", &[]);
    let by_signal = world.run(&["result", "last"]);
    by_signal.ends_with(3);
    assert_eq!(
        by_signal.stderr,
        "failed: the recipe was ended by signal 11\n"
    );
    assert_eq!(world.json(&["result", "last"])["error"]["kind"], "signal");

    ended(
        &world,
        "#!/bin/sh\necho partial\nexec sleep 1000\n",
        &["--timeout", "0.2"],
    );
    let timed_out = world.run(&["result", "last"]);
    timed_out.ends_with(5);
    assert_eq!(
        timed_out.stderr,
        "failed: stopped after its timeout of 200ms\n"
    );

    let cancelled = world.submit(&["r"]);
    world.run(&["cancel", &cancelled.id]).succeeds();
    let ran = world.run(&["result", "last"]);
    ran.ends_with(9);
    assert_eq!(ran.stderr, "cancelled\n");
    assert_eq!(world.json(&["result", "last"])["status"], "cancelled");
}

#[test]
fn a_recipe_that_needs_a_result_fails_without_one() {
    let world = World::new();
    for (name, script, completed) in [
        ("silent", "#!/bin/sh\nexit 0\n", false),
        ("printed", "#!/bin/sh\necho 1\n", false),
        (
            "empty",
            "#!/bin/sh\n: > \"$AGENTSPOOL_RESULT_FILE\"\n",
            false,
        ),
        (
            "null",
            "#!/bin/sh\necho null > \"$AGENTSPOOL_RESULT_FILE\"\n",
            true,
        ),
    ] {
        world.recipe_folder(name, "needs_result = true", script);
        world
            .run(&["submit", "--recipe", name, "--name", name])
            .succeeds();
        let ended = if completed { 0 } else { 3 };
        world.run(&["wait", name]).ends_with(ended);
        let result = world.run(&["result", name, "--json"]).stdout;
        let result: serde_json::Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["exit_code"], 0, "{result}");
        if !completed {
            assert_eq!(result["error"]["kind"], "exit");
            let message = result["error"]["message"].as_str().unwrap();
            assert!(message.contains("gave no result"), "{message}");
        }
    }
}
