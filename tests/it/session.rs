//! Sessions: their tasks run one after another in the order of submission, whichever watcher runs them, and
//! share a folder.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::{Task, World, names_in, processes::is_alive};

/// Records its start and its end in `log`, a file that all tasks of a test share. A task that overlaps with
/// another one records that as well.
fn noting(log: &Path) -> String {
    let log = log.display();
    format!(
        "#!/bin/sh\n\
         mkdir \"$AGENTSPOOL_SESSION_DIR/busy\" 2>/dev/null || echo overlap >>{log}\n\
         echo start $AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT >>{log}\n\
         sleep 0.02\n\
         echo end $AGENTSPOOL_TASK_ID >>{log}\n\
         rmdir \"$AGENTSPOOL_SESSION_DIR/busy\"\n"
    )
}

fn world_with_log() -> (World, PathBuf) {
    let world = World::new();
    world.set("autostart", "false");
    let log = world.root().join("log");
    (world, log)
}

fn submit_chain(world: &World, recipe: &str, session: &str, count: usize) -> Vec<Task> {
    (0..count)
        .map(|_| world.submit(&[recipe, "--session-id", session]))
        .collect()
}

#[track_caller]
fn assert_in_order(log: &Path, tasks: &[Task]) {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains("overlap"), "{text}");
    let starts: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("start ")?.split(' ').next())
        .collect();
    let expected: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(starts, expected, "{text}");
}

#[test]
fn two_watchers_keep_the_order_of_a_session() {
    let (world, log) = world_with_log();
    world.recipe("notes", &noting(&log));
    let tasks = submit_chain(&world, "notes", "chat", 12);
    world.start_watcher();
    world.start_watcher();
    for task in &tasks {
        assert_eq!(world.result_of(task)["status"], "completed");
    }
    assert_in_order(&log, &tasks);
}

#[test]
fn the_order_is_kept_when_one_of_two_watchers_is_killed() {
    let (world, log) = world_with_log();
    world.recipe("notes", &noting(&log));
    let tasks = submit_chain(&world, "notes", "chat", 12);
    let first = world.start_watcher();
    world.wait_for_lines(&log, 3);
    world.start_watcher();
    world.kill_watcher(first);
    for task in &tasks {
        assert_eq!(world.result_of(task)["status"], "completed");
    }
    assert_in_order(&log, &tasks);
}

#[test]
fn a_killed_runner_does_not_change_the_order() {
    let (world, log) = world_with_log();
    world.recipe_folder(
        "stays",
        "on_lost = \"requeue\"",
        &format!(
            "#!/bin/sh\necho start $AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT >>{}\n\
             touch ready\n[ $AGENTSPOOL_ATTEMPT = 2 ] || exec sleep 1000\n",
            log.display()
        ),
    );
    world.recipe("notes", &noting(&log));
    let first = world.submit(&["stays", "--session-id", "chat"]);
    let second = world.submit(&["notes", "--session-id", "chat"]);
    world.start_watcher();
    world.start_watcher();
    world.wait_for_file(&first.work(1, "ready"));
    let (runner, _) = world.processes_of(&first, 1);
    world.signal(runner, Signal::KILL);
    world.wait_until("the runner has exited", || !is_alive(runner));
    assert_eq!(world.result_of(&second)["status"], "completed");
    let text = std::fs::read_to_string(&log).unwrap();
    let starts: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("start"))
        .collect();
    let expected = [
        format!("start {} 1", first.id),
        format!("start {} 2", first.id),
        format!("start {} 1", second.id),
    ];
    assert_eq!(starts, expected);
}

#[test]
fn tasks_of_a_parallel_session_and_of_different_sessions_overlap() {
    let (world, _) = world_with_log();
    // Each task waits until the other one is there: they end only if they run at the same time.
    let meets = "#!/bin/sh\ntouch \"$MEETING/$AGENTSPOOL_TASK_ID\"\n\
                 while [ \"$(ls \"$MEETING\" | wc -l)\" -lt 2 ]; do sleep 0.01; done\n";
    for (recipe, session, sessions) in [
        ("together", "parallel", ["chat", "chat"]),
        ("apart", "serial", ["one", "two"]),
    ] {
        let meeting = world.root().join(format!("meeting-{recipe}"));
        std::fs::create_dir(&meeting).unwrap();
        let manifest = format!(
            "session = \"{session}\"\n[env]\nMEETING = \"{}\"",
            meeting.display()
        );
        world.recipe_folder(recipe, &manifest, meets);
        let tasks = sessions.map(|session| world.submit(&[recipe, "--session-id", session]));
        let watcher = world.start_watcher();
        for task in &tasks {
            assert_eq!(world.result_of(task)["status"], "completed", "{recipe}");
        }
        world.kill_watcher(watcher);
    }
}

