//! Commands that wait for a task report its removal and do not wait forever.

use std::process::Stdio;

use crate::support::World;

#[test]
fn waiting_and_following_end_when_the_task_is_removed() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("any", "#!/bin/sh\n");
    let waiting = world
        .command(&["submit", "--recipe", "any", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    world.wait_until("the task is there", || !world.tasks().is_empty());
    let task = world.only_task();
    let following = world
        .command(&["logs", "-f", &task.id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The follower holds the folder open once it has found the task.
    world.wait_until("the follower has started", || {
        let fds = format!("/proc/{}/fd", following.id());
        let open = std::fs::read_dir(fds).unwrap();
        open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .any(|file| file.ends_with(&task.id))
    });

    std::fs::rename(&task.path, world.root().join("elsewhere")).unwrap();
    for child in [waiting, following] {
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{message}");
        assert!(message.contains("removed"), "{message}");
    }
}
