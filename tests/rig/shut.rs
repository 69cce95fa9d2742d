//! A spool whose path cannot be read for a while, because a folder above it is shut.
//!
//! Needs a spool of another user, because modes do not stop root. Invariant: nothing is started, nothing
//! fails and nothing is refused until the path can be read again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::group::{GROUP, OWNER, Shared};

#[test]
fn a_folder_above_that_is_shut_fails_no_task_and_refuses_no_drop() {
    let shared = Shared::new();
    shared.recipe(
        "gate",
        "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.02; done\n",
    );
    let set = ["config", "set", "max_concurrent", "1"];
    shared.run(OWNER, &set).succeeds();
    let mut watching = shared.watcher();
    let world = &shared.world;
    let gate = shared.json(OWNER, &["submit", "--recipe", "gate"]);
    let tasks = shared.spool().join("tasks");
    let gate = tasks.join(gate["task_id"].as_str().unwrap());
    world.wait_for_file(&gate.join("attempts/1/run.json"));
    let waiting = tasks.join(shared.submit(OWNER, &[]));
    let above = shared.spool().parent().unwrap().to_owned();
    chown(&above, Some(0), Some(0)).unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).unwrap();
    let drop = shared.spool().join("incoming/new.json");
    fs::write(&drop, "{\"recipe\": \"echo\"}").unwrap();
    chown(&drop, Some(OWNER), Some(GROUP)).unwrap();
    fs::write(gate.join("attempts/1/work/go"), "").unwrap();
    // The task was next, and the drop was checked.
    world.wait_for_file(&gate.join("result.json"));
    world.wait_until("the drop waits", || watching.log().contains("drops wait"));
    assert!(watching.is_alive(), "{}", watching.log());
    fs::set_permissions(&above, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&above, Some(OWNER), Some(GROUP)).unwrap();
    world.wait_for_file(&waiting.join("result.json"));
    let status = fs::read_to_string(waiting.join("result.json")).unwrap();
    assert!(status.contains("\"completed\""), "{status}");
    watching.answers("new", "{}\n");
    let refused = crate::support::names_in(&shared.spool().join("rejected"));
    assert!(refused.is_empty(), "{refused:?}");
}
