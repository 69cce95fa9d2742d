//! Bad input: one clear line on stderr, the right exit code, and no byte of the spool changed.
//!
//! Not a full disk or a read-only file system (`tests/rig`). Not the drop box, whose refusals leave a reason
//! in the spool (`incoming.rs`).

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::support::{Ran, World, names_in};

/// Every file with its content, every link with its target, every folder.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let shown = path.to_str().unwrap().to_owned();
        if metadata.is_dir() {
            found.extend(tree(&path));
            found.insert(shown, Vec::new());
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            found.insert(shown, target.into_os_string().into_encoded_bytes());
        } else {
            found.insert(shown, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// A spool with two tasks that no watcher runs, so that there are tasks to confuse.
fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("works", "#!/bin/sh\n");
    world.recipe_folder("typo", "descripton = \"x\"", "#!/bin/sh\n");
    world.submit(&["works"]);
    world.submit(&["works"]);
    world
}

/// The three promises for one command line.
fn is_refused(world: &World, arguments: &[&str], stdin: &[u8], code: i32, message: &str) {
    let before = tree(world.spool());
    let ran = world.run_with_stdin(arguments, stdin);
    is_reported(&ran, code, message);
    let mut as_json = vec!["--json"];
    as_json.extend(arguments);
    is_reported_as_json(&world.run_with_stdin(&as_json, stdin), code, message);
    assert!(
        tree(world.spool()) == before,
        "{arguments:?} changed the spool"
    );
}

fn is_reported(ran: &Ran, code: i32, message: &str) {
    ran.ends_with(code);
    assert_eq!(ran.stdout, "", "{message}");
    let complaints: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|l| l.starts_with("error: "))
        .collect();
    assert_eq!(complaints.len(), 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(message),
        "{message:?} is not in {}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

fn is_reported_as_json(ran: &Ran, code: i32, message: &str) {
    ran.ends_with(code);
    let object = ran.json();
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(
        (&object["ok"], &object["code"]),
        (&json!(false), &json!(code))
    );
    let error = object["error"].as_str().unwrap();
    assert!(error.contains(message), "{message:?} is not in {error:?}");
    assert!(!error.contains('\n'), "{error:?}");
    assert!(
        !ran.stderr.contains("error:"),
        "reported twice: {}",
        ran.stderr
    );
}

#[test]
fn invalid_requests_are_refused() {
    let world = world();
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    std::fs::write(world.root().join("large.json"), &large).unwrap();
    std::fs::write(world.root().join("bytes"), b"\"\xff\"").unwrap();
    let name = "n".repeat(101);
    let submit = |more: &[&'static str]| {
        let mut all = vec!["submit", "--recipe", "works"];
        all.extend(more);
        all
    };
    let cases: &[(Vec<&str>, i32, &str)] = &[
        (
            vec!["submit", "--recipe", "workz"],
            7,
            "did you mean works?",
        ),
        (
            vec!["submit", "--recipe", "typo"],
            2,
            "unknown field `descripton`",
        ),
        (
            vec!["submit", "--recipe", "../works"],
            2,
            "a name has 1 to 100 characters",
        ),
        (
            vec!["submit", "--recipe", "works", "--name", &name],
            2,
            "a name has 1 to 100 characters",
        ),
        (
            submit(&["--input", "{\"query\": "]),
            2,
            "--input is not valid JSON",
        ),
        (
            submit(&["--input", "{'query': 1}"]),
            2,
            "--input is not valid JSON",
        ),
        (
            submit(&["--input", "[1, 2"]),
            2,
            "--input is not valid JSON",
        ),
        (
            submit(&["--input", "{\"a\": 1, \"a\": 2}"]),
            2,
            "same key twice",
        ),
        (
            submit(&["--input", "{} {}"]),
            2,
            "--input is not valid JSON",
        ),
        (
            submit(&["--input", "@nowhere.json"]),
            2,
            "failed to open --input nowhere.json",
        ),
        (
            submit(&["--input", "@home"]),
            2,
            "failed to read --input home",
        ),
        (
            submit(&["--input", "@large.json"]),
            2,
            "larger than 1048576 bytes",
        ),
        (submit(&["--input", "@bytes"]), 2, "not UTF-8"),
        (
            vec!["submit", "--recipe", "works", "--input", &deep],
            2,
            "--input is not valid JSON",
        ),
        (
            submit(&["--config", "[]"]),
            2,
            "--config must be a JSON object",
        ),
        (
            submit(&["--metadata", "x"]),
            2,
            "--metadata is not valid JSON",
        ),
        (
            submit(&["--timeout", "soon"]),
            2,
            "must be seconds or a duration",
        ),
        (
            submit(&["--timeout", "0"]),
            2,
            "more than 0 and at most ten years",
        ),
        (
            submit(&["--timeout=-1"]),
            2,
            "must not be less than 0 seconds",
        ),
        (
            vec!["wait", "--all", "--timeout", "500000000000y"],
            2,
            "must be at most 1000 years",
        ),
        (
            vec!["sweep", "--every", "1e19"],
            2,
            "must be at most 1000 years",
        ),
        (submit(&["--name", "last"]), 2, "`name` may not be `last`"),
        (
            submit(&["--name", "task_1"]),
            2,
            "`name` may not be `last`, start with `task_`",
        ),
        (
            submit(&["--session-id", "a/b"]),
            2,
            "a name has 1 to 100 characters",
        ),
        (
            submit(&["--env", "KEY=1"]),
            4,
            "does not accept the variable KEY",
        ),
        (vec!["submit"], 2, "--recipe <RECIPE>"),
        (
            submit(&["--frobnicate"]),
            2,
            "unexpected argument '--frobnicate'",
        ),
        (submit(&["--batch", "x"]), 2, "cannot be used with"),
        (
            vec!["submit", "--batch", "nowhere"],
            2,
            "failed to open --batch nowhere",
        ),
    ];
    for (arguments, code, message) in cases {
        is_refused(&world, arguments, b"", *code, message);
    }
}

#[test]
fn invalid_lines_of_a_batch_are_refused() {
    let world = world();
    let deep = format!(
        "{{\"recipe\": \"works\", \"input\": {}{}}}",
        "[".repeat(2000),
        "]".repeat(2000)
    );
    let large = format!(
        "{{\"recipe\": \"works\", \"input\": \"{}\"}}",
        "x".repeat(1 << 20)
    );
    let cases: &[(&[u8], i32, &str)] = &[
        (
            b"{\"recipe\": \"works\", \"inptu\": 1}",
            2,
            "line 1: not a request: unknown field `inptu`",
        ),
        (
            b"{\"recipe\": \"works\", \"retries\": 1}",
            2,
            "line 1: the field `retries` is reserved",
        ),
        (
            b"{\"recipe\": \"workz\"}",
            7,
            "line 1: no recipe is called \"workz\"",
        ),
        (b"\n{\"recipe\": 1}", 2, "line 2: not a request"),
        (
            b"{\"recipe\": \"works\"",
            2,
            "line 1: the JSON text ends too early",
        ),
        (b"hello", 2, "line 1: not valid JSON"),
        (b"[]", 2, "line 1: not a request: expected one JSON object"),
        (
            b"{\"recipe\": \"\xff\"}",
            2,
            "line 1: not valid JSON: not UTF-8",
        ),
        (b"{\"v\": 2, \"recipe\": \"works\"}", 2, "format version 2"),
        (deep.as_bytes(), 2, "line 1: "),
        (
            large.as_bytes(),
            2,
            "line 1: the request is larger than 1048576 bytes",
        ),
    ];
    for (line, code, message) in cases {
        is_refused(&world, &["submit", "--batch", "-"], line, *code, message);
    }
}

#[test]
fn unknown_tasks_are_refused() {
    let world = world();
    let unknown = "task_00000000000000000000000000";
    let tasks = world.tasks();
    // Only the part of the time that changes every few days.
    let common = &tasks[0].id[..9];
    for verb in ["status", "cancel", "result", "logs", "wait"] {
        let no_task = "no task is called";
        is_refused(&world, &[verb, unknown], b"", 7, no_task);
        is_refused(&world, &[verb, "nobody"], b"", 7, no_task);
        is_refused(
            &world,
            &[verb, common],
            b"",
            2,
            "matches several tasks: task_",
        );
        is_refused(&world, &[verb], b"", 2, "required");
    }
    is_refused(
        &world,
        &["recipe", "info", "workz"],
        b"",
        7,
        "did you mean works?",
    );
    is_refused(
        &world,
        &["recipe", "run", "workz"],
        b"",
        7,
        "did you mean works?",
    );
    is_refused(
        &world,
        &["list", "--status", "done"],
        b"",
        2,
        "expected pending, running",
    );
    is_refused(&world, &["list", "--page", "0"], b"", 2, "--page");
    is_refused(
        &world,
        &["clear", "--older-than", "long"],
        b"",
        2,
        "must be seconds",
    );
    is_refused(
        &world,
        &["clear", "--status", "running"],
        b"",
        2,
        "only finished tasks",
    );
    is_refused(
        &world,
        &["config", "set", "max_concurrent", "0"],
        b"",
        2,
        "max_concurrent",
    );
    is_refused(
        &world,
        &["statsu", "last"],
        b"",
        2,
        "unrecognized subcommand 'statsu'",
    );
    let meant = world.run(&["statsu", "last"]);
    assert!(
        meant.stderr.contains("status"),
        "did you mean: {}",
        meant.stderr
    );
}

#[test]
fn an_unusable_spool_is_refused() {
    let world = world();
    let spool = |name: &str| world.root().join(name).to_str().unwrap().to_owned();
    let made = |name: &str, settings: &str| {
        std::fs::create_dir(spool(name)).unwrap();
        std::fs::write(format!("{}/spool.json", spool(name)), settings).unwrap();
        spool(name)
    };
    let newer = made("newer", "{\"v\": 3, \"shiny\": true}");
    let half = made("half", "{\"v\": 2, \"max_con");
    let odd = made("odd", "{\"v\": 2, \"max_concurent\": 3}");
    for (spool, message) in [
        (spool("absent"), "is not a spool"),
        (spool("home"), "is not a spool"),
        (newer, "has format version 3"),
        (half, "cannot use "),
        (odd, "max_concurent"),
    ] {
        for verb in [
            &["list"][..],
            &["submit", "--recipe", "works"],
            &["clear"],
            &["watch"],
        ] {
            let mut arguments = vec!["--spool", &*spool];
            arguments.extend(verb);
            let before = tree(world.root());
            is_reported(&world.run(&arguments), 8, message);
            arguments.push("--json");
            is_reported_as_json(&world.run(&arguments), 8, message);
            assert!(
                tree(world.root()) == before,
                "{arguments:?} changed something"
            );
        }
    }
}

#[test]
fn a_spool_without_write_permission_is_refused() {
    let world = world();
    if rustix::process::geteuid().is_root() {
        // Modes do not stop root; the rig mounts a read-only file system instead.
        return;
    }
    let tasks = world.path("staging");
    std::fs::set_permissions(&tasks, std::fs::Permissions::from_mode(0o500)).unwrap();
    is_refused(&world, &["submit", "--recipe", "works"], b"", 8, "denied");
    std::fs::set_permissions(&tasks, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_full_disk_is_reported_before_anything_is_created() {
    let world = world();
    world.set("min_free_bytes", "9000000000000000000");
    is_refused(&world, &["submit", "--recipe", "works"], b"", 8, "free");
    let line = b"{\"recipe\": \"works\"}";
    is_refused(&world, &["submit", "--batch", "-"], line, 8, "free");
}
