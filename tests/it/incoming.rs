//! The drop box, from outside: each file that is put into it becomes one task or one refusal.
//!
//! Slow, careless and hostile writers, and watchers that were killed halfway. Not the parsing of requests
//! (unit tests of `task/request.rs`). Invariant: a drop is taken once, complete and unchanged; a refused drop
//! is kept byte for byte with a reason; no drop stops the drops of others.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

use agentspool::task::TaskId;
use serde_json::{Value, json};

use crate::support::{Task, World, names_in, read_json};

/// A spool with one recipe, which records each of its runs and prints its input.
fn world() -> World {
    let world = World::new();
    let ledger = world.root().join("ledger");
    let script = format!(
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID\" >> '{}'\ncat\n",
        ledger.display()
    );
    world.recipe("echo", &script);
    world
}

fn request(input: impl Into<Value>) -> String {
    json!({ "recipe": "echo", "input": input.into() }).to_string()
}

/// The ids of all runs that were started, in order.
fn started_runs(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.root().join("ledger")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The task that a name leads to now.
fn linked(world: &World, name: &str) -> Option<Task> {
    let target = fs::read_link(world.path("names").join(name)).ok()?;
    let id = target.file_name()?.to_str()?;
    Some(world.task(id))
}

/// Waits until a name leads to a task, and returns the task.
#[track_caller]
fn admitted(world: &World, name: &str) -> Task {
    world.wait_until(&format!("{name} is admitted"), || {
        linked(world, name).is_some()
    });
    linked(world, name).unwrap()
}

/// The refused file and its reason, once both are there.
#[track_caller]
fn refused(world: &World, name: &str) -> (std::path::PathBuf, Value) {
    let ending = format!("-{name}.reason.json");
    let find = || {
        names_in(&world.path("rejected"))
            .into_iter()
            .find(|file| file.ends_with(&ending))
    };
    // The reason is written first, then the file is moved, and the claim is removed last.
    world.wait_until(&format!("{name} is refused"), || {
        find().is_some_and(|reason| {
            let file = reason.replace(".reason.json", ".json");
            let is_kept = fs::symlink_metadata(world.path("rejected").join(file)).is_ok();
            is_kept
                && !names_in(&world.path("staging"))
                    .iter()
                    .any(|it| it.contains("claim"))
        })
    });
    let reason = find().unwrap();
    let file = reason.replace(".reason.json", ".json");
    (
        world.path("rejected").join(file),
        read_json(&world.path("rejected").join(reason)),
    )
}

/// Waits until the watcher has scanned the box again: a later drop is admitted.
#[track_caller]
fn wait_for_scan(world: &World, marker: &str) {
    world.drop_in(&format!("{marker}.json"), &request(marker));
    let task = admitted(world, marker);
    world.result_of(&task);
}

#[track_caller]
fn assert_output(world: &World, name: &str, expected: impl Into<Value>) -> Task {
    let task = admitted(world, name);
    assert_eq!(world.result_of(&task)["output"], expected.into(), "{name}");
    task
}

/// No file is left in the box or in staging/.
#[track_caller]
fn wait_until_box_is_empty(world: &World) {
    world.wait_until("the box and staging/ are empty", || {
        names_in(&world.path("incoming")).is_empty() && names_in(&world.path("staging")).is_empty()
    });
}

#[test]
fn a_plain_write_a_rename_and_a_link_each_create_a_task() {
    let world = world();
    world.start_watcher();
    fs::write(world.path("incoming/plain.json"), request("plain")).unwrap();
    world.drop_in("moved.json", &request("moved"));
    let draft = world.root().join("draft.json");
    fs::write(&draft, request("linked")).unwrap();
    fs::hard_link(&draft, world.path("incoming/linked.json")).unwrap();
    for name in ["plain", "moved", "linked"] {
        assert_output(&world, name, name);
    }
    wait_until_box_is_empty(&world);
    assert_eq!(fs::read_to_string(&draft).unwrap(), request("linked"));
    assert_eq!(world.tasks().len(), 3);
}

#[test]
fn a_slow_writer_is_waited_for() {
    use std::io::Write;
    let world = world();
    world.start_watcher();
    let whole = request(json!({"text": "é", "list": [1, 2, 3]}));
    let (first, second) = whole.as_bytes().split_at(whole.len() / 2);
    let mut file = fs::File::create(world.path("incoming/slow.json")).unwrap();
    for byte in first {
        file.write_all(&[*byte]).unwrap();
    }
    wait_for_scan(&world, "half-way");
    assert!(world.path("incoming/slow.json").exists());
    assert_eq!(world.tasks().len(), 1, "half a file became a task");
    for byte in second {
        file.write_all(&[*byte]).unwrap();
    }
    drop(file);
    assert_output(&world, "slow", json!({"text": "é", "list": [1, 2, 3]}));
    assert_eq!(world.tasks().len(), 2);
    assert!(names_in(&world.path("rejected")).is_empty());
}

#[test]
fn temporary_names_are_left_alone() {
    const NAMES: [&str; 5] = [".x.json", "x.json~", "x.json.tmp", "4913", ".json"];
    let world = world();
    world.set("drop_patience_sec", "0");
    world.start_watcher();
    for name in NAMES {
        fs::write(world.path("incoming").join(name), request(name)).unwrap();
    }
    wait_for_scan(&world, "one");
    wait_for_scan(&world, "two");
    let mut left = names_in(&world.path("incoming"));
    left.sort();
    let mut expected = NAMES.to_vec();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(world.tasks().len(), 2);
    assert!(names_in(&world.path("rejected")).is_empty());
}

#[test]
fn thirty_drops_at_once_are_thirty_tasks() {
    let world = world();
    world.start_watcher();
    std::thread::scope(|scope| {
        for n in 0..30 {
            let incoming = world.path("incoming");
            scope
                .spawn(move || fs::write(incoming.join(format!("n{n}.json")), request(n)).unwrap());
        }
    });
    for n in 0..30 {
        assert_output(&world, &format!("n{n}"), n);
    }
    assert_eq!(world.tasks().len(), 30);
    assert_eq!(started_runs(&world).len(), 30);
    wait_until_box_is_empty(&world);
}

#[test]
fn a_drop_without_a_watcher_is_pending_and_wait_starts_one() {
    let world = world();
    world.drop_in("report.json", &request("late"));
    let status = world.json(&["status", "report"]);
    assert_eq!(
        (&status["status"], &status["task_id"]),
        (&json!("pending"), &Value::Null)
    );
    let message = world.run(&["status", "report"]);
    message.succeeds();
    assert!(message.stderr.contains("no watcher"), "{}", message.stderr);
    assert!(world.path("incoming/report.json").exists());

    world.run(&["wait", "report", "--timeout", "50"]).succeeds();
    let task = assert_output(&world, "report", "late");
    let status = world.json(&["status", "report"]);
    assert_eq!(status["task_id"], task.id);
    assert_eq!(status["status"], "completed");
    assert_eq!(status["name"], "report");
    assert_eq!(world.only_task().id, task.id);
}

#[test]
fn a_name_that_is_used_again_leads_to_the_newest_task() {
    let world = world();
    world.start_watcher();
    world.drop_in("again.json", &request(1));
    let first = assert_output(&world, "again", 1);
    world.drop_in("again.json", &request(2));
    world.wait_until("the name leads to another task", || {
        linked(&world, "again").is_some_and(|task| task.id != first.id)
    });
    let second = assert_output(&world, "again", 2);
    assert!(second.id > first.id);
    assert_eq!(world.json(&["status", "again"])["task_id"], second.id);
    assert_eq!(first.result()["output"], 1);
    assert_eq!(world.tasks().len(), 2);
}

#[test]
fn a_file_name_that_is_not_a_valid_name_becomes_a_label() {
    let world = world();
    world.start_watcher();
    for (file, label) in [
        ("my report.json", "my report"),
        // Without their suffix both would mean another task.
        ("last.json", "last.json"),
        ("task_1.json", "task_1.json"),
    ] {
        let before = world.tasks().len();
        world.drop_in(file, &request(label));
        world.wait_until("it is admitted", || world.tasks().len() > before);
        let task = world.tasks().pop().unwrap();
        assert_eq!(world.result_of(&task)["output"], label);
        assert_eq!(task.request()["label"], label);
        assert_eq!(task.request()["name"], Value::Null);
        // It is logged, shown as a label, and the task is found by it.
        assert_eq!(world.json(&["status", label])["task_id"], task.id);
        let shown = world.run(&["status", &task.id]).stdout;
        assert!(shown.contains(&format!("\nLabel: {label}\n")), "{shown}");
        let log = fs::read_to_string(world.root().join("watch.log")).unwrap();
        let line = log
            .lines()
            .find(|line| line.contains(&task.id) && line.contains("label"));
        assert!(
            line.is_some_and(|line| line.contains("not a valid task name")),
            "{log}"
        );
    }
    assert!(names_in(&world.path("names")).is_empty());
}

#[test]
fn the_file_name_wins_over_the_name_in_the_file() {
    let world = world();
    world.start_watcher();
    let inside = json!({"recipe": "echo", "name": "inner", "input": 1}).to_string();
    world.drop_in("outer.json", &inside);
    let task = assert_output(&world, "outer", 1);
    assert_eq!(task.request()["name"], "outer");
    assert!(linked(&world, "inner").is_none());
    // The name that it replaces is kept as the label and is logged.
    assert_eq!(task.request()["label"], "inner");
    assert_eq!(world.json(&["status", "inner"])["task_id"], task.id);
    let log = fs::read_to_string(world.root().join("watch.log")).unwrap();
    assert!(log.contains("not the one in the file"), "{log}");
    world.drop_in("no name.json", &inside);
    let task = assert_output(&world, "inner", 1);
    assert_eq!(task.request()["label"], "no name");
}

#[test]
fn a_stored_request_can_be_dropped_again() {
    let world = world();
    world.start_watcher();
    world.drop_in("first.json", &request(json!({"a": [1, 2.50]})));
    let first = assert_output(&world, "first", json!({"a": [1, 2.50]}));
    let stored = first.path.join("request.json");
    fs::copy(stored, world.path("incoming/second.json")).unwrap();
    let second = assert_output(&world, "second", json!({"a": [1, 2.50]}));
    assert_ne!(first.id, second.id);
    assert_eq!(
        first.request()["session_id"],
        second.request()["session_id"]
    );
}

#[test]
fn an_invalid_drop_is_kept_with_its_reason() {
    let world = world();
    world.set("drop_patience_sec", "0.1");
    world.start_watcher();
    let deep = format!(
        r#"{{"recipe":"echo","input":{}{}}}"#,
        "[".repeat(9999),
        "]".repeat(9999)
    );
    let large = request("x".repeat(1 << 20));
    let cases: &[(&str, &str, &str)] = &[
        ("typo", r#"{"recipe":"echo","inptu":1}"#, "inptu"),
        ("norecipe", r#"{"recipe":"ehco"}"#, "ehco"),
        ("reserved", r#"{"recipe":"echo","retries":3}"#, "reserved"),
        ("list", r#"[{"recipe":"echo"}]"#, "one JSON object"),
        ("newer", r#"{"v":9,"recipe":"echo"}"#, "version 9"),
        ("tail", "{\"recipe\":\"echo\"}\0\0", "trailing"),
        ("twice", r#"{"recipe":"echo","recipe":"echo"}"#, "duplicate"),
        ("escape", r#"{"recipe":"../echo"}"#, "name"),
        ("deep", &deep, "recursion limit"),
        ("large", &large, "larger than"),
        ("half", r#"{"recipe":"ec"#, "too early"),
        ("empty", "", "too early"),
        (
            "secret",
            r#"{"recipe":"echo","timeout_sec":"hunter2"}"#,
            "line 1 column",
        ),
    ];
    for (name, content, _) in cases {
        world.drop_in(&format!("{name}.json"), content);
    }
    for (name, content, expected) in cases {
        let (file, reason) = refused(&world, name);
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            *content,
            "{name} is kept as it was"
        );
        let why = reason["reason"].as_str().unwrap();
        assert!(why.contains(expected), "{name}: {why}");
        assert_eq!(reason["name"], *name);
        assert!(!reason["hint"].as_str().unwrap().is_empty());
        let message = world.run(&["status", name]);
        message.ends_with(7);
        assert!(message.stderr.contains(why), "{name}: {}", message.stderr);
        assert_eq!(world.json(&["status", name])["code"], 7);
    }
    let (_, reason) = refused(&world, "secret");
    assert!(!reason.to_string().contains("hunter2"), "{reason}");
    let log = fs::read_to_string(world.root().join("watch.log")).unwrap();
    assert!(!log.contains("hunter2"), "{log}");
    wait_for_scan(&world, "after-all-that");
    assert_eq!(world.tasks().len(), 1);
    wait_until_box_is_empty(&world);
}

#[test]
fn a_drop_that_is_not_a_regular_file_is_not_opened() {
    let world = world();
    world.start_watcher();
    let incoming = world.path("incoming");
    let secret = world.root().join("secret.json");
    fs::write(&secret, request("secret")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        incoming.join("pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(incoming.join("socket.json")).unwrap();
    symlink(&secret, incoming.join("link.json")).unwrap();
    symlink("nowhere", incoming.join("dangling.json")).unwrap();
    fs::create_dir_all(incoming.join("folder.json/deeper")).unwrap();
    fs::write(incoming.join("folder.json/deeper/kept"), "kept").unwrap();
    for (name, expected) in [
        ("pipe", "FIFO"),
        ("socket", "socket"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
    ] {
        let (file, reason) = refused(&world, name);
        let why = reason["reason"].as_str().unwrap();
        assert!(why.contains(expected), "{name}: {why}");
        world.run(&["status", name]).ends_with(7);
        let kind = fs::symlink_metadata(&file).unwrap().file_type();
        assert!(
            match name {
                "pipe" => kind.is_fifo(),
                "socket" => kind.is_socket(),
                _ => kind.is_symlink(),
            },
            "{name}"
        );
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), request("secret"));
    wait_for_scan(&world, "after-all-that");
    assert_eq!(world.tasks().len(), 1);
    // A folder may hold the only copy of its files.
    assert!(incoming.join("folder.json/deeper/kept").exists());
    fs::remove_dir_all(incoming.join("folder.json")).unwrap();
    wait_until_box_is_empty(&world);
}

/// Windows programs write a byte order mark before UTF-8 text. It is ignored wherever JSON is read.
#[test]
fn a_byte_order_mark_is_ignored() {
    let world = world();
    fs::write(
        world.path("spool.json"),
        "\u{feff}{\"v\": 2, \"autostart\": false}",
    )
    .unwrap();
    let text = format!("\u{feff}{}\r\n", request("x"));
    world.drop_in("marked.json", &text);
    world.start_watcher();
    assert_output(&world, "marked", "x");
    let lines = format!("\u{feff}\n\u{feff}{}\n{}\n", request("a"), request("b"));
    let ran = world.run_with_stdin(&["submit", "--batch", "-"], lines.as_bytes());
    ran.succeeds();
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    fs::write(world.root().join("input"), "\u{feff}{\"n\": 1}").unwrap();
    let input = format!("@{}", world.root().join("input").display());
    let task = world.submit(&["echo", "--input", &input]);
    assert_eq!(task.request()["input"], json!({"n": 1}));
}

/// A watcher does not wait if no further bytes can complete the JSON.
#[test]
fn json_that_cannot_be_completed_is_refused_at_once() {
    let world = world();
    world.set("drop_patience_sec", "1h");
    world.start_watcher();
    for (name, text) in [
        ("comma", r#"{"recipe":"echo","input":[1,],}"#),
        ("comment", "// a task\n{\"recipe\":\"echo\"}"),
        ("inside", "{\"recipe\":\"echo\" /* which */}"),
        ("single", "{'recipe':'echo'}"),
        ("lines", "{\"recipe\":\"echo\"}\n{\"recipe\":\"echo\"}"),
        ("yaml", "recipe: echo\n"),
    ] {
        world.drop_in(&format!("{name}.json"), text);
        let (_, reason) = refused(&world, name);
        let why = reason["reason"].as_str().unwrap();
        assert!(why.contains("not valid JSON"), "{name}: {why}");
    }
    let utf16: Vec<u8> = "\u{feff}{\"recipe\":\"echo\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    fs::write(world.path("incoming").join("wide.json"), utf16).unwrap();
    let (_, reason) = refused(&world, "wide");
    assert!(reason["reason"].as_str().unwrap().contains("UTF-16"));
    assert!(world.tasks().is_empty());
}

#[test]
fn conflict_copies_of_sync_programs_are_refused_by_name() {
    let world = world();
    world.start_watcher();
    let names = [
        "a.sync-conflict-20261127-101500-ABCDEFG",
        "a (Ada's conflicted copy 2026-11-27)",
        "a_conflict-20261127-101500",
        "a (SFConflict ada@example.org 2026-11-27-10-15-00)",
    ];
    for name in names {
        world.drop_in(&format!("{name}.json"), &request("twice"));
    }
    world.wait_until("all are refused", || {
        let reasons = names_in(&world.path("rejected"));
        let reasons = reasons.iter().filter(|it| it.ends_with(".reason.json"));
        reasons.count() == names.len()
    });
    for file in names_in(&world.path("rejected")) {
        if file.ends_with(".reason.json") {
            let reason = read_json(&world.path("rejected").join(file));
            let why = reason["reason"].as_str().unwrap();
            assert!(why.contains("refused_drop_names"), "{why}");
        }
    }
    assert!(world.tasks().is_empty());
    // The patterns are a setting.
    world.set("refused_drop_names", r#"["no-*.json"]"#);
    world.wait_until("the watcher has read the setting", || {
        let log = fs::read_to_string(world.root().join("watch.log")).unwrap();
        log.contains("settings read again")
    });
    world.drop_in("b_conflict-1.json", &request("taken"));
    assert_output(&world, "b_conflict-1", "taken");
    world.drop_in("no-b.json", &request("refused"));
    refused(&world, "no-b");
}

#[test]
fn an_incomplete_drop_is_refused_after_a_time() {
    let world = world();
    world.set("drop_patience_sec", "1000");
    world.start_watcher();
    world.drop_in("half.json", r#"{"recipe": "echo", "#);
    wait_for_scan(&world, "one");
    wait_for_scan(&world, "two");
    assert!(world.path("incoming/half.json").exists());
    // A running watcher uses the changed setting.
    world.set("drop_patience_sec", "0.05");
    let (file, reason) = refused(&world, "half");
    assert_eq!(fs::read_to_string(file).unwrap(), r#"{"recipe": "echo", "#);
    assert!(reason["reason"].as_str().unwrap().contains("too early"));
    // The next file of this name is a new drop, and then the name leads to its task.
    world.drop_in("half.json", &request("whole"));
    assert_output(&world, "half", "whole");
    assert_eq!(world.json(&["status", "half"])["status"], "completed");
}

#[test]
fn a_drop_replaced_between_two_scans_is_read_again() {
    let world = world();
    world.start_watcher();
    world.drop_in("changed.json", r#"{"recipe": "echo", "input": "old"#);
    wait_for_scan(&world, "looked");
    world.drop_in("changed.json", &request("new"));
    assert_output(&world, "changed", "new");
    assert_eq!(world.tasks().len(), 2);
    assert!(names_in(&world.path("rejected")).is_empty());
}

#[test]
fn a_drop_that_is_replaced_again_and_again_is_never_taken_twice() {
    const TIMES: u64 = 100;
    let world = world();
    world.start_watcher();
    for n in 0..TIMES {
        world.drop_in("same.json", &request(n));
    }
    world.wait_until("the last drop is admitted", || {
        linked(&world, "same").is_some_and(|task| task.request()["input"] == TIMES - 1)
    });
    wait_until_box_is_empty(&world);
    let mut seen: Vec<u64> = world
        .tasks()
        .iter()
        .map(|task| world.result_of(task)["output"].as_u64().unwrap())
        .collect();
    // A drop that was replaced while it was taken is kept in rejected/. It is never taken as well.
    for file in names_in(&world.path("rejected")) {
        if !file.ends_with(".reason.json") {
            let kept = read_json(&world.path("rejected").join(file));
            seen.push(kept["input"].as_u64().unwrap());
        }
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all, "a drop was taken twice: {seen:?}");
}

#[test]
fn an_unreadable_drop_is_refused_after_a_time() {
    let world = world();
    world.set("drop_patience_sec", "0.1");
    let path = world.path("incoming/shut.json");
    fs::write(&path, request("shut")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    world.start_watcher();
    // Root may read everything, so for root this is a drop like any other.
    if rustix::process::geteuid().is_root() {
        assert_output(&world, "shut", "shut");
    } else {
        let (file, reason) = refused(&world, "shut");
        assert!(reason["reason"].as_str().unwrap().contains("cannot read"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), request("shut"));
    }
    wait_for_scan(&world, "after");
}

/// A request that is small enough as a drop may be too large as it is stored, with its name and session.
#[test]
fn a_drop_that_is_too_large_when_stored_is_refused_and_blocks_no_others() {
    let world = world();
    world.start_watcher();
    let empty = request("").len();
    let brim = request("x".repeat((1 << 20) - empty));
    assert_eq!(brim.len(), 1 << 20);
    world.drop_in("brim.json", &brim);
    let (file, reason) = refused(&world, "brim");
    assert!(reason["reason"].as_str().unwrap().contains("larger"));
    assert!(fs::read_to_string(file).unwrap() == brim);
    wait_for_scan(&world, "after");
    assert_eq!(world.tasks().len(), 1);
    wait_until_box_is_empty(&world);
    world.wait_until("no index entry is left", || {
        names_in(&world.path("open"))
            .iter()
            .all(|name| name.starts_with('.'))
    });
}

/// An ordinary user cannot move a folder that is not writable.
#[test]
fn a_drop_that_cannot_be_moved_blocks_no_others() {
    let world = world();
    world.set("drop_patience_sec", "0");
    let folder = world.path("incoming/fixed.json");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    world.start_watcher();
    wait_for_scan(&world, "one");
    wait_for_scan(&world, "two");
    // A drain does not wait for it either.
    world.run(&["watch", "--drain"]).succeeds();
    assert!(folder.exists());
}

#[test]
fn drops_stay_in_the_box_while_the_disk_is_full() {
    let world = world();
    world.set("min_free_bytes", "1000000000000000000");
    world.start_watcher();
    world.drop_in("patient.json", &request("patient"));
    world.wait_until("the watcher logs why it waits", || {
        fs::read_to_string(world.root().join("watch.log")).is_ok_and(|log| log.contains("free"))
    });
    assert!(world.path("incoming/patient.json").exists());
    assert!(world.tasks().is_empty());
    assert!(names_in(&world.path("staging")).is_empty());
    world.set("min_free_bytes", "0");
    assert_output(&world, "patient", "patient");
    assert_eq!(world.tasks().len(), 1);
}

/// A claim as it is left by a watcher that was killed at a given point.
fn claim(world: &World, id: &str, drop: Option<(&str, &str)>) {
    claim_at(&world.path("staging").join(format!("{id}.claim")), drop);
}

fn claim_at(folder: &Path, drop: Option<(&str, &str)>) {
    fs::create_dir(folder).unwrap();
    if let Some((name, content)) = drop {
        fs::write(folder.join(name), content).unwrap();
    }
}

fn new_id(n: u64) -> String {
    let now = std::time::SystemTime::now();
    let ms = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    TaskId::from_parts(u64::try_from(ms).unwrap() + n, 7).to_string()
}

#[test]
fn interrupted_admissions_are_finished_once_with_the_same_id() {
    let world = world();
    world.set("autostart", "false");
    // Claimed, nothing more.
    let claimed = new_id(0);
    claim(
        &world,
        &claimed,
        Some(("claimed.json", &request("claimed"))),
    );
    // Claimed, and the task half built.
    let building = new_id(1);
    claim(&world, &building, Some(("built.json", &request("built"))));
    let half = world.path("staging").join(&building);
    fs::create_dir_all(half.join("attempts")).unwrap();
    fs::write(half.join("lock"), "").unwrap();
    fs::write(half.join("request.json"), "{").unwrap();
    fs::write(world.path("open").join(&building), "").unwrap();
    // Published, but the claim not yet removed and the name not yet linked.
    let published = world.submit(&["echo", "--input", "\"published\""]);
    let stored = published.read("request.json");
    claim(&world, &published.id, Some(("published.json", &stored)));
    // Already moved out.
    claim(&world, &new_id(2), None);
    // Claimed in order to be refused.
    claim(&world, &new_id(3), Some(("wrong.json", "[]")));

    world.start_watcher();
    assert_eq!(assert_output(&world, "claimed", "claimed").id, claimed);
    assert_eq!(assert_output(&world, "built", "built").id, building);
    assert_eq!(
        assert_output(&world, "published", "published").id,
        published.id
    );
    let (file, _) = refused(&world, "wrong");
    assert_eq!(fs::read_to_string(file).unwrap(), "[]");
    wait_until_box_is_empty(&world);
    let mut ran = started_runs(&world);
    ran.sort();
    let mut expected = vec![claimed, building, published.id];
    expected.sort();
    assert_eq!(ran, expected);
    assert_eq!(world.tasks().len(), 3);
}

/// A finished task may be cleared before any watcher saw that its drop was still claimed.
#[test]
fn a_cleared_task_is_not_created_again_from_its_claim() {
    let world = world();
    world.set("autostart", "false");
    let task = world.submit(&["echo", "--input", "1"]);
    claim(
        &world,
        &task.id,
        Some(("once.json", &task.read("request.json"))),
    );
    world.run(&["runner", "--once", &task.id]).succeeds();
    world.run(&["clear"]).succeeds();
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(started_runs(&world), [task.id]);
    assert!(world.tasks().is_empty());
    wait_until_box_is_empty(&world);
}

/// If the box is a mount of its own, no file can be renamed out of it.
#[test]
fn a_claim_in_the_box_itself_is_finished_once() {
    let world = world();
    world.set("autostart", "false");
    let folder = |id: &str| world.path("incoming").join(format!(".{id}.claim"));
    let boxed = new_id(0);
    claim_at(&folder(&boxed), Some(("boxed.json", &request("boxed"))));
    let task = world.submit(&["echo", "--input", "1"]);
    claim_at(
        &folder(&task.id),
        Some(("once.json", &task.read("request.json"))),
    );
    world.run(&["runner", "--once", &task.id]).succeeds();
    world.run(&["clear"]).succeeds();
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(assert_output(&world, "boxed", "boxed").id, boxed);
    assert_eq!(started_runs(&world), [task.id, boxed]);
    assert_eq!(world.tasks().len(), 1);
    wait_until_box_is_empty(&world);
    let left = names_in(&world.path("incoming"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn two_watchers_and_forty_drops_are_forty_tasks() {
    let world = world();
    world.start_watcher();
    world.start_watcher();
    for n in 0..40 {
        world.drop_in(&format!("n{n}.json"), &request(n));
    }
    for n in 0..40 {
        assert_output(&world, &format!("n{n}"), n);
    }
    let ids: Vec<String> = world.tasks().into_iter().map(|task| task.id).collect();
    assert_eq!(ids.len(), 40);
    let mut ran = started_runs(&world);
    ran.sort();
    assert_eq!(ran, ids);
    wait_until_box_is_empty(&world);
    assert!(names_in(&world.path("rejected")).is_empty());
    assert!(Path::new(&world.path("names/n39")).exists());
}

/// Only the users of a group spool may put control files into the drop box. Here they must get an answer.
#[test]
fn a_control_file_in_a_private_spool_is_refused() {
    let world = world();
    let task = world.submit(&["echo"]);
    for ending in ["cancel", "cancel.json", "000000000000002a.cancel"] {
        let name = format!("{}.{ending}", task.id);
        let content = json!({"v": 2, "task": task.id, "do": "cancel"}).to_string();
        world.drop_in(&name, &content);
        world.run(&["watch", "--drain"]).succeeds();
        let (kept, reason) = refused(&world, name.strip_suffix(".json").unwrap_or(&name));
        assert_eq!(fs::read_to_string(kept).unwrap(), content);
        assert_eq!(reason["hint"], "use `agentspool cancel`", "{reason}");
        assert!(names_in(&world.path("incoming")).is_empty());
        for name in names_in(&world.path("rejected")) {
            fs::remove_file(world.path("rejected").join(name)).unwrap();
        }
    }
}
