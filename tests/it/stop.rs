//! Cancel and timeout with children that ignore signals, and children that leave processes.
//!
//! Every case checks at the moment when the result appears that no process of the task is running. Then it
//! checks that the files show the true end.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::processes::{is_alive, state};
use crate::support::{Task, World};

/// A recipe that can be stopped once it has created the file `ready` in its work folder.
struct BadChild {
    name: &'static str,
    script: &'static str,
    /// Exit code and signal of its leader if it is stopped after it was ready.
    exit: (Option<i32>, Option<i32>),
}

const HEEDS_TERM: BadChild = BadChild {
    name: "heeds-term",
    script: "#!/bin/sh\ntrap 'kill $!; exit 3' TERM\nsleep 1000 &\ntouch ready\nwait\n",
    exit: (Some(3), None),
};
const IGNORES_TERM: BadChild = BadChild {
    name: "ignores-term",
    script: "#!/bin/sh\ntrap '' TERM\ntouch ready\nsleep 1000\n",
    exit: (None, Some(9)),
};
const ESCAPES: BadChild = BadChild {
    name: "escapes",
    script: "#!/bin/sh\ntrap '' TERM\n\
             (setsid sh -c 'echo $$ >escaped; touch ready; sleep 1000' &)\n\
             sleep 1000\n",
    exit: (None, Some(9)),
};
const LEADER_HEEDS_CHILD_ESCAPES: BadChild = BadChild {
    name: "only-its-child-ignores",
    script: "#!/bin/sh\n\
             (setsid sh -c 'trap \"\" TERM; touch ready; (setsid sleep 1000 &); sleep 1000' &)\n\
             sleep 1000\n",
    exit: (None, Some(15)),
};
const STOPS_ITSELF: BadChild = BadChild {
    name: "stops-itself",
    script: "#!/bin/sh\ntouch ready\nkill -STOP $$\nsleep 1000\n",
    exit: (None, Some(15)),
};

fn impatient_world() -> World {
    let world = World::new();
    world.set("cancel_grace_sec", "0.3");
    world
}

/// The result. When it appears, no process of the task may be running.
#[track_caller]
fn result_with_nothing_left(world: &World, task: &Task) -> Value {
    world.wait_until("the task has a result", || task.has_result());
    let left = task.processes();
    assert!(
        left.is_empty(),
        "{left:?} outlived the result\n{}",
        world.describe()
    );
    task.result()
}

#[track_caller]
fn assert_exit(result: &Value, exit: (Option<i32>, Option<i32>)) {
    assert_eq!(result["exit_code"], json!(exit.0), "{result}");
    assert_eq!(result["signal"], json!(exit.1), "{result}");
}

fn cancel_and_time_out(child: &BadChild) {
    let world = impatient_world();
    world.recipe(child.name, child.script);

    let task = world.submit(&[child.name]);
    world.wait_for_file(&task.work(1, "ready"));
    world.wait_running(&task);
    let cancelled = world.json(&["cancel", &task.id]);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["status"], "cancelled");
    assert_eq!(result["error"], Value::Null);
    assert_exit(&result, child.exit);

    let task = world.submit(&[child.name, "--timeout", "2"]);
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["status"], "failed");
    assert_eq!(result["error"]["kind"], "timeout");
    let message = result["error"]["message"].as_str().unwrap();
    assert!(message.contains("2s"), "{message}");
    // On a slow machine the recipe may not be ready in time; then TERM comes before its traps are set.
    if task.work(1, "ready").exists() {
        assert_exit(&result, child.exit);
    }
    let status = world.json(&["status", &task.id]);
    assert_eq!(status["status"], "failed");
    assert_eq!(status["error"]["kind"], "timeout");
}

#[test]
fn a_child_that_exits_on_term_is_stopped() {
    cancel_and_time_out(&HEEDS_TERM);
}

#[test]
fn a_child_that_ignores_term_is_stopped() {
    cancel_and_time_out(&IGNORES_TERM);
}

#[test]
fn a_child_that_double_forks_and_ignores_term_is_stopped() {
    cancel_and_time_out(&ESCAPES);
}

#[test]
fn an_escaped_child_is_stopped_if_only_the_leader_exits_on_term() {
    cancel_and_time_out(&LEADER_HEEDS_CHILD_ESCAPES);
}

#[test]
fn a_child_that_stopped_itself_is_stopped() {
    cancel_and_time_out(&STOPS_ITSELF);

    // Once more; here it is certain that the child was stopped when it was cancelled.
    let world = impatient_world();
    world.recipe(STOPS_ITSELF.name, STOPS_ITSELF.script);
    let task = world.submit(&[STOPS_ITSELF.name]);
    let (_, leader) = world.processes_of(&task, 1);
    world.wait_until("the child stopped itself", || state(leader) == Some('T'));
    world.run(&["cancel", &task.id]).succeeds();
    assert_exit(&result_with_nothing_left(&world, &task), (None, Some(15)));
}