#[test]
fn a_task_that_a_task_submits_to_its_own_session_runs_after_it() {
    let (world, log) = world_with_log();
    world.recipe("notes", &noting(&log));
    world.recipe(
        "orders",
        &format!(
            "#!/bin/sh\n\
             agentspool --quiet submit --recipe notes --session-id \"$AGENTSPOOL_SESSION_ID\" || exit 9\n\
             sleep 0.2\necho end-of-first >>{log}\necho kept >\"$AGENTSPOOL_SESSION_DIR/kept\"\n",
            log = log.display()
        ),
    );
    let first = world.submit(&["orders"]);
    world.start_watcher();
    let result = world.result_of(&first);
    assert_eq!(
        result["status"],
        "completed",
        "{}",
        first.read("attempts/1/stderr.log")
    );
    let second = world.task(result["output"].as_str().unwrap());
    assert_eq!(world.result_of(&second)["status"], "completed");
    assert_eq!(
        first.request()["session_id"],
        second.request()["session_id"]
    );
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("end-of-first\nstart"), "{text}");
    let session = first.request()["session_id"].as_str().unwrap().to_owned();
    let kept = world.path(&format!("sessions/{session}/state/kept"));
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "kept\n");
}

#[test]
fn the_next_task_finds_the_sessions_files_and_an_empty_folder_is_removed() {
    let (world, _) = world_with_log();
    world.recipe(
        "counts",
        "#!/bin/sh\ncd \"$AGENTSPOOL_SESSION_DIR\"\necho x >>count\nwc -l <count\n",
    );
    world.recipe("nothing", "#!/bin/sh\nexit 0\n");
    let tasks = submit_chain(&world, "counts", "chat", 3);
    let alone = world.submit(&["nothing"]);
    let chatter = world.submit(&["nothing", "--session-id", "silent"]);
    world.start_watcher();
    for (n, task) in tasks.iter().enumerate() {
        assert_eq!(world.result_of(task)["output"], n + 1);
    }
    world.result_of(&alone);
    world.result_of(&chatter);
    let made = alone.request()["session_id"].as_str().unwrap().to_owned();
    world.wait_until("the folder of the unnamed session is removed", || {
        !world.path(&format!("sessions/{made}")).exists()
    });
    world.wait_until("the state of the silent session is removed", || {
        !world.path("sessions/silent/state").exists()
    });
    assert!(world.path("sessions/chat/state/count").exists());
}

/// The folder is empty when the first task ends, but the second task still uses it.
#[test]
fn a_session_folder_in_use_is_not_removed_while_it_is_empty() {
    let (world, _) = world_with_log();
    let gate = world.root().join("gate");
    world.recipe_folder(
        "waits",
        &format!(
            "session = \"parallel\"\n[env]\nGATE = \"{}\"",
            gate.display()
        ),
        "#!/bin/sh\ntouch ready\nwhile [ ! -e \"$GATE\" ]; do sleep 0.01; done\n\
         echo late >\"$AGENTSPOOL_SESSION_DIR/late\"\n",
    );
    world.recipe_folder("quick", "session = \"parallel\"", "#!/bin/sh\nexit 0\n");
    let slow = world.submit(&["waits", "--session-id", "chat"]);
    world.start_watcher();
    world.wait_for_file(&slow.work(1, "ready"));
    let quick = world.submit(&["quick", "--session-id", "chat"]);
    world.result_of(&quick);
    // The folder is checked after the result: when the index entry is removed, everything is done.
    world.wait_until("the quick task is finalized", || {
        !names_in(&world.path("open")).contains(&quick.id)
    });
    let ran_at_once = world.submit(&["quick", "--session-id", "chat"]);
    world.result_of(&ran_at_once);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(world.result_of(&slow)["status"], "completed");
    assert!(world.path("sessions/chat/state/late").exists());
}
