//! Processes that a recipe leaves when it ends by itself, and what its processes used.
//!
//! Not a cancellation or a deadline (`stop.rs`), and not the processes of a killed runner (`recover.rs`).
//! Invariant: the last output of a process that holds the task's output is kept. Every other process gets
//! TERM at once. The number of processes that were ended is reported.

use std::time::{Duration, Instant};

use crate::support::{Task, World};

fn run(world: &World, script: &str) -> Task {
    world.recipe("left", script);
    let task = world.submit(&["left"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    task
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world
}

#[test]
fn the_last_lines_of_a_slow_reader_are_kept() {
    let world = world();
    // As with `exec > >(tee log)`: the shell ends, and its reader still has all of the output.
    let task = run(
        &world,
        "#!/bin/sh\nmkfifo pipe\n(sleep 0.4; cat) <pipe &\nexec >pipe\necho the last line\n",
    );
    let result = task.result();
    assert_eq!(result["output"], "the last line");
    assert_eq!(
        result["metrics"].get("leftover_processes"),
        None,
        "{result}"
    );
}

#[test]
fn a_process_without_the_output_is_ended_at_once_and_counted() {
    let world = world();
    world.set("leftover_wait_sec", "60");
    let started = Instant::now();
    let script = "#!/bin/sh\n(sleep 1000 >/dev/null 2>&1 &)\n\
                  (setsid sleep 1000 >/dev/null 2>&1 &)\nsleep 0.1\n";
    world.recipe("left", script);
    let task = world.submit(&["left"]);
    let ran = world.run(&["-v", "runner", "--once", &task.id]);
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "the command waited for the processes"
    );
    assert_eq!(task.result()["metrics"]["leftover_processes"], 2);
    assert!(
        ran.stderr
            .contains("ended 2 processes that the recipe left behind"),
        "{}",
        ran.stderr
    );
    assert_eq!(task.processes(), Vec::<i32>::new());
}

#[test]
fn a_process_that_keeps_the_output_open_is_ended_after_the_wait() {
    let world = world();
    world.set("leftover_wait_sec", "0.2");
    let task = run(&world, "#!/bin/sh\nsleep 1000 &\necho done\n");
    let result = task.result();
    assert_eq!(result["output"], "done");
    assert_eq!(result["metrics"]["leftover_processes"], 1);
    assert_eq!(task.processes(), Vec::<i32>::new());
}

#[test]
fn a_cancellation_ends_the_wait_for_leftover_processes() {
    let world = world();
    world.set("leftover_wait_sec", "60");
    world.recipe("left", "#!/bin/sh\nsleep 1000 &\ntouch ended\n");
    let task = world.submit(&["left"]);
    world.start_watcher();
    world.wait_for_file(&task.work(1, "ended"));
    world.run(&["cancel", &task.id]);
    // The recipe had ended by itself, so the result is that end.
    assert_eq!(task.result()["status"], "completed");
    assert_eq!(task.processes(), Vec::<i32>::new());
}

#[test]
fn resource_use_is_measured() {
    let world = world();
    // Some work, in a child that is waited for.
    let script = "#!/bin/sh\nsh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done'\n";
    let metrics = run(&world, script).result()["metrics"].clone();
    let used = metrics["cpu_seconds"].as_f64().unwrap();
    assert!(used > 0.0 && used < 60.0, "{metrics}");
    let peak = metrics["peak_rss_bytes"].as_u64().unwrap();
    assert!((100 << 10..1 << 30).contains(&peak), "{metrics}");
}
