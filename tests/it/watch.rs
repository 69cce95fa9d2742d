//! The watcher may be killed at any moment, two may watch one spool, and an idle one costs almost nothing.
//!
//! Limits and order are tested with two watchers and again after one was killed: their state must not be in
//! the memory of a process.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::processes::{is_alive, ticks};
use crate::support::{Task, World, names_in};

/// A recipe that runs until the file `gate` is in the world's root, then exits with 7.
fn gate_recipe(world: &World, name: &str) -> std::path::PathBuf {
    let gate = world.root().join("gate");
    world.recipe(
        name,
        &format!(
            "#!/bin/sh\ntouch ready\nwhile [ ! -e {} ]; do sleep 0.01; done\nexit 7\n",
            gate.display()
        ),
    );
    gate
}

/// A recipe that records every start in `log` and the number of tasks that run at once in `peaks`: each task
/// has a folder of its own while it runs and counts the folders.
fn counting_script(world: &World) -> String {
    let root = world.root().display();
    std::fs::create_dir_all(world.root().join("running")).unwrap();
    format!(
        "#!/bin/sh\nmkdir {root}/running/$AGENTSPOOL_TASK_ID || echo twice >>{root}/log\n\
         echo $AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT >>{root}/log\n\
         ls {root}/running | wc -l >>{root}/peaks\nsleep 0.02\n\
         ls {root}/running | wc -l >>{root}/peaks\n\
         rmdir {root}/running/$AGENTSPOOL_TASK_ID\n"
    )
}

fn quiet_world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world
}

fn submit_many(world: &World, recipe: &str, count: usize) -> Vec<Task> {
    let line = format!("{{\"recipe\": \"{recipe}\"}}\n");
    let ran = world.run_with_stdin(&["submit", "--batch", "-"], line.repeat(count).as_bytes());
    ran.succeeds();
    let tasks: Vec<Task> = ran.stdout.lines().map(|id| world.task(id)).collect();
    assert_eq!(tasks.len(), count);
    tasks
}

#[track_caller]
fn assert_each_ran_once(world: &World, tasks: &[Task]) {
    for task in tasks {
        let result = world.result_of(task);
        assert_eq!(result["status"], "completed", "{result}");
        assert_eq!(result["attempt"], 1);
        assert_eq!(task.attempts(), 1);
    }
    let text = std::fs::read_to_string(world.root().join("log")).unwrap();
    let mut ran: Vec<&str> = text.lines().collect();
    ran.sort_unstable();
    let expected: Vec<String> = tasks.iter().map(|task| format!("{} 1", task.id)).collect();
    assert_eq!(ran, expected);
}

#[track_caller]
fn assert_never_more_than(world: &World, limit: usize) {
    let text = std::fs::read_to_string(world.root().join("peaks")).unwrap();
    let peak = text
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .max();
    assert!(peak <= Some(limit), "{peak:?} ran at once, {limit} may");
}

#[test]
fn tasks_survive_a_killed_watcher_and_the_next_one_continues() {
    for signal in [Signal::KILL, Signal::TERM] {
        let world = quiet_world();
        world.set("max_concurrent", "2");
        let gate = gate_recipe(&world, "gated");
        let tasks = submit_many(&world, "gated", 4);
        let watcher = world.start_watcher();
        for task in &tasks[..2] {
            world.wait_for_file(&task.work(1, "ready"));
        }
        let runners = world.runners();
        assert_eq!(runners.len(), 2, "{}", world.describe());
        world.signal(watcher as i32, signal);
        world.wait_until("the watcher has exited", || !is_alive(watcher as i32));
        std::fs::write(&gate, "").unwrap();
        for task in &tasks[..2] {
            let result = world.result_of(task);
            assert_eq!(result["exit_code"], 7, "{signal:?}: {result}");
            assert_eq!(result["error"]["kind"], "exit");
        }
        world.wait_until("its runners exit", || {
            runners.iter().all(|pid| !is_alive(*pid))
        });
        assert!(!tasks[2].has_result(), "no watcher is there to run it");
        world.start_watcher();
        for task in &tasks[2..] {
            assert_eq!(world.result_of(task)["exit_code"], 7);
        }
        assert!(tasks.iter().all(|task| task.attempts() == 1));
    }
}

