//! The fields that our own log gives to the journal.
//!
//! In a mount namespace of its own, where a socket of the test is in the place of the journal's socket. A
//! whole systemd runs in `tests/systemd`. Checked: the entries follow the journal's protocol and contain
//! `TASK_ID=`, `RECIPE=` and `SESSION_ID=`.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use crate::support::{PROGRAM, Ran, World};

/// Runs the program with the journal as its stderr, as in a unit.
fn under_journal(world: &World, socket: &std::path::Path, arguments: &str) -> Ran {
    let script = format!(
        "set -e\nmount -t tmpfs none /run\nmkdir -p /run/systemd/journal\n\
         touch /run/systemd/journal/socket\nmount --bind '{}' /run/systemd/journal/socket\n\
         exec 2>>'{}'\nexport JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)\n\
         exec '{PROGRAM}' {arguments}\n",
        socket.display(),
        world.root().join("stderr").display(),
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script])
        .env("AGENTSPOOL_DIR", world.spool());
    Ran::of(&mut command)
}

/// The entries that arrived, each as its fields.
fn entries(journal: &UnixDatagram) -> Vec<HashMap<String, String>> {
    let mut entries = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = journal.recv(&mut buffer) {
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        let fields = text.lines().map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        entries.push(fields.collect());
    }
    entries
}

#[test]
fn each_transition_is_an_entry_with_fields() {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cleanup_delay_sec", "0");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    let socket = world.root().join("journal");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_nonblocking(true).unwrap();
    let task = world.submit(&["ok", "--session-id", "chat"]);
    under_journal(&world, &socket, "watch --drain").succeeds();
    world.wait_until("no process holds it", || world.processes().is_empty());
    world.run(&["sweep"]).succeeds();
    under_journal(&world, &socket, "sweep").succeeds();
    assert!(!task.path.exists());

    let entries = entries(&journal);
    let of_task = entries.iter().filter(|entry| entry.contains_key("TASK_ID"));
    let mut words = Vec::new();
    for entry in of_task {
        let message = &entry["MESSAGE"];
        let word = message.split(' ').next().unwrap();
        words.push(word);
        assert!(
            message.starts_with(&format!("{word} task={} recipe=ok ", task.id)),
            "{message}"
        );
        for (field, value) in [
            ("TASK_ID", task.id.as_str()),
            ("RECIPE", "ok"),
            ("SESSION_ID", "chat"),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "agentspool"),
        ] {
            assert_eq!(entry[field], value, "{entry:?}");
        }
    }
    assert_eq!(words, ["started", "completed", "swept"], "{entries:?}");
    let stderr = std::fs::read_to_string(world.root().join("stderr")).unwrap();
    assert_eq!(stderr, "", "nothing is logged twice");
}

#[test]
fn a_journal_that_hangs_stops_no_task() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    let socket = world.root().join("journal");
    // No process reads from the socket, and its queue is full long before the tasks are finished.
    let journal = UnixDatagram::bind(&socket).unwrap();
    let batch = "{\"recipe\": \"ok\"}\n".repeat(700);
    let submitted = world.run_with_stdin(&["submit", "--batch", "-"], batch.as_bytes());
    submitted.succeeds();
    under_journal(&world, &socket, "watch --drain").succeeds();
    let tasks = world.tasks();
    assert!(tasks.iter().all(|task| task.result()["output"] == "fine"));
    // What the journal did not take is in the file that is stderr here: nothing is lost.
    journal.set_nonblocking(true).unwrap();
    let taken = entries(&journal);
    let stderr = std::fs::read_to_string(world.root().join("stderr")).unwrap();
    let ends = |text: &str| text.starts_with("completed task=");
    let logged = taken.iter().filter(|entry| ends(&entry["MESSAGE"])).count()
        + stderr.lines().filter(|line| ends(line)).count();
    assert_eq!(logged, 700);
    assert!(!taken.is_empty() && !stderr.is_empty());
}