#[test]
fn a_grandchild_that_keeps_stdout_open_is_ended_at_once() {
    let world = impatient_world();
    world.recipe(
        "holds-stdout",
        "#!/bin/sh\necho said\n(setsid sh -c 'echo $$ >escaped; sleep 1000' &)\n\
         while [ ! -s escaped ]; do sleep 0.01; done\nexit 7\n",
    );
    let task = world.submit(&["holds-stdout"]);
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["status"], "failed");
    assert_eq!(result["error"]["kind"], "exit");
    assert_exit(&result, (Some(7), None));
    assert_eq!(result["output"], "said");
    let escaped: i32 = std::fs::read_to_string(task.work(1, "escaped"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(!is_alive(escaped));
}

#[test]
fn leftover_processes_are_ended_even_if_they_ignore_term() {
    let world = impatient_world();
    world.recipe("leaves-one", "#!/bin/sh\nsleep 1000 &\nexit 0\n");
    world.recipe(
        "leaves-a-stubborn-one",
        "#!/bin/sh\n(setsid sh -c 'trap \"\" TERM; touch ready; sleep 1000' &)\n\
         while [ ! -e ready ]; do sleep 0.01; done\nexit 0\n",
    );
    for recipe in ["leaves-one", "leaves-a-stubborn-one"] {
        let task = world.submit(&[recipe]);
        let result = result_with_nothing_left(&world, &task);
        assert_eq!(result["status"], "completed", "{recipe}");
        assert_exit(&result, (Some(0), None));
    }
}

#[test]
fn an_end_by_a_signal_is_reported_as_such() {
    let world = impatient_world();
    world.recipe("kills-itself", "#!/bin/sh\nkill -SEGV $$\n");
    let task = world.submit(&["kills-itself"]);
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["status"], "failed");
    assert_eq!(result["error"]["kind"], "signal");
    assert_exit(&result, (None, Some(11)));
}

#[test]
fn a_short_task_that_is_cancelled_has_one_consistent_end() {
    let world = impatient_world();
    world.recipe("at-once", "#!/bin/sh\nexit 0\n");
    world.start_watcher();
    for _ in 0..15 {
        let task = world.submit(&["at-once"]);
        let answer = world.json(&["cancel", &task.id]);
        let result = result_with_nothing_left(&world, &task);
        assert_eq!(answer["status"], result["status"]);
        match result["status"].as_str().unwrap() {
            "completed" => assert_exit(&result, (Some(0), None)),
            "cancelled" => assert_eq!(result["error"], Value::Null),
            other => panic!("{other}: {result}"),
        }
    }
    for _ in 0..5 {
        let task = world.submit(&["at-once", "--timeout", "0.001"]);
        let result = result_with_nothing_left(&world, &task);
        match result["status"].as_str().unwrap() {
            "completed" => assert_exit(&result, (Some(0), None)),
            "failed" => assert_eq!(result["error"]["kind"], "timeout"),
            other => panic!("{other}: {result}"),
        }
    }
}

#[test]
fn a_touched_marker_cancels_a_running_task() {
    let world = impatient_world();
    world.recipe(HEEDS_TERM.name, HEEDS_TERM.script);
    let task = world.submit(&[HEEDS_TERM.name]);
    world.wait_for_file(&task.work(1, "ready"));
    std::fs::write(task.path.join("cancel"), "").unwrap();
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["status"], "cancelled");
    assert_exit(&result, (Some(3), None));
}

#[test]
fn a_touched_marker_cancels_a_pending_task_while_every_slot_is_busy() {
    let world = impatient_world();
    world.set("max_concurrent", "1");
    world.recipe(HEEDS_TERM.name, HEEDS_TERM.script);
    let busy = world.submit(&[HEEDS_TERM.name]);
    world.wait_for_file(&busy.work(1, "ready"));
    let pending = world.submit(&[HEEDS_TERM.name]);
    std::fs::write(pending.path.join("cancel"), "").unwrap();
    let result = result_with_nothing_left(&world, &pending);
    assert_eq!(result["status"], "cancelled");
    assert_eq!(result["attempt"], 0);
    assert_exit(&result, (None, None));
    assert_eq!(pending.attempts(), 0);
    assert!(!busy.has_result(), "the running task was not disturbed");
}

