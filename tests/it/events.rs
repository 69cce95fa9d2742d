//! `agentspool events` and the files it reads: the events of a task from its acceptance to its removal.
//!
//! Not the log of the watcher (`log.rs`). Invariant: an event may be missing only if the test removed it.

use serde_json::Value;

use crate::support::{Ran, World, names_in, read_json};

fn events(world: &World, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["events", "--json"];
    arguments.extend(more);
    let ran = world.run(&arguments);
    ran.succeeds();
    objects(&ran)
}

fn objects(ran: &Ran) -> Vec<Value> {
    let lines = ran.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn words(events: &[Value]) -> Vec<&str> {
    let words = events.iter().map(|event| event["event"].as_str().unwrap());
    words.collect()
}

#[test]
fn a_task_has_events_from_its_acceptance_to_its_removal() {
    let world = World::new();
    world.recipe(
        "works",
        "#!/bin/sh\necho '{\"progress\": 0.5, \"message\": \"half\"}' >>\"$AGENTSPOOL_PROGRESS_FILE\"\n",
    );
    let task = world.submit(&["works", "--session-id", "s"]);
    world.result_of(&task);
    world.run(&["clear"]).succeeds();
    let all = events(&world, &["--task", &task.id]);
    let schema = read_json(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("spool/schema/event.schema.json"),
    );
    let schema = jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    assert!(all.iter().all(|event| schema.is_valid(event)), "{all:#?}");
    let expected = ["accepted", "started", "progress", "completed", "cleared"];
    assert_eq!(words(&all), expected);
    for event in &all {
        assert_eq!(event["task_id"], task.id.as_str());
        assert_eq!(event["recipe"], "works");
        assert_eq!(event["session_id"], "s");
        assert!(event["at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(
        (&all[1]["attempt"], &all[3]["exit_code"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&all[2]["progress"], &all[2]["message"]),
        (&0.5.into(), &"half".into())
    );

    // A reader continues at its cursor.
    let cursor = all[1]["cursor"].as_str().unwrap();
    let rest = events(&world, &["--after", cursor]);
    assert_eq!(words(&rest), ["progress", "completed", "cleared"]);
    let last = rest[2]["cursor"].as_str().unwrap();
    assert!(events(&world, &["--after", last]).is_empty());
    assert!(events(&world, &["--since", "2999-01-01T00:00:00Z"]).is_empty());
    assert_eq!(events(&world, &["--since", "1h"]).len(), 5);

    let shown = world.run(&["events"]);
    shown.succeeds();
    let started = shown.stdout.lines().nth(1).unwrap();
    let fields: Vec<&str> = started.split_whitespace().collect();
    assert_eq!(
        fields[1..5],
        ["started", &task.id, "works", "s"],
        "{started}"
    );
}

#[test]
fn drops_have_events() {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    world.drop_in("good.json", "{\"recipe\": \"works\"}");
    world.drop_in("bad.json", "{\"recipe\": 1}");
    world.start_watcher();
    world.wait_until("all of it is done", || {
        let all = events(&world, &[]);
        let words = words(&all);
        ["admitted", "completed", "refused"]
            .iter()
            .all(|word| words.contains(word))
    });
    let all = events(&world, &[]);
    assert!(!words(&all).contains(&"accepted"), "{all:?}");
    let of = |word: &str| all.iter().find(|event| event["event"] == word).unwrap();
    assert_eq!(of("admitted")["drop"], "good");
    assert_eq!(of("refused")["drop"], "bad");
    assert_eq!(of("refused")["task_id"], Value::Null);
    assert!(
        of("refused")["message"]
            .as_str()
            .unwrap()
            .contains("not a request")
    );
}

#[test]
fn a_follower_sees_events_as_they_happen() {
    let world = World::new();
    let mut follower = world.command(&["events", "--follow", "--json"]);
    let mut follower = follower
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    world.run(&["pause"]).succeeds();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let line = lines.next().unwrap().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "paused");
    world.run(&["resume"]).succeeds();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("\"resumed\""), "{line}");
    let pid = rustix::process::Pid::from_child(&follower);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(follower.wait().unwrap().success());
}

#[test]
fn a_follower_continues_when_its_file_is_swept() {
    let world = World::new();
    world.run(&["pause"]).succeeds();
    let mut follower = world.command(&["events", "--follow", "--json"]);
    let mut follower = follower
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output);
    assert!(lines.next().unwrap().unwrap().contains("\"paused\""));
    let file = world
        .path("events")
        .join(&names_in(&world.path("events"))[0]);
    std::fs::remove_file(file).unwrap();
    world.run(&["resume"]).succeeds();
    assert!(lines.next().unwrap().unwrap().contains("\"resumed\""));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_follower_reads_a_new_day_at_once_and_misses_no_late_line() {
    let world = World::new();
    let old = world.path("events").join("2000-01-01.jsonl");
    let line = |word: &str| format!("{{\"at\":\"2000-01-01T23:59:59Z\",\"event\":\"{word}\"}}\n");
    std::fs::write(&old, line("swept")).unwrap();
    let mut follower = world.command(&["events", "--follow", "--json"]);
    let mut follower = follower
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(follower.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output).map(|line| {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |key: &str| event[key].as_str().unwrap().to_owned();
        (text("event"), text("cursor"))
    });
    let (word, cursor) = lines.next().unwrap();
    assert_eq!((word.as_str(), &cursor[..10]), ("swept", "2000-01-01"));
    world.run(&["pause"]).succeeds();
    let (word, newer) = lines.next().unwrap();
    assert_eq!(word, "paused");
    let mut late = std::fs::File::options().append(true).open(&old).unwrap();
    std::io::Write::write_all(&mut late, line("cleared").as_bytes()).unwrap();
    // A reader that starts again at this cursor gets no event twice.
    assert_eq!(lines.next().unwrap(), ("cleared".to_owned(), newer));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn torn_lines_and_unknown_events_stop_no_reader() {
    let world = World::new();
    world.run(&["pause"]).succeeds();
    let file = world
        .path("events")
        .join(&names_in(&world.path("events"))[0]);
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str(
        "{\"at\": \"2026-11-2\n\nno json at all\n{\"event\": \"invented\", \"more\": [1]}\n",
    );
    std::fs::write(&file, &text).unwrap();
    world.run(&["resume"]).succeeds();
    let all = events(&world, &[]);
    assert_eq!(words(&all), ["paused", "invented", "resumed"]);
    assert_eq!(all[1]["more"], serde_json::json!([1]));

    // A cursor of a file that was removed.
    let ran = world.run(&["events", "--json", "--after", "2000-01-01:1:2"]);
    ran.succeeds();
    assert!(ran.stderr.contains("were removed"), "{}", ran.stderr);
    assert_eq!(objects(&ran).len(), 3);
    for wrong in [&["--after", "yesterday"][..], &["--since", "yesterday"]] {
        let mut arguments = vec!["events"];
        arguments.extend(wrong);
        world.run(&arguments).ends_with(2);
    }
}

#[test]
fn events_are_limited_and_writers_continue_in_a_new_file() {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    world.start_watcher();
    let task = world.submit(&["works"]);
    world.result_of(&task);
    // An old file, and one that is not an event file.
    std::fs::write(
        world.path("events/2020-01-01.jsonl"),
        "{\"event\": \"old\"}\n",
    )
    .unwrap();
    std::fs::write(world.path("events/notes.txt"), "mine").unwrap();
    world.run(&["sweep"]).succeeds();
    world.run(&["sweep"]).succeeds();
    assert_eq!(names_in(&world.path("events")).len(), 2);
    world.set("events_max_bytes", "0");
    world.run(&["sweep"]).succeeds();
    assert_eq!(names_in(&world.path("events")), ["notes.txt"]);
    // The watcher and its runner had the old file open.
    let task = world.submit(&["works"]);
    world.result_of(&task);
    world.wait_until("the end is reported", || {
        let all = events(&world, &["--task", &task.id]);
        words(&all) == ["accepted", "started", "completed"]
    });
}

#[test]
fn a_task_completes_when_its_events_cannot_be_written() {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    world.run(&["pause"]).succeeds();
    let file = world
        .path("events")
        .join(&names_in(&world.path("events"))[0]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    world.run(&["resume"]).succeeds();
    let task = world.submit(&["works"]);
    assert_eq!(world.result_of(&task)["status"], "completed");
    world.wait_until("the status is completed", || {
        read_json(&task.path.join("status.json"))["status"] == "completed"
    });
}

#[test]
fn the_newest_events_of_a_day_stay_when_it_has_too_many() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    world.run(&["pause"]).succeeds();
    let file = world
        .path("events")
        .join(&names_in(&world.path("events"))[0]);
    let filler = format!(
        "{{\"event\": \"filler\", \"message\": \"{}\"}}\n",
        "x".repeat(400)
    );
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.push_str(&filler.repeat(2000));
    std::fs::write(&file, &text).unwrap();
    world.run(&["resume"]).succeeds();
    let before = events(&world, &[]);
    let cursor = before[before.len() - 2]["cursor"].as_str().unwrap();
    world.set("events_max_bytes", "65536");
    for _ in 0..3 {
        world.run(&["sweep"]).succeeds();
    }
    let kept = events(&world, &[]);
    let words = words(&kept);
    assert_eq!(words.last().map(|word| &**word), Some("resumed"));
    assert_eq!(words[0], "filler");
    let most = 65536 / filler.len() + 1;
    assert!((most - 2..=most).contains(&words.len()), "{}", words.len());
    assert!(std::fs::metadata(&file).unwrap().blocks() * 512 < 65536 + 8192);
    // A reader at this cursor continues, and so do writers.
    world.run(&["pause"]).succeeds();
    let ran = world.run(&["events", "--json", "--after", cursor]);
    assert_eq!(ran.stderr, "");
    assert_eq!(objects(&ran).len(), 2);
    let old = before[5]["cursor"].as_str().unwrap();
    let ran = world.run(&["events", "--json", "--after", old]);
    assert!(ran.stderr.contains("were removed"), "{}", ran.stderr);
}

/// A hole longer than any reader reads.
#[test]
fn a_hole_in_a_file_of_events_is_skipped() {
    use std::io::{Seek, SeekFrom, Write};
    let world = World::new();
    world.run(&["pause"]).succeeds();
    let mut file = std::fs::File::create(world.path("events/2020-01-01.jsonl")).unwrap();
    file.write_all(b"{\"event\": \"first\"}\n{\"event\":")
        .unwrap();
    file.seek(SeekFrom::Start(1 << 40)).unwrap();
    file.write_all(b"\n{\"event\": \"second\"}\n").unwrap();
    file.set_len(1 << 41).unwrap();
    assert_eq!(words(&events(&world, &[])), ["first", "second", "paused"]);
}
