//! `submit`: what is accepted, what is printed, what is stored, and how `--wait` ends.
//!
//! Not requests with a wrong form (`bad_input.rs`).

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use crate::support::terminal::On;
use crate::support::{Ran, World, names_in};

/// A recipe that prints what it read.
const ECHO: &str = "#!/bin/sh\ncat\n";

fn world() -> World {
    let world = World::new();
    world.recipe("echo", ECHO);
    world
}

/// A world without a watcher: submitted tasks stay pending.
fn world_without_watcher() -> World {
    let world = world();
    world.set("autostart", "false");
    world
}

fn keys(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap();
    object.keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_promised_keys_in_the_promised_order() {
    let world = world_without_watcher();
    let ran = world.run(&["submit", "--recipe", "echo", "--json"]);
    ran.succeeds();
    let object = ran.json();
    let promised = ["ok", "task_id", "recipe", "session_id"];
    let ours = ["id", "status", "created_at", "dir", "duplicate"];
    assert_eq!(keys(&object), [&promised[..], &ours[..]].concat());
    let task = world.only_task();
    assert_eq!(object["ok"], true);
    assert_eq!(object["task_id"], task.id);
    assert_eq!(object["id"], task.id);
    assert_eq!(object["recipe"], "echo");
    assert_eq!(object["status"], "pending");
    assert_eq!(object["duplicate"], false);
    assert_eq!(object["dir"], task.path.to_str().unwrap());
    assert!(
        object["session_id"]
            .as_str()
            .unwrap()
            .starts_with("session_")
    );
    assert_eq!(object["session_id"], task.request()["session_id"]);
    let created = object["created_at"].as_str().unwrap();
    assert_eq!((created.len(), created.ends_with('Z')), (24, true));
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn the_output_shows_the_next_commands() {
    let world = world_without_watcher();
    let ran = world.run(&["submit", "--recipe", "echo", "--session-id", "s1"]);
    ran.succeeds();
    let id = world.only_task().id;
    let expected = format!("Task: {id}\nStatus: pending\nRecipe: echo\nSession: s1\n");
    assert_eq!(ran.stdout, expected);
    assert!(
        ran.stderr.starts_with("note: no watcher is running on "),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn quiet_prints_only_the_id() {
    let world = world_without_watcher();
    let ran = world.run(&["submit", "--recipe", "echo", "-q"]);
    ran.succeeds();
    assert_eq!(ran.stdout, format!("{}\n", world.only_task().id));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_name_leads_to_the_newest_unfinished_task() {
    let world = world_without_watcher();
    let first = world.submit(&["echo", "--name", "report"]);
    let link = world.path("names/report");
    assert!(
        std::fs::read_link(&link)
            .unwrap()
            .ends_with(format!("tasks/{}", first.id))
    );
    let second = world.submit(&["echo", "--name", "report"]);
    assert!(std::fs::read_link(&link).unwrap().ends_with(&second.id));
    let text = std::fs::read_to_string(link.join("request.json")).unwrap();
    let request: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(request["name"], "report");

    // Two of the tasks are unfinished, so the name is ambiguous.
    let both = world.run(&["cancel", "report"]);
    both.ends_with(2);
    let listed = format!("{}, {}", second.id, first.id);
    assert!(both.stderr.contains(&listed), "{}", both.stderr);
    // An unfinished task wins over a newer finished one.
    world.run(&["cancel", &second.id]).succeeds();
    assert_eq!(world.json(&["status", "report"])["task_id"], first.id);
    assert_eq!(world.json(&["cancel", "report"])["task_id"], first.id);
    assert_eq!(first.result()["status"], "cancelled");
    // Among finished tasks the newest one wins.
    assert_eq!(world.json(&["cancel", "report"])["task_id"], second.id);
    // When the newest task is removed, the name leads to an older one.
    let third = world.submit(&["echo", "--name", "report"]);
    let fourth = world.submit(&["echo", "--name", "report"]);
    world.run(&["cancel", &fourth.id]).succeeds();
    world.run(&["clear"]).succeeds();
    assert_eq!(world.json(&["status", "report"])["task_id"], third.id);
    let listed = world.json(&["list", "--name", "report"]);
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(listed["tasks"][0]["task_id"], third.id);
}

#[test]
fn a_label_is_any_text_and_finds_the_task_if_it_is_unique() {
    let world = world_without_watcher();
    let text = "nightly build: \"all\"";
    let refused = world.run(&["submit", "--recipe", "echo", "--name", text]);
    refused.ends_with(2);
    assert!(refused.stderr.contains("--label"), "{}", refused.stderr);
    let first = world.submit(&["echo", "--label", text]);
    let other = world.submit(&["echo", "--name", "other"]);
    assert_eq!(first.request()["label"], text);
    assert_eq!(world.json(&["status", text])["task_id"], first.id);
    let listed = world.json(&["list", "--label", text, "--status", "pending"]);
    assert_eq!(listed["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(listed["tasks"][0]["task_id"], first.id);
    let shown = world.run(&["status", text]).stdout;
    assert!(shown.contains(&format!("\nLabel: {text}\n")), "{shown}");

    let second = world.submit(&["echo", "--label", text]);
    let both = world.run(&["cancel", text]);
    both.ends_with(2);
    let listed = format!("{}, {}", second.id, first.id);
    assert!(both.stderr.contains(&listed), "{}", both.stderr);
    world.run(&["cancel", &second.id]).succeeds();
    assert_eq!(world.json(&["cancel", text])["task_id"], first.id);
    // Both tasks are finished; the label stays ambiguous.
    world.run(&["result", text]).ends_with(2);
    // A name wins over a label.
    world.submit(&["echo", "--label", "other"]);
    assert_eq!(world.json(&["status", "other"])["task_id"], other.id);
}

#[test]
fn a_terminal_shows_the_timeout_and_the_retention() {
    let world = world();
    world.set("cleanup_delay_sec", "7200");
    world.set("timeout_sec", "42");
    world.recipe_folder("patient", "timeout = \"3m\"", "#!/bin/sh\n");
    for (arguments, limit) in [
        (
            &["echo"][..],
            Some("stopped after 42s (change this with --timeout"),
        ),
        (
            &["patient"],
            Some("stopped after 3m (change this with --timeout"),
        ),
        (&["echo", "--timeout", "9"], None),
    ] {
        let submit = [&["submit", "--recipe"], arguments].concat();
        let ran = world.run_on_terminal(On::Stderr, 80, &submit);
        ran.succeeds();
        assert_eq!(ran.stdout.lines().count(), 4, "{}", ran.stdout);
        let kept = "kept for 2h (`cleanup_delay_sec`), failed ones for 7 days (`failed_cleanup_delay_sec`)";
        assert!(ran.stderr.contains(kept), "{}", ran.stderr);
        match limit {
            Some(limit) => assert!(ran.stderr.contains(limit), "{}", ran.stderr),
            None => assert!(!ran.stderr.contains("stopped after"), "{}", ran.stderr),
        }
        let quiet = world.run_on_terminal(On::Stderr, 80, &[&submit[..], &["-q"]].concat());
        assert_eq!(quiet.stderr, "");
        // A script gets no such lines, because its stderr is often kept.
        assert_eq!(world.run(&submit).stderr, "");
    }
}

#[test]
fn a_timeout_names_its_source() {
    let world = world();
    world.set("timeout_sec", "0.1");
    world.recipe("slow", "#!/bin/sh\nexec sleep 1000\n");
    world.recipe_folder("slow2", "timeout = 0.2", "#!/bin/sh\nexec sleep 1000\n");
    for (recipe, time, setting) in [
        ("slow", "100ms", "`timeout_sec`"),
        ("slow2", "200ms", "recipe.toml"),
    ] {
        let task = world.submit(&[recipe]);
        let message = world.result_of(&task)["error"]["message"].to_string();
        let begins = format!("stopped after its timeout of {time}");
        assert!(message.contains(&begins), "{message}");
        assert!(message.contains(setting), "{message}");
        assert!(message.contains("`--timeout`"), "{message}");
    }
}

#[test]
fn all_options_are_stored_and_metadata_is_shown() {
    let world = world_without_watcher();
    let task = world.submit(&[
        "echo",
        "-i",
        "[1, 2.50, 12345678901234567890123]",
        "-c",
        r#"{"max_tokens": 1000}"#,
        "-s",
        "session_123",
        "--timeout",
        "600",
        "--name",
        "n1",
        "--metadata",
        r#"{"who": "me"}"#,
    ]);
    let stored = task.read("request.json");
    assert!(
        stored.contains("[1, 2.50, 12345678901234567890123]"),
        "{stored}"
    );
    let request = task.request();
    assert_eq!(request["v"], 1);
    assert_eq!(request["config"], json!({"max_tokens": 1000}));
    assert_eq!(request["session_id"], "session_123");
    assert_eq!(request["timeout_sec"], 600.0);
    assert_eq!(request["name"], "n1");
    let shown = world.json(&["status", "n1"]);
    assert_eq!(shown["metadata"], json!({"who": "me"}));
    assert_eq!(shown["session_id"], "session_123");
}

#[test]
fn input_comes_as_json_as_a_file_from_stdin_or_as_text() {
    let world = world_without_watcher();
    std::fs::write(world.root().join("in.json"), "{\"from\": \"file\"}\n").unwrap();
    std::fs::write(world.root().join("in.txt"), "two\nlines\n").unwrap();
    for (argument, stdin, stored) in [
        (r#"{"query": "test"}"#, "", json!({"query": "test"})),
        ("  [1]", "", json!([1])),
        ("\"text\"", "", json!("text")),
        ("42", "", json!(42)),
        ("null", "", json!(null)),
        ("@in.json", "", json!({"from": "file"})),
        ("-", "{\"from\": \"stdin\"}", json!({"from": "stdin"})),
        ("What is AI?", "", json!({"input": "What is AI?"})),
        ("@in.txt", "", json!({"input": "two\nlines"})),
        ("-", "plain\n", json!({"input": "plain"})),
        ("", "", json!({"input": ""})),
    ] {
        let ran = world.run_with_stdin(
            &["submit", "--recipe", "echo", "-q", "--input", argument],
            stdin.as_bytes(),
        );
        ran.succeeds();
        let request = world.task(ran.stdout.trim()).request();
        assert_eq!(request.get("input"), Some(&stored), "--input {argument:?}");
    }
}

#[test]
fn config_is_an_object_and_may_come_from_a_file() {
    let world = world_without_watcher();
    std::fs::write(world.root().join("c.json"), "{\"k\": [1]}").unwrap();
    let task = world.submit(&["echo", "--config", "@c.json"]);
    assert_eq!(task.request()["config"], json!({"k": [1]}));
    for bad in ["[1]", "text", "{\"k\":", "7"] {
        let ran = world.run(&["submit", "--recipe", "echo", "--config", bad]);
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("--config"), "{}", ran.stderr);
    }
    assert_eq!(world.tasks().len(), 1);
}

#[test]
fn a_timeout_is_seconds_or_words() {
    let world = world_without_watcher();
    for (text, seconds) in [
        ("600", 600.0),
        ("0.5", 0.5),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
    ] {
        let task = world.submit(&["echo", "--timeout", text]);
        assert_eq!(task.request()["timeout_sec"], seconds, "{text}");
    }
    let silent = world.submit(&["echo"]);
    assert_eq!(silent.request().get("timeout_sec"), None);
    for bad in ["0", "-1", "soon", "nan"] {
        let ran = world.run(&["submit", "--recipe", "echo", &format!("--timeout={bad}")]);
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn the_recipe_reads_its_input_and_its_config() {
    let world = World::new();
    world.recipe_folder(
        "both",
        "[config]\nlow = 1\nhigh = 1",
        "#!/bin/sh\ncat\nprintf ' %s' \"$AGENTSPOOL_CONFIG\"\n",
    );
    let ran = world.run(&[
        "submit",
        "--recipe",
        "both",
        "--input",
        "[ 7 ]",
        "--config",
        r#"{"high": 2}"#,
        "--wait",
    ]);
    ran.succeeds();
    let (input, config) = ran.stdout.trim_end().split_once(" {").unwrap();
    assert_eq!(input, "[ 7 ]");
    let config: Value = serde_json::from_str(&format!("{{{config}")).unwrap();
    assert_eq!(config, json!({"low": 1, "high": 2}));
}

#[test]
fn an_accepted_variable_is_passed_and_removed_after_the_end() {
    let world = World::new();
    let go = world.root().join("go");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.02; done\necho \"$KEY and $FROM_SHELL\"\n",
        go.display()
    );
    world.recipe_folder("secret", "env_accept = [\"KEY\", \"FROM_SHELL\"]", &script);
    let mut command = world.command(&["submit", "--recipe", "secret", "-q"]);
    command.args(["--env", "KEY=hunter2=x", "--env", "FROM_SHELL"]);
    let ran = Ran::of(command.env("FROM_SHELL", "shell"));
    ran.succeeds();
    let task = world.only_task();
    world.wait_running(&task);
    let file = task.path.join("env.json");
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.uid(), rustix::process::getuid().as_raw());
    for report in ["request.json", "status.json", "attempts/1/run.json"] {
        assert!(!task.read(report).contains("hunter2"), "{report}");
    }
    std::fs::write(go, "").unwrap();
    let result = world.result_of(&task);
    assert_eq!(result["output"], "hunter2=x and shell");
    world.wait_until("the values are removed", || !file.exists());
}

#[test]
fn an_attachment_is_copied_and_removed_after_the_end() {
    let world = World::new();
    let go = world.root().join("go");
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nwc -c < \"$AGENTSPOOL_TASK_DIR/attachment\"\n",
        go.display()
    );
    world.recipe_folder("count", "", &script);
    let sent = world.root().join("sent");
    std::fs::write(&sent, vec![b'x'; 3_000_000]).unwrap();
    let sent = sent.to_str().unwrap();
    world
        .run(&["submit", "--recipe", "count", "--attach", sent])
        .succeeds();
    // The sent file may be removed at once: the task has a copy.
    std::fs::remove_file(sent).unwrap();
    let task = world.only_task();
    let file = task.path.join("attachment");
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    std::fs::write(go, "").unwrap();
    assert_eq!(world.result_of(&task)["output"], 3_000_000);
    world.wait_until("the attachment is removed", || !file.exists());
    let ran = world.run(&["submit", "--recipe", "count", "--attach", sent]);
    ran.ends_with(2);
    assert!(
        ran.stderr.contains("failed to read --attach"),
        "{}",
        ran.stderr
    );
    let ran = world.run(&["submit", "--recipe", "count", "--attach", "/"]);
    ran.ends_with(2);
    assert!(ran.stderr.contains("it is a folder"), "{}", ran.stderr);
    assert_eq!(world.tasks().len(), 1);
}

#[test]
fn a_variable_that_the_recipe_does_not_accept_is_refused() {
    let world = world_without_watcher();
    world.recipe_folder("secret", "env_accept = [\"KEY\"]", ECHO);
    for (recipe, variable, code) in [
        ("echo", "KEY=1", 4),
        ("secret", "PATH=/tmp", 4),
        ("secret", "LD_PRELOAD=x", 4),
        ("secret", "KEY", 2),
        ("secret", "A B=1", 2),
    ] {
        let ran = world.run(&["submit", "--recipe", recipe, "--env", variable]);
        ran.ends_with(code);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
    assert!(world.tasks().is_empty());
}

#[test]
fn a_batch_prints_one_id_a_line_in_order() {
    let world = world_without_watcher();
    let lines = "{\"recipe\": \"echo\", \"input\": 1, \"name\": \"one\"}\n\n\
                 {\"recipe\": \"echo\", \"input\": 2}\n{\"recipe\": \"echo\", \"input\": 3}";
    std::fs::write(world.root().join("batch.jsonl"), lines).unwrap();
    let from_file = world.run(&["submit", "--batch", "batch.jsonl", "-q"]);
    from_file.succeeds();
    assert_eq!(from_file.stderr, "");
    let from_stdin = world.run_with_stdin(&["submit", "--batch", "-", "-q"], lines.as_bytes());
    from_stdin.succeeds();
    let both = from_file.stdout + &from_stdin.stdout;
    let ids: Vec<&str> = both.lines().collect();
    let stored: Vec<String> = world.tasks().into_iter().map(|task| task.id).collect();
    assert_eq!(ids, stored, "printed in the order of submission");
    for (index, id) in ids.iter().enumerate() {
        assert_eq!(world.task(id).request()["input"], index % 3 + 1);
    }
    let named = world.path("names/one");
    assert!(std::fs::read_link(named).unwrap().ends_with(ids[3]));
    let object = world
        .run_with_stdin(&["submit", "--batch", "-", "--json"], lines.as_bytes())
        .json();
    assert_eq!(keys(&object), ["ok", "submitted", "task_ids"]);
    assert_eq!(object["submitted"], 3);
}

#[test]
fn an_empty_batch_is_not_an_error() {
    let world = world_without_watcher();
    let ran = world.run_with_stdin(&["submit", "--batch", "-", "-q"], b"\n\n");
    ran.succeeds();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn a_bad_line_ends_a_batch_and_the_error_shows_what_was_accepted() {
    let world = world_without_watcher();
    let good = "{\"recipe\": \"echo\"}\n";
    // More good lines before the bad one than are accepted together.
    let lines = good.repeat(250) + "{\"recipe\": \"echo\", \"inptu\": 1}\n" + &good.repeat(5);
    let ran = world.run_with_stdin(&["submit", "--batch", "-"], lines.as_bytes());
    ran.ends_with(2);
    let report = "error: line 251: not a request: unknown field `inptu`";
    assert!(ran.stderr.contains(report), "{}", ran.stderr);
    // Every printed id is a task, and every task was printed.
    let printed: Vec<&str> = ran.stdout.lines().collect();
    let stored: Vec<String> = world.tasks().into_iter().map(|task| task.id).collect();
    assert_eq!(printed, stored);
    assert_eq!(stored.len(), 250, "all lines before the bad one");
    let report = "hint: 250 earlier lines were accepted: ";
    assert!(ran.stderr.contains(report), "{}", ran.stderr);
    let near = world.run_with_stdin(
        &["submit", "--batch", "-"],
        b"{\"recipe\": \"echo\", \"timeout\": 5}\n",
    );
    let report = "unknown field `timeout` (did you mean `timeout_sec`?)";
    assert!(near.stderr.contains(report), "{}", near.stderr);
    // A request is one line, so only its column says something.
    let broken = world.run_with_stdin(&["submit", "--batch", "-"], b"{\"recipe\": }\n");
    assert!(broken.stderr.contains(" at column 12"), "{}", broken.stderr);
    assert!(!broken.stderr.contains("at line 1"), "{}", broken.stderr);
    assert_eq!(names_in(&world.path("staging")).len(), 0);
}

/// Also if the error is found only after the tasks before it are built.
#[test]
fn tasks_that_are_accepted_together_are_all_refused_if_one_is() {
    let world = world_without_watcher();
    // Small enough as a request, but not together with the fields that are stored with it.
    let most = "x".repeat((1 << 20) - 40);
    let lines = "{\"recipe\": \"echo\", \"session_id\": \"chat\"}\n".repeat(20)
        + &format!("{{\"recipe\": \"echo\", \"input\": \"{most}\"}}\n");
    let ran = world.run_with_stdin(&["submit", "--batch", "-"], lines.as_bytes());
    ran.ends_with(2);
    assert_eq!(ran.stdout, "");
    for folder in ["tasks", "staging"] {
        assert_eq!(names_in(&world.path(folder)), Vec::<String>::new());
    }
    let entries: Vec<_> = names_in(&world.path("open"));
    assert!(
        entries.iter().all(|name| name.starts_with('.')),
        "{entries:?}"
    );
}

#[test]
fn a_bad_line_with_json_is_one_object_with_the_accepted_tasks() {
    let world = world_without_watcher();
    let lines = "{\"recipe\": \"echo\"}\nnonsense\n";
    let ran = world.run_with_stdin(&["submit", "--batch", "-", "--json"], lines.as_bytes());
    ran.ends_with(2);
    let object = ran.json();
    assert_eq!((&object["ok"], &object["code"]), (&json!(false), &json!(2)));
    assert!(object["error"].as_str().unwrap().starts_with("line 2: "));
    let stored: Vec<Value> = world.tasks().into_iter().map(|t| t.id.into()).collect();
    assert_eq!(object["task_ids"], json!(stored), "the ids are not lost");
}

#[test]
fn waiting_ends_as_the_task_did() {
    let world = world();
    world.recipe("fails", "#!/bin/sh\necho out\necho why >&2\nexit 7\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    let echo = world.run(&["submit", "--recipe", "echo", "--input", "1", "--wait"]);
    echo.succeeds();
    assert_eq!((echo.stdout.as_str(), echo.stderr.as_str()), ("1\n", ""));

    let fails = world.run(&["submit", "--recipe", "fails", "--wait"]);
    fails.ends_with(3);
    assert_eq!(fails.stdout, "out\n");
    assert_eq!(fails.stderr, "why\nfailed: the recipe exited with code 7\n");

    world.set("cancel_grace_sec", "0");
    let slow = world.run(&["submit", "--recipe", "sleeps", "--timeout", "0.1", "--wait"]);
    slow.ends_with(5);
    assert_eq!(slow.stdout, "");
    assert_eq!(slow.stderr, "failed: stopped after its timeout of 100ms\n");

    let waiting = world.start(&["submit", "--recipe", "sleeps", "--name", "victim", "--wait"]);
    world.wait_until("victim runs", || {
        world.json(&["status", "victim"])["status"] == "running"
    });
    world.run(&["cancel", "victim"]).succeeds();
    let cancelled = waiting.end();
    cancelled.ends_with(9);
    assert_eq!(cancelled.stdout, "");
    assert_eq!(cancelled.stderr, "cancelled\n");
}

#[test]
fn waiting_with_json_prints_the_result_and_nothing_else() {
    let world = world();
    let ran = world.run(&[
        "submit", "--recipe", "echo", "--input", "[1]", "--wait", "--json",
    ]);
    ran.succeeds();
    let task = world.only_task();
    assert_eq!(ran.json(), task.result());
    assert_eq!(ran.json()["output"], json!([1]));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_setting_that_only_a_watcher_uses_gets_a_note() {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    let run = |variable: Option<&str>, arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.envs(variable.map(|value| ("AGENTSPOOL_TIMEOUT_SEC", value)));
        let ran = Ran::of(&mut command);
        ran.succeeds();
        ran.stderr
    };
    let submit = ["submit", "--recipe", "works"];
    let shown = run(
        None,
        &[&submit[..], &["--set", "max_concurrent=1"]].concat(),
    );
    assert!(
        shown.starts_with("note: --set max_concurrent has no effect here: "),
        "{shown}"
    );
    assert!(shown.contains("config set max_concurrent '1'"), "{shown}");
    let shown = run(Some("5"), &["recipe", "run", "works"]);
    assert!(
        shown.starts_with("note: AGENTSPOOL_TIMEOUT_SEC has no effect here: "),
        "{shown}"
    );
    // These two settings are used by the command itself, and `timeout_sec` is in spool.json.
    let mine = ["--set", "durability=process", "--set", "min_free_bytes=1"];
    assert_eq!(run(None, &[&submit[..], &mine].concat()), "");
    world.set("timeout_sec", "5");
    assert_eq!(run(Some("5"), &submit), "");
}

#[test]
fn an_unread_pipe_on_stdin_gets_a_note() {
    let world = World::new();
    world.recipe("shows", "#!/bin/sh\ncat\n");
    let shown = "note: stdin is not read; use `--input -` to read the input from stdin\n";
    for arguments in [
        &["recipe", "run", "shows"][..],
        &["submit", "--recipe", "shows", "--wait"],
    ] {
        let ran = world.run_with_stdin(arguments, b"{\"a\": 1}");
        ran.succeeds();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("{}\n", shown));
        for input in ["-", "{}"] {
            let arguments = [arguments, &["--input", input]].concat();
            let ran = world.run_with_stdin(&arguments, b"{\"a\": 1}");
            ran.succeeds();
            assert_eq!(ran.stderr, "");
        }
    }
    // A file is not the input either. An empty file needs no note.
    let file = world.root().join("file");
    for (text, expected) in [("{}", shown), ("", "")] {
        std::fs::write(&file, text).unwrap();
        let mut command = world.command(&["recipe", "run", "shows"]);
        let ran = Ran::of(command.stdin(std::fs::File::open(&file).unwrap()));
        assert_eq!(ran.stderr, expected);
    }
}
