//! An idle watcher: while it can start no task, it takes almost no processor time.

use crate::support::World;

/// Processor time a process has used, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_full_watcher_does_not_spin_while_a_task_waits_for_its_session() {
    let world = World::new();
    world.set("autostart", "false");
    world.set("max_concurrent", "2");
    world.recipe("long", "#!/bin/sh\nexec sleep 60\n");
    let first = world.submit(&["long", "--session-id", "chat"]);
    let second = world.submit(&["long", "--session-id", "chat"]);
    let other = world.submit(&["long"]);
    let watcher = world.start_watcher();
    world.wait_running(&first);
    world.wait_running(&other);

    // Nothing can be waited for here, so this one test measures for a fixed time.
    let before = ticks(watcher);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = ticks(watcher) - before;
    assert!(used < 30, "{used} ticks in a second");
    assert_eq!(second.status()["status"], "pending");
}
