//! A spool that is moved or removed while it is in use: its watchers exit, and no task fails.

use std::path::{Path, PathBuf};

use crate::support::processes::is_alive;
use crate::support::{Task, World};

/// Watchers without rescans: they notice only what they are notified of.
fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("rescan_sec", "300");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe(
        "gate",
        "#!/bin/sh\ntouch ready\nwhile [ ! -e go ]; do sleep 0.02; done\necho fine\n",
    );
    world
}

fn log(world: &World) -> String {
    std::fs::read_to_string(world.root().join("watch.log")).unwrap_or_default()
}

fn watchers_and_runners(world: &World) -> Vec<(i32, String)> {
    let mut all = world.processes();
    all.retain(|(_, command)| command.contains("runner") || command.contains("watch"));
    all
}

fn at(spool: &Path, task: &Task) -> Task {
    Task {
        path: spool.join("tasks").join(&task.id),
        id: task.id.clone(),
    }
}

/// Removes the spool. A process of it may create a file in a folder that was just emptied.
fn remove(world: &World) {
    world.wait_until("the spool is removed", || {
        std::fs::remove_dir_all(world.spool()).is_ok() || !world.spool().exists()
    });
}

#[test]
fn a_watcher_exits_when_its_spool_is_moved_and_tasks_continue_there() {
    let world = world();
    world.set("max_concurrent", "1");
    let watcher = world.start_watcher() as i32;
    let running = world.submit(&["gate"]);
    world.wait_for_file(&running.work(1, "ready"));
    let waiting = world.submit(&["ok"]);
    let new = world.root().join("new");
    std::fs::rename(world.spool(), &new).unwrap();
    world.wait_until("the watcher exits", || !is_alive(watcher));
    assert!(log(&world).contains("moved or removed"), "{}", log(&world));
    let (running, waiting) = (at(&new, &running), at(&new, &waiting));
    assert!(!waiting.has_result() && !running.has_result());
    // The task's runner still runs, and a new watcher waits for it.
    let spool = new.to_str().unwrap();
    let rescan = "rescan_sec=0.2";
    let drain = world.start(&["--spool", spool, "--set", rescan, "watch", "--drain"]);
    std::fs::write(running.work(1, "go"), "").unwrap();
    assert_eq!(world.result_of(&running)["output"], "fine");
    assert_eq!(world.result_of(&waiting)["output"], "fine");
    drain.end().succeeds();
    assert_eq!(running.attempts(), 1);
    world.wait_until("every runner exits", || {
        watchers_and_runners(&world).is_empty()
    });
}

#[test]
fn a_moved_parent_folder_fails_no_task() {
    let world = World::without_spool();
    let above = world.root().join("a/b");
    std::fs::create_dir_all(&above).unwrap();
    let spool = above.join("spool");
    let on = |spool: &Path, arguments: &[&str]| {
        let mut all = vec!["--spool", spool.to_str().unwrap()];
        all.extend(arguments);
        world.run(&all)
    };
    on(&spool, &["init"]).succeeds();
    for (key, value) in [("autostart", "false"), ("rescan_sec", "0.2")] {
        on(&spool, &["config", "set", key, value]).succeeds();
    }
    let recipe = spool.join("recipes/ok");
    std::fs::write(&recipe, "#!/bin/sh\necho fine\n").unwrap();
    std::fs::set_permissions(&recipe, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let watch = world.start(&["--spool", spool.to_str().unwrap(), "watch"]);
    world.wait_until("the watcher runs", || {
        std::fs::read_dir(spool.join("watchers")).is_ok_and(|all| all.count() > 0)
    });
    std::fs::rename(world.root().join("a"), world.root().join("c")).unwrap();
    let moved: PathBuf = world.root().join("c/b/spool");
    let id = on(&moved, &["submit", "--recipe", "ok", "--quiet"]).stdout;
    watch.end().succeeds();
    let result = moved.join("tasks").join(id.trim()).join("result.json");
    assert!(!result.exists());
    on(&moved, &["watch", "--drain"]).succeeds();
    assert!(result.exists());
}

#[test]
fn watchers_and_runners_exit_when_the_spool_is_removed() {
    let world = world();
    let watcher = world.start_watcher() as i32;
    let task = world.submit(&["ok"]);
    world.result_of(&task);
    remove(&world);
    world.wait_until("the watcher exits", || !is_alive(watcher));
    world.wait_until("its idle runner exits", || {
        watchers_and_runners(&world).is_empty()
    });
    assert!(!world.spool().exists());
}

#[test]
fn a_runner_exits_when_the_spool_is_removed_during_its_task() {
    let world = world();
    let go = world.root().join("go");
    let script = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.02; done\n",
        go.display()
    );
    world.recipe("slow", &script);
    let watcher = world.start_watcher() as i32;
    let task = world.submit(&["slow"]);
    world.wait_running(&task);
    remove(&world);
    std::fs::write(&go, "").unwrap();
    world.wait_until("the watcher exits", || !is_alive(watcher));
    world.wait_until("the runner exits", || {
        watchers_and_runners(&world).is_empty()
    });
}

#[test]
fn a_runner_starts_no_task_in_a_moved_spool() {
    let world = world();
    let task = world.submit(&["ok"]);
    let new = world.root().join("new");
    // The runner has the spool open, and gets its command after the move.
    let mut runner = world
        .command(&["runner"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = runner.id();
    world.wait_until("it waits for commands", || {
        let stack = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "agentspool" && stack.contains("poll")
    });
    std::fs::rename(world.spool(), &new).unwrap();
    let mut commands = runner.stdin.take().unwrap();
    std::io::Write::write_all(&mut commands, format!("run {}\n", task.id).as_bytes()).unwrap();
    let output = runner.wait_with_output().unwrap();
    drop(commands);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "retry soon no-starts\n"
    );
    assert!(!at(&new, &task).has_result());
    assert_eq!(at(&new, &task).attempts(), 0);
}