/// The reader of the watcher's stderr is gone: the runners' output is lost and does no harm.
#[test]
fn a_runner_whose_stderr_is_broken_finishes_its_task() {
    let world = quiet_world();
    let gate = gate_recipe(&world, "gated");
    let task = world.submit(&["gated"]);
    let mut watcher = world
        .command(&["watch"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    world.wait_for_file(&task.work(1, "ready"));
    drop(watcher.stderr.take());
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    std::fs::write(&gate, "").unwrap();
    assert_eq!(world.result_of(&task)["exit_code"], 7);
    world.wait_until("the status is failed", || {
        task.status()["status"] == "failed"
    });
}

#[test]
fn two_watchers_run_each_task_once_and_keep_the_limit() {
    let world = quiet_world();
    world.set("max_concurrent", "3");
    world.recipe("counts", &counting_script(&world));
    let mut tasks = submit_many(&world, "counts", 40);
    world.start_watcher();
    world.start_watcher();
    // Some more while both watchers run.
    tasks.extend(submit_many(&world, "counts", 20));
    assert_each_ran_once(&world, &tasks);
    assert_never_more_than(&world, 3);
}

#[test]
fn the_limit_is_kept_when_one_of_two_watchers_is_killed() {
    let world = quiet_world();
    world.set("max_concurrent", "3");
    world.recipe("counts", &counting_script(&world));
    let tasks = submit_many(&world, "counts", 60);
    let first = world.start_watcher();
    world.start_watcher();
    world.wait_for_lines(&world.root().join("log"), 10);
    world.kill_watcher(first);
    assert_each_ran_once(&world, &tasks);
    assert_never_more_than(&world, 3);
}

#[test]
fn the_limit_of_a_recipe_holds_over_two_watchers_and_delays_no_other_recipe() {
    let world = quiet_world();
    world.recipe_folder("counts", "max_concurrent = 2", &counting_script(&world));
    world.recipe("other", "#!/bin/sh\nexit 0\n");
    let tasks = submit_many(&world, "counts", 30);
    let other = world.submit(&["other"]);
    let first = world.start_watcher();
    world.start_watcher();
    assert_eq!(world.result_of(&other)["status"], "completed");
    world.wait_for_lines(&world.root().join("log"), 5);
    world.kill_watcher(first);
    assert_each_ran_once(&world, &tasks);
    assert_never_more_than(&world, 2);
}

/// The slots of tasks that started under a higher limit count as well.
#[test]
fn a_lowered_limit_holds_while_earlier_tasks_still_run() {
    let world = quiet_world();
    world.set("max_concurrent", "3");
    let root = world.root().display().to_string();
    world.recipe("counts", &counting_script(&world));
    world.recipe(
        "long",
        &format!(
            "#!/bin/sh\nmkdir {root}/running/$AGENTSPOOL_TASK_ID\ntouch ready\n\
             while [ ! -e go ]; do sleep 0.01; done\nrmdir {root}/running/$AGENTSPOOL_TASK_ID\n"
        ),
    );
    let long = submit_many(&world, "long", 3);
    world.start_watcher();
    for task in &long {
        world.wait_for_file(&task.work(1, "ready"));
    }
    world.set("max_concurrent", "2");
    let short = submit_many(&world, "counts", 3);
    for task in &long {
        std::fs::write(task.work(1, "go"), "").unwrap();
        world.result_of(task);
        wait_for_rescans(&world, 2);
    }
    assert_each_ran_once(&world, &short);
    assert_never_more_than(&world, 2);
}

#[test]
fn with_a_limit_of_one_tasks_run_in_the_order_of_submission() {
    let world = quiet_world();
    world.set("max_concurrent", "1");
    world.recipe("counts", &counting_script(&world));
    let tasks = submit_many(&world, "counts", 15);
    world.start_watcher();
    assert_each_ran_once(&world, &tasks);
    let text = std::fs::read_to_string(world.root().join("log")).unwrap();
    let order: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(order, expected);
}

fn kib(pid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Waits for this many rescans of a watcher: at each one it reads the settings again.
fn wait_for_rescans(world: &World, count: u32) {
    for n in 0..count {
        // A setting that changes nothing here.
        let other = if n % 2 == 0 { "400" } else { "500" };
        let before = count_in_log(world, "settings read again");
        world.set("session_keep_sec", other);
        world.wait_until("the settings are read again", || {
            count_in_log(world, "settings read again") > before
        });
    }
}

fn count_in_log(world: &World, what: &str) -> usize {
    let log = std::fs::read_to_string(world.root().join("watch.log")).unwrap_or_default();
    log.matches(what).count()
}

#[test]
fn an_idle_watcher_uses_little_memory_and_processor_time() {
    let world = quiet_world();
    world.recipe("quick", "#!/bin/sh\nexit 0\n");
    let tasks = submit_many(&world, "quick", 20);
    let watcher = world.start_watcher() as i32;
    for task in &tasks {
        world.result_of(task);
    }
    let before = ticks(watcher);
    wait_for_rescans(&world, 6);
    let used = ticks(watcher) - before;
    // Six rescans take about two seconds; a watcher that spins uses a hundred ticks each second.
    assert!(used <= 30, "{used} clock ticks for six rescans");
    let own = kib(watcher, "RssAnon:");
    assert!(own <= 3 * 1024, "{own} KiB of its own");
    // The rest is the program's file, which is several times larger without optimization.
    let resident = kib(watcher, "VmRSS:");
    let bound = if cfg!(debug_assertions) { 16 } else { 8 };
    assert!(resident <= bound * 1024, "{resident} KiB");
}

/// Tasks wait for a slot, for their session and for their recipe. None of them can be offered while every
/// runner is busy.
#[test]
fn a_watcher_without_a_free_slot_does_not_spin() {
    let world = quiet_world();
    world.set("max_concurrent", "2");
    world.set("rescan_sec", "1000");
    let gate = gate_recipe(&world, "gated");
    let watcher = world.start_watcher() as i32;
    let first = world.submit(&["gated", "--session-id", "chat"]);
    world.wait_for_file(&first.work(1, "ready"));
    // Answered `not-yet` while a slot is free; then the slot is taken.
    let waiting = world.submit(&["gated", "--session-id", "chat"]);
    let second = world.submit(&["gated"]);
    world.wait_for_file(&second.work(1, "ready"));
    let last = world.submit(&["gated"]);
    let before = ticks(watcher);
    let started = std::time::Instant::now();
    // This measures one second in which nothing happens.
    world.wait_until("a second has passed", || {
        started.elapsed().as_secs_f64() > 1.0
    });
    let used = ticks(watcher) - before;
    assert!(used <= 30, "{used} clock ticks in a second of waiting");
    std::fs::write(&gate, "").unwrap();
    for task in [&first, &second, &waiting, &last] {
        assert_eq!(world.result_of(task)["exit_code"], 7);
    }
}

#[test]
fn drain_runs_all_tasks_and_exits() {
    let world = quiet_world();
    world.recipe("counts", &counting_script(&world));
    let mut tasks = submit_many(&world, "counts", 7);
    world.drop_in("dropped.json", "{\"recipe\": \"counts\"}");
    let ran = world.run(&["watch", "--drain", "--json"]);
    ran.succeeds();
    assert_eq!(ran.json()["ok"], true);
    let dropped = std::fs::read_link(world.path("names/dropped")).unwrap();
    let id = dropped.file_name().unwrap().to_str().unwrap().to_owned();
    tasks.push(world.task(&id));
    assert!(tasks.iter().all(Task::has_result), "{}", world.describe());
    assert_each_ran_once(&world, &tasks);
    assert_eq!(world.watcher_pids(), Vec::<i32>::new());
    // On an empty spool it exits at once.
    world.run(&["watch", "--drain"]).succeeds();
}

#[test]
fn settings_are_read_again_at_a_rescan_and_at_hup() {
    let world = quiet_world();
    world.set("max_concurrent", "1");
    let gate = gate_recipe(&world, "gated");
    let tasks = submit_many(&world, "gated", 3);
    let watcher = world.start_watcher() as i32;
    world.wait_for_file(&tasks[0].work(1, "ready"));
    assert_eq!(tasks[1].attempts(), 0);
    // At a rescan. After that the interval is so long that the next step can only be the signal.
    world.set("max_concurrent", "2");
    world.wait_for_file(&tasks[1].work(1, "ready"));
    world.set("rescan_sec", "1000");
    world.wait_until("the long interval is used", || {
        count_in_log(&world, "settings read again") >= 2
    });
    world.set("max_concurrent", "3");
    world.signal(watcher, Signal::HUP);
    world.wait_for_file(&tasks[2].work(1, "ready"));
    std::fs::write(&gate, "").unwrap();
    for task in &tasks {
        assert_eq!(world.result_of(task)["exit_code"], 7);
    }
    // Settings that cannot be used change nothing, and the watcher keeps running.
    std::fs::write(
        world.path("spool.json"),
        "{\"v\": 2, \"max_concurrent\": 0}",
    )
    .unwrap();
    world.signal(watcher, Signal::HUP);
    world.wait_until("the error is logged", || {
        count_in_log(&world, "the old settings stay in effect") > 0
    });
    assert!(is_alive(watcher));
}

#[test]
fn an_idle_runner_exits() {
    let world = quiet_world();
    world.recipe("quick", "#!/bin/sh\nexit 0\n");
    let watcher = world.start_watcher() as i32;
    world.result_of(&world.submit(&["quick"]));
    assert_eq!(world.runners().len(), 1, "it stays for the next task");
    world.wait_until("it exits", || world.runners().is_empty());
    world.wait_until("no child is left to reap", || {
        children_of(watcher).is_empty()
    });
    assert_eq!(
        world.result_of(&world.submit(&["quick"]))["status"],
        "completed"
    );
}

fn children_of(pid: i32) -> Vec<String> {
    let mut children = Vec::new();
    for thread in names_in(Path::new(&format!("/proc/{pid}/task"))) {
        let path = format!("/proc/{pid}/task/{thread}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        children.extend(text.split_ascii_whitespace().map(str::to_owned));
    }
    children
}

#[test]
fn runners_of_a_killed_watcher_do_not_block_new_tasks() {
    const HELD: usize = 8;
    let world = quiet_world();
    world.set("max_concurrent", &(HELD + 1).to_string());
    let gate = gate_recipe(&world, "gated");
    world.recipe("short", "#!/bin/sh\nexit 0\n");
    let first = world.start_watcher();
    let held = submit_many(&world, "gated", HELD);
    for task in &held {
        world.wait_for_file(&task.work(1, "ready"));
    }
    world.kill_watcher(first);
    world.start_watcher();
    let task = world.submit(&["short"]);
    assert_eq!(world.result_of(&task)["status"], "completed");
    // One for each held task, and one for the new task.
    assert_eq!(world.runners().len(), HELD + 1, "{}", world.describe());
    std::fs::write(gate, "").unwrap();
    for task in &held {
        let result = world.result_of(task);
        assert_eq!((&result["exit_code"], task.attempts()), (&7.into(), 1));
    }
}

/// A task that the first scan finds only after it has offered the first tasks starts without another event.
#[test]
fn a_task_that_the_first_scan_finds_late_starts_at_once() {
    let world = quiet_world();
    gate_recipe(&world, "gated");
    world.set("max_concurrent", "1");
    world.set("rescan_sec", "3600");
    let running = world.submit(&["gated"]);
    let unwanted = world.submit(&["gated"]);
    std::fs::write(unwanted.path.join("cancel"), "").unwrap();
    let watcher = world.start_watcher();
    assert_eq!(world.result_of(&unwanted)["status"], "cancelled");
    world.wait_running(&running);
    world.kill_watcher(watcher);

    // As after a boot: index entries are not synced, so the entry of a task may be missing.
    std::fs::write(world.root().join("gate"), "").unwrap();
    world.result_of(&running);
    let forgotten = world.submit(&["gated"]);
    std::fs::remove_file(world.path("open").join(&forgotten.id)).unwrap();
    std::fs::write(world.path("open/.boot"), "another").unwrap();
    world.start_watcher();
    assert_eq!(world.result_of(&forgotten)["exit_code"], 7);
}
