//! `wait`: for named tasks, for all, for a session; its exit codes, its timeout, Ctrl-C, and the bar.

use serde_json::json;

use crate::support::terminal::{On, Terminal};
use crate::support::{Task, World};

/// Recipes that end in each way, and one that waits for a file.
fn world() -> World {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    world.recipe("works", "#!/bin/sh\n");
    world.recipe("fails", "#!/bin/sh\nexit 77\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    let gate = format!(
        "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n",
        world.root().join("go").display()
    );
    world.recipe("gate", &gate);
    world
}

fn open_gate(world: &World) {
    std::fs::write(world.root().join("go"), "").unwrap();
}

fn cancelled(world: &World) -> Task {
    let task = world.submit(&["sleeps"]);
    world.run(&["cancel", &task.id]).succeeds();
    task
}

#[test]
fn several_tasks_are_reported_in_the_order_asked() {
    let world = world();
    let (first, second) = (
        world.submit(&["gate"]),
        world.submit(&["gate", "--name", "two"]),
    );
    let waiting = world.start(&["wait", "two", &first.id]);
    world.wait_until("it catches interrupts", || waiting.catches_interrupts());
    open_gate(&world);
    let ran = waiting.end();
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let rows: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|l| l.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        rows[0][..4],
        [second.id.as_str(), "completed", "two", "gate"]
    );
    assert_eq!(rows[1][..4], [first.id.as_str(), "completed", "-", "gate"]);
    let quiet = world.run(&["wait", "two", "-q"]);
    quiet.succeeds();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
}

#[test]
fn the_exit_code_is_the_first_that_applies_of_3_5_9() {
    let world = world();
    let works = world.submit(&["works"]);
    let fails = world.submit(&["fails"]);
    let slow = world.submit(&["sleeps", "--timeout", "0.1"]);
    let cancelled = cancelled(&world);
    for (tasks, code) in [
        (vec![&works], 0),
        (vec![&works, &cancelled], 9),
        (vec![&cancelled, &slow], 5),
        (vec![&slow, &works], 5),
        (vec![&cancelled, &slow, &fails], 3),
        (vec![&works, &fails], 3),
    ] {
        let mut arguments = vec!["wait"];
        arguments.extend(tasks.iter().map(|task| task.id.as_str()));
        let ran = world.run(&arguments);
        ran.ends_with(code);
        assert_eq!(ran.stderr, "");
        assert_eq!(ran.stdout.lines().count(), tasks.len());
        let object = world.json(&arguments);
        assert_eq!(
            (&object["ok"], &object["code"]),
            (&json!(code == 0), &json!(code))
        );
        assert_eq!(object["tasks"].as_array().unwrap().len(), tasks.len());
    }
}

#[test]
fn propagate_returns_the_recipes_own_code() {
    let world = world();
    world.recipe("crashes", "#!/bin/sh\nkill -TERM $$\n");
    let fails = world.submit(&["fails"]);
    world.run(&["wait", &fails.id, "--propagate"]).ends_with(77);
    let crashes = world.submit(&["crashes"]);
    world
        .run(&["wait", &crashes.id, "--propagate"])
        .ends_with(128 + 15);
    let works = world.submit(&["works"]);
    world
        .run(&["wait", &works.id, &fails.id, "--propagate"])
        .ends_with(77);
    world.run(&["wait", &works.id, "--propagate"]).succeeds();
    // The program ended these tasks itself: 143 would look like a crash.
    let slow = world.submit(&["sleeps", "--timeout", "0.1"]);
    world.run(&["wait", &slow.id, "--propagate"]).ends_with(5);
    let cancelled = world.submit(&["sleeps"]);
    world.wait_running(&cancelled);
    world.run(&["cancel", &cancelled.id]).succeeds();
    world
        .run(&["wait", &cancelled.id, "--propagate"])
        .ends_with(9);
}

