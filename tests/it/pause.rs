//! Paused spools: no task starts, everything else goes on, and commands report the pause.

use serde_json::json;

use crate::support::World;

/// Watchers without rescans: they notice only what they are notified of.
fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("rescan_sec", "300");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe(
        "gate",
        "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.02; done\n",
    );
    world
}

fn log(world: &World) -> String {
    std::fs::read_to_string(world.root().join("watch.log")).unwrap_or_default()
}

#[test]
fn no_task_starts_until_the_spool_is_resumed() {
    let world = world();
    world.start_watcher();
    let running = world.submit(&["gate"]);
    world.wait_running(&running);
    assert_eq!(
        world.json(&["pause"]),
        json!({"ok": true, "paused": true, "changed": true})
    );
    world.wait_until("the watcher logs it", || log(&world).contains("resume"));
    let submitted = world.run(&["submit", "--recipe", "ok"]);
    submitted.succeeds();
    assert!(submitted.stderr.contains("paused") && submitted.stderr.contains("resume"));
    let waiting = world.tasks().pop().unwrap();
    world.drop_in("dropped.json", "{\"recipe\": \"ok\"}");
    world.wait_until("the drop is a task", || world.tasks().len() == 3);
    for command in [
        &["status", &waiting.id][..],
        &["wait", &waiting.id, "--timeout", "0.1"],
    ] {
        let printed = world.run(command).stderr;
        assert!(
            printed.contains("the spool is paused"),
            "{command:?}: {printed}"
        );
        assert_eq!(
            printed.matches("the spool is paused").count(),
            1,
            "{printed}"
        );
    }
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("paused: "), "{}", doctor.stdout);
    // The running task goes on, and the pending one can be cancelled.
    std::fs::write(running.work(1, "go"), "").unwrap();
    assert_eq!(world.result_of(&running)["status"], "completed");
    world.run(&["cancel", &waiting.id]).succeeds();
    assert_eq!(world.result_of(&waiting)["status"], "cancelled");
    let dropped = world.tasks().pop().unwrap();
    assert!(!dropped.has_result());
    assert_eq!(world.json(&["resume"])["changed"], true);
    assert_eq!(world.result_of(&dropped)["status"], "completed");
    assert_eq!(world.json(&["resume"])["changed"], false);
    assert!(!world.run(&["doctor"]).stdout.contains("paused: "));
}

#[test]
fn the_file_paused_can_be_created_and_removed_by_hand() {
    let world = world();
    world.start_watcher();
    std::fs::write(world.path("paused"), "").unwrap();
    world.wait_until("the watcher logs it", || log(&world).contains("resume"));
    let task = world.submit(&["ok"]);
    // A marker created by hand, which the watcher finds at its next rescan.
    let other = world.submit(&["ok"]);
    std::fs::write(other.path.join("cancel"), "").unwrap();
    world.set("rescan_sec", "0.1");
    let drained = world.run(&["watch", "--drain"]);
    drained.succeeds();
    assert_eq!(world.result_of(&other)["status"], "cancelled");
    assert!(!task.has_result());
    std::fs::remove_file(world.path("paused")).unwrap();
    assert_eq!(world.result_of(&task)["status"], "completed");
}

#[test]
fn a_drain_of_a_paused_spool_exits_and_reports_waiting_tasks() {
    let world = world();
    let task = world.submit(&["ok"]);
    world.submit(&["ok"]);
    world.run(&["pause"]).succeeds();
    assert_eq!(world.json(&["pause"])["changed"], false);
    let drained = world.run(&["watch", "--drain"]);
    drained.succeeds();
    assert!(
        drained.stderr.contains("2 tasks wait"),
        "{}",
        drained.stderr
    );
    let drained = world.json(&["watch", "--drain"]);
    assert_eq!(drained["waiting"], 2, "{drained}");
    // A runner that is started by hand starts no task either.
    world.run(&["runner", "--once", &task.id]).ends_with(75);
    assert_eq!(task.attempts(), 0);
}

#[test]
fn resume_starts_a_watcher_if_tasks_wait() {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.set("autostart", "false");
    let task = world.submit(&["ok"]);
    world.run(&["pause"]).succeeds();
    world.set("autostart", "true");
    world.run(&["resume"]).succeeds();
    assert_eq!(world.result_of(&task)["status"], "completed");
}