#[test]
fn cancel_without_a_watcher_ends_the_processes_of_a_killed_runner() {
    let world = impatient_world();
    world.recipe(ESCAPES.name, ESCAPES.script);
    let watcher = world.start_watcher();
    let task = world.submit(&[ESCAPES.name]);
    world.wait_for_file(&task.work(1, "ready"));
    let (runner, _) = world.processes_of(&task, 1);
    // The watcher is killed first, so that only `cancel` ends the processes that the runner leaves.
    world.kill_watcher(watcher);
    world.signal(runner, Signal::KILL);
    world.wait_until("the runner has exited", || !is_alive(runner));
    assert!(!task.processes().is_empty(), "the escaped child still runs");
    let cancelled = world.json(&["cancel", &task.id]);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let result = result_with_nothing_left(&world, &task);
    // The end was not observed, so no exit code and no signal is stored.
    assert_exit(&result, (None, None));
}

/// A supervisor that ignores SIGCHLD passes that on to its children. Then the kernel would reap the processes
/// whose end the runner must observe.
#[test]
fn a_watcher_started_with_sigchld_ignored_sees_its_tasks_end() {
    let world = impatient_world();
    world.set("autostart", "false");
    world.recipe("three", "#!/bin/sh\nsleep 0.1\nexit 3\n");
    let task = world.submit(&["three"]);
    let mut watch = std::process::Command::new("env");
    watch
        .arg("--ignore-signal=CHLD")
        .args([crate::support::PROGRAM, "watch", "--drain"])
        .env("AGENTSPOOL_DIR", world.spool())
        .env("HOME", world.root())
        .stderr(std::process::Stdio::null());
    let mut watch = watch.spawn().unwrap();
    let result = result_with_nothing_left(&world, &task);
    watch.wait().unwrap();
    assert_exit(&result, (Some(3), None));
}

#[test]
fn a_task_that_is_terminated_with_its_runner_is_lost() {
    let world = impatient_world();
    world.recipe("dies-of-term", "#!/bin/sh\ntouch ready\nexec sleep 1000\n");
    let task = world.submit(&["dies-of-term"]);
    world.wait_for_file(&task.work(1, "ready"));
    world.wait_running(&task);
    let (runner, child) = world.processes_of(&task, 1);
    // Both get TERM, the recipe first; the runner sees the recipe's end and its own signal at the same time.
    world.signal(runner, Signal::STOP);
    world.wait_until("the runner is stopped", || state(runner) == Some('T'));
    world.signal(child, Signal::TERM);
    world.wait_until("the recipe has ended", || state(child) == Some('Z'));
    world.signal(runner, Signal::TERM);
    world.signal(runner, Signal::CONT);
    let result = result_with_nothing_left(&world, &task);
    assert_eq!(result["error"]["kind"], "lost", "{result}");
}

/// Signals that are blocked or ignored in the process that starts a watcher work again in the watcher and in
/// its recipes.
#[test]
fn signals_that_the_starting_process_blocked_or_ignored_work_again() {
    let world = impatient_world();
    world.set("autostart", "false");
    world.recipe(
        "asks",
        "#!/bin/sh\ngrep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '[:space:]'\n",
    );
    let task = world.submit(&["asks"]);
    let mut watch = std::process::Command::new("env");
    watch
        .args([
            "--block-signal=TERM,INT,HUP,USR1",
            "--ignore-signal=USR1,USR2,ALRM,XFSZ,TSTP,TTOU",
        ])
        .args([crate::support::PROGRAM, "watch"])
        .env("AGENTSPOOL_DIR", world.spool())
        .env("HOME", world.root())
        .stderr(std::process::Stdio::null());
    let mut watch = watch.spawn().unwrap();
    let result = world.result_of(&task);
    let none = "0000000000000000";
    assert_eq!(result["output"], format!("SigBlk:{none}SigIgn:{none}"));
    world.signal(i32::try_from(watch.id()).unwrap(), Signal::TERM);
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_watcher_that_stops_its_tasks_exits_after_them() {
    let world = impatient_world();
    world.set("autostart", "false");
    world.recipe(
        "heeds",
        "#!/bin/sh\ntrap 'sleep 0.2; touch heeded; exit 1' TERM\ntouch ready\nwhile :; do sleep 0.05; done\n",
    );
    let task = world.submit(&["heeds"]);
    let mut watch = world.command(&["watch", "--stop-tasks"]);
    let mut watch = watch.stderr(std::process::Stdio::null()).spawn().unwrap();
    world.wait_for_file(&task.work(1, "ready"));
    world.signal(i32::try_from(watch.id()).unwrap(), Signal::TERM);
    assert!(watch.wait().unwrap().success());
    assert!(task.work(1, "heeded").exists(), "{}", world.describe());
    assert_eq!(task.result()["error"]["kind"], "lost");
    // The runner has closed its pipe, and is about to exit.
    world.wait_until("no process is left", || world.processes().is_empty());
}