#[test]
fn wait_for_all_and_for_a_session() {
    let world = world();
    let nothing = world.run(&["wait", "--all"]);
    nothing.succeeds();
    assert_eq!(
        (nothing.stdout.as_str(), nothing.stderr.as_str()),
        ("", "nothing to wait for\n")
    );
    let ours = world.submit(&["gate", "--session-id", "chat"]);
    let other = world.submit(&["sleeps"]);
    world.wait_running(&other);
    let waiting = world.start(&["wait", "--session", "chat", "--json"]);
    world.wait_until("it catches interrupts", || waiting.catches_interrupts());
    open_gate(&world);
    let ran = waiting.end();
    ran.succeeds();
    let tasks = &ran.json()["tasks"];
    assert_eq!(
        (tasks[0]["id"].as_str(), tasks.as_array().unwrap().len()),
        (Some(&*ours.id), 1)
    );
    let waiting = world.start(&["wait", "--all"]);
    world.wait_until("it catches interrupts", || waiting.catches_interrupts());
    world.run(&["cancel", &other.id]).succeeds();
    let ran = waiting.end();
    ran.ends_with(9);
    assert!(ran.stdout.starts_with(&other.id));
    for arguments in [
        &["wait"][..],
        &["wait", "--all", "last"],
        &["wait", "--all", "--session", "x"],
    ] {
        let ran = world.run(arguments);
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn the_waits_own_timeout_is_124_and_the_task_continues() {
    let world = world();
    let (task, done) = (world.submit(&["sleeps"]), world.submit(&["works"]));
    world.result_of(&done);
    world.wait_running(&task);
    let ran = world.run(&["wait", &task.id, &done.id, "--timeout", "0.1"]);
    ran.ends_with(124);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: the wait timed out; 1 of 2 tasks continues\n"
    );
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
    let object = world.json(&["wait", &task.id, "--timeout", "0.1"]);
    assert_eq!(
        (&object["ok"], &object["code"]),
        (&json!(false), &json!(124))
    );
    // A finished task needs no time.
    world.run(&["wait", &done.id, "--timeout", "0"]).succeeds();
}

#[test]
fn a_wait_without_a_watcher_warns_once_even_when_quiet() {
    let world = world();
    world.set("autostart", "false");
    let task = world.run(&["submit", "--recipe", "gate", "-q"]);
    let id = task.stdout.trim().to_owned();
    for arguments in [
        ["submit", "-q", "--wait", "--recipe", "gate"].as_slice(),
        &["recipe", "run", "gate"],
        &["wait", "-q", &id],
    ] {
        let waiting = world.start(arguments);
        world.wait_until("it catches interrupts", || waiting.catches_interrupts());
        waiting.interrupt();
        let ran = waiting.end();
        ran.ends_with(130);
        let report = ran
            .stderr
            .matches("no task starts until one is running")
            .count();
        assert_eq!(report, 1, "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn interrupting_a_wait_does_not_stop_the_task() {
    let world = world();
    let task = world.submit(&["gate"]);
    let waiting = world.start(&["wait", &task.id]);
    world.wait_until("it catches interrupts", || waiting.catches_interrupts());
    waiting.interrupt();
    let ran = waiting.end();
    ran.ends_with(130);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr, "error: interrupted; the task continues\n");
    open_gate(&world);
    assert_eq!(world.result_of(&task)["status"], "completed");

    // The same for `submit --wait`.
    std::fs::remove_file(world.root().join("go")).unwrap();
    let waiting = world.start(&["submit", "--recipe", "gate", "--name", "second", "--wait"]);
    world.wait_until("it runs", || {
        world.json(&["status", "second"])["status"] == "running" && waiting.catches_interrupts()
    });
    waiting.interrupt();
    let ran = waiting.end();
    ran.ends_with(130);
    open_gate(&world);
    world.run(&["wait", "second"]).succeeds();
}

#[test]
fn a_drop_is_waited_for_by_its_name() {
    let world = world();
    world.drop_in("report.json", "{\"recipe\": \"works\"}");
    // No watcher runs: wait starts one, as submit does.
    let ran = world.run(&["wait", "report"]);
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let row: Vec<&str> = ran.stdout.trim_end().split('\t').collect();
    assert_eq!(row[1..4], ["completed", "report", "works"]);
    world.run(&["wait", "nobody"]).ends_with(7);
}

#[test]
fn a_terminal_gets_a_bar_that_leaves_nothing_behind() {
    let world = world();
    let task = world.submit(&["gate"]);
    world.wait_running(&task);
    let mut command = world.command(&["wait", &task.id]);
    let waiting = Terminal::start(&mut command, On::Stderr, 80);
    world.wait_until("the bar is seen", || {
        waiting.seen().contains("gate running")
    });
    open_gate(&world);
    let ran = waiting.end();
    ran.succeeds();
    assert!(ran.stderr.contains("0%"), "{:?}", ran.stderr);
    // The last output is an empty line.
    assert!(ran.stderr.ends_with("\u{1b}[2K"), "{:?}", ran.stderr);
    assert!(ran.stdout.starts_with(&task.id) && !ran.stdout.contains('\x1b'));

    for arguments in [
        &["wait", &task.id][..],
        &["wait", &task.id, "--color", "always"],
    ] {
        let in_a_pipe = world.run(arguments);
        assert_eq!(in_a_pipe.stderr, "");
        assert!(!in_a_pipe.stdout.contains('\x1b'));
    }
    for quiet in ["-q", "--json"] {
        let ran = world.run_on_terminal(On::Stderr, 80, &["wait", &task.id, quiet]);
        assert_eq!(ran.stderr, "", "{quiet}");
    }
}

/// A line wider than the terminal cannot be painted over: each update would add one.
#[test]
fn a_wide_message_stays_on_one_line() {
    use unicode_width::UnicodeWidthChar as _;
    let world = world();
    let message = "進捗👩\u{200d}👩\u{200d}👧⚠\u{fe0f}".repeat(20);
    let report = json!({"progress": 0.5, "message": message});
    let script = format!(
        "#!/bin/sh\necho '{report}' >>\"$AGENTSPOOL_PROGRESS_FILE\"\nwhile [ ! -e '{}' ]; do sleep 0.02; done\n",
        world.root().join("go").display()
    );
    world.recipe("wide", &script);
    let task = world.submit(&["wide", "--label", &"表".repeat(90)]);
    world.wait_until("the message is there", || {
        world.json(&["status", &task.id])["message"] != serde_json::Value::Null
    });
    let mut command = world.command(&["wait", &task.id]);
    let waiting = Terminal::start(&mut command, On::Stderr, 120);
    world.wait_until("the bar was painted again", || {
        waiting.seen().matches("進捗").count() >= 3
    });
    open_gate(&world);
    let ran = waiting.end();
    ran.succeeds();
    assert!(!ran.stderr.contains('\n'), "{:?}", ran.stderr);
    assert!(!ran.stderr.contains("\u{1b}[1A"), "{:?}", ran.stderr);
    for painted in ran.stderr.split(['\r', '\u{1b}']) {
        let text = painted.trim_start_matches("[2K").trim_end();
        let columns: usize = text.chars().filter_map(|c| c.width()).sum();
        assert!(columns < 120, "{columns}: {text:?}");
        let filled: usize = painted.chars().filter_map(|c| c.width()).sum();
        assert!(filled <= 120 + "[2K".len(), "{filled}: {painted:?}");
    }
}

#[test]
fn need_watcher_fails_without_a_watcher() {
    let world = world();
    world.set("autostart", "false");
    let task = world.submit(&["gate"]);
    let ran = world.run(&["wait", &task.id, "--need-watcher"]);
    ran.ends_with(6);
    assert!(
        ran.stderr.contains("no watcher is running on "),
        "{}",
        ran.stderr
    );
    let object = world.json(&["wait", &task.id, "--need-watcher"]);
    assert_eq!(object["code"], 6);
    assert_eq!(object["watcher"], false);

    // A running task needs no watcher: its runner finishes it. The wait ends by its own timeout, which is
    // longer than the time after which it would give up.
    let runner = world.start(&["runner", "--once", &task.id]);
    world.wait_running(&task);
    let ran = world.run(&["wait", &task.id, "--need-watcher", "--timeout", "8"]);
    ran.ends_with(124);
    open_gate(&world);
    runner.end().succeeds();
    world.run(&["wait", &task.id, "--need-watcher"]).succeeds();
}

/// Submits a task, waits until its stderr contains `part`, and returns its stderr.
fn warning_inside(world: &World, arguments: &[&str], part: &str) -> String {
    let task = world.submit(arguments);
    let log = task.path.join("attempts/1/stderr.log");
    let mut printed = String::new();
    world.wait_until("it warns that it may wait forever", || {
        printed = std::fs::read_to_string(&log).unwrap_or_default();
        printed.contains(part)
    });
    world.run(&["cancel", &task.id]).succeeds();
    assert!(printed.contains(&task.id), "{printed}");
    printed
}

#[test]
fn a_task_that_waits_for_its_own_slot_is_warned() {
    let world = world();
    world.set("max_concurrent", "1");
    world.recipe(
        "submits",
        "#!/bin/sh\nagentspool submit --recipe works --wait -q\n",
    );
    world.recipe(
        "waits",
        "#!/bin/sh\nagentspool wait $(agentspool submit --recipe works -q) -q\n",
    );
    world.recipe("runs", "#!/bin/sh\nagentspool recipe run works\n");
    for recipe in ["submits", "waits", "runs"] {
        let printed = warning_inside(&world, &[recipe], "waits for task_");
        assert!(printed.contains("keeps its own slot"), "{printed}");
        assert!(printed.contains("at most 1 runs at once"), "{printed}");
    }
    world.recipe("itself", "#!/bin/sh\nagentspool wait --all -q\n");
    let printed = warning_inside(&world, &["itself"], "waits for itself");
    assert!(printed.contains("never ends"), "{printed}");
}

#[test]
fn a_task_that_waits_for_its_own_session_or_limit_is_warned() {
    let world = world();
    let script =
        "#!/bin/sh\nagentspool submit --recipe works --session-id $AGENTSPOOL_SESSION_ID --wait\n";
    world.recipe("session", script);
    let printed = warning_inside(&world, &["session"], "waits for task_");
    assert!(
        printed.contains("an earlier task of the session"),
        "{printed}"
    );
    let script = "#!/bin/sh\nagentspool submit --recipe again --wait\n";
    world.recipe_folder("again", "max_concurrent = 1", script);
    let printed = warning_inside(&world, &["again"], "waits for task_");
    assert!(printed.contains("of the recipe again"), "{printed}");
    // With a free slot there is no warning.
    world.recipe(
        "fine",
        "#!/bin/sh\nagentspool submit --recipe works --wait\n",
    );
    let task = world.submit(&["fine"]);
    assert_eq!(world.result_of(&task)["status"], "completed");
    let printed = task.read("attempts/1/stderr.log");
    assert!(
        !printed.contains("waits for task_") && !printed.contains("waits for itself"),
        "{printed}"
    );
}
