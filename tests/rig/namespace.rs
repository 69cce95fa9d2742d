//! A spool seen from two pid namespaces, as by containers and their host. Needs root for `unshare`.

use std::process::Command;

use crate::support::{PROGRAM, World};

#[test]
fn a_watcher_from_another_pid_namespace_stops_no_session() {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.set("autostart", "false");
    world.start_watcher();
    // It compares the hints, writes down that it did, and is gone.
    let other = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            PROGRAM,
            "watch",
            "--drain",
        ])
        .env("AGENTSPOOL_DIR", world.spool())
        .status()
        .unwrap();
    assert!(other.success());
    let first = world.submit(&["ok", "--session-id", "chat"]);
    let second = world.submit(&["ok", "--session-id", "chat"]);
    for task in [&first, &second] {
        assert_eq!(world.result_of(task)["output"], "fine");
    }
}
