//! The victims: each part of the protocol, run by a watcher, a runner or the command line.

use super::stage;
use super::{PLAIN, Scenario, kill_everywhere};
use crate::support::{Task, World, marker, names_in};
use crate::traced::Victim;

/// All scenarios, for the tests that recover from each.
pub(super) const ALL: [Scenario; 24] = [
    SUBMIT,
    BATCH,
    AUTOSTART,
    AUTOSTARTED_WATCHER,
    ADMISSION,
    COMPLETE,
    INCOMPLETE,
    CUT_OFF_ADMISSION,
    REFUSAL,
    WATCHER_AND_RUNNERS,
    RUNNER,
    CANCELLED_CLAIM,
    STOPPED_BY_MARKER,
    TIMEOUT,
    STOPPED_BY_SIGNAL,
    RECOVERY_FAILS,
    RECOVERY_RETRIES,
    CANCEL_PENDING,
    CANCEL_RUNNING,
    CANCEL_ORPHANED,
    SWEEP_TASKS,
    SWEEP_LITTER,
    CLEAR,
    CLEAR_ALL,
];

const SUBMIT: Scenario = Scenario {
    name: "submit",
    prepare: |_| {
        Victim::of(&[
            "submit",
            "--recipe",
            "echo",
            "--name",
            "n",
            "--session-id",
            "s",
            "--env",
            "WORD=w",
            "--quiet",
        ])
    },
    afterwards: |world| assert!(world.tasks().len() <= 1),
    ..PLAIN
};

const BATCH: Scenario = Scenario {
    name: "submit --batch",
    prepare: |_| {
        let line = "{\"recipe\": \"echo\", \"session_id\": \"s\"}\n";
        Victim::of(&["submit", "--batch", "-"]).reading(line.repeat(3))
    },
    afterwards: |world| assert!(world.tasks().len() <= 3),
    ..PLAIN
};

const AUTOSTART: Scenario = Scenario {
    name: "submit that starts a watcher",
    prepare: |world| {
        world.set("autostart", "true");
        world.set("idle_exit_sec", "0");
        Victim::of(&["submit", "--recipe", "echo", "--quiet"])
    },
    ..PLAIN
};

const AUTOSTARTED_WATCHER: Scenario = Scenario {
    name: "autostarted watcher",
    prepare: |world| {
        world.set("idle_exit_sec", "0");
        world.submit(&["echo"]);
        world.drop_in("dropped.json", r#"{"recipe": "echo"}"#);
        Victim::of(&["watch", "--autostarted"])
    },
    afterwards: |world| assert_eq!(world.tasks().len(), 2),
    ..PLAIN
};

const ADMISSION: Scenario = Scenario {
    name: "admit",
    prepare: |world| {
        world.drop_in("dropped.json", r#"{"recipe": "echo", "session_id": "s"}"#);
        Victim::of(&["watch", "--drain"])
    },
    afterwards: is_the_one_dropped,
    ..PLAIN
};

/// I3: exactly one task from the one drop, and its name leads to it.
fn is_the_one_dropped(world: &World) {
    let task = world.only_task();
    assert_eq!(task.request()["name"], "dropped");
    let link = std::fs::read_link(world.path("names/dropped")).unwrap();
    assert!(link.ends_with(&task.id), "{link:?}");
}

/// A task that a power cut left with its marker.
fn cut_off(world: &World) -> Task {
    let task = world.submit(&["echo", "--session-id", "s", "--env", "WORD=w"]);
    marker::put_marker(&task, marker::OTHER_BOOT);
    // Index and tasks were not compared in this boot.
    std::fs::remove_file(world.path("open/.boot")).unwrap();
    task
}

const COMPLETE: Scenario = Scenario {
    name: "decision about a complete task of another boot",
    prepare: |world| {
        cut_off(world);
        Victim::of(&["watch", "--drain"])
    },
    afterwards: |world| {
        let task = world.only_task();
        assert_eq!(task.result()["status"], "completed");
        assert!(marker::markers(&task).is_empty());
    },
    ..PLAIN
};

const INCOMPLETE: Scenario = Scenario {
    name: "decision about an incomplete task of another boot",
    prepare: |world| {
        let task = cut_off(world);
        std::fs::write(task.path.join("request.json"), "").unwrap();
        Victim::of(&["runner"]).reading(format!("run {}\n", task.id))
    },
    removes: true,
    afterwards: |world| {
        assert!(world.tasks().is_empty());
        assert!(!world.root().join("ledger").exists(), "it ran");
    },
    ..PLAIN
};

const CUT_OFF_ADMISSION: Scenario = Scenario {
    name: "admission that a power cut interrupted",
    prepare: |world| {
        let task = cut_off(world);
        std::fs::write(task.path.join("request.json"), "").unwrap();
        let claim = world.path("staging").join(format!("{}.claim", task.id));
        std::fs::create_dir(&claim).unwrap();
        let drop = r#"{"recipe": "echo", "session_id": "s"}"#;
        std::fs::write(claim.join("dropped.json"), drop).unwrap();
        Victim::of(&["watch", "--drain"])
    },
    afterwards: is_the_one_dropped,
    ..PLAIN
};

const WRONG: &str = r#"{"recipe": "nobody"}"#;

const REFUSAL: Scenario = Scenario {
    name: "refuse",
    prepare: |world| {
        world.drop_in("wrong.json", WRONG);
        Victim::of(&["watch", "--drain"])
    },
    afterwards: |world| {
        let mut kept = names_in(&world.path("rejected"));
        kept.retain(|name| !name.starts_with('.'));
        kept.sort();
        let [drop, reason] = &kept[..] else {
            panic!("{kept:?}");
        };
        assert!(reason.ends_with("-wrong.reason.json"), "{kept:?}");
        let text = std::fs::read_to_string(world.path("rejected").join(drop)).unwrap();
        assert_eq!(text, WRONG);
    },
    ..PLAIN
};

const WATCHER_AND_RUNNERS: Scenario = Scenario {
    name: "watcher with its runners and recipes",
    prepare: |world| {
        for _ in 0..2 {
            world.submit(&["echo", "--session-id", "s"]);
        }
        world.drop_in("dropped.json", r#"{"recipe": "echo", "session_id": "s"}"#);
        Victim::of(&["watch", "--drain"]).with_children()
    },
    scans_processes: true,
    afterwards: |world| assert_eq!(world.tasks().len(), 3),
    ..PLAIN
};

const RUNNER: Scenario = Scenario {
    name: "claim, run and finish in a pooled runner",
    prepare: |world| {
        let first = world.submit(&["echo", "--session-id", "s", "--input", "1"]);
        let second = world.submit(&["big", "--session-id", "s"]);
        Victim::of(&["runner"]).reading(format!("run {}\nrun {}\n", first.id, second.id))
    },
    ..PLAIN
};

const CANCELLED_CLAIM: Scenario = Scenario {
    name: "claim of a cancelled task",
    prepare: |world| {
        let task = world.submit(&["echo", "--session-id", "s"]);
        std::fs::write(task.path.join("cancel"), "").unwrap();
        Victim::of(&["runner", "--once", &task.id])
    },
    afterwards: |world| assert_eq!(world.only_task().result()["status"], "cancelled"),
    ..PLAIN
};

const STOPPED_BY_MARKER: Scenario = Scenario {
    name: "runner that stops a cancelled task",
    prepare: |world| {
        let hang = "setsid sleep 1000 &\ntouch \"$AGENTSPOOL_TASK_DIR/cancel\"\nexec sleep 1000";
        world.recipe_folder("hang", "", &stage::recipe(hang));
        let task = world.submit(&["hang"]);
        Victim::of(&["runner", "--once", &task.id])
    },
    scans_processes: true,
    afterwards: |world| assert_ne!(world.only_task().result()["status"], "completed"),
    ..PLAIN
};

const TIMEOUT: Scenario = Scenario {
    name: "runner that stops a task after its timeout",
    prepare: |world| {
        world.recipe_folder("hang", "", &stage::recipe("exec sleep 1000"));
        let task = world.submit(&["hang", "--timeout", "0.1"]);
        Victim::of(&["runner", "--once", &task.id])
    },
    scans_processes: true,
    afterwards: |world| assert_eq!(world.only_task().result()["status"], "failed"),
    ..PLAIN
};

const STOPPED_BY_SIGNAL: Scenario = Scenario {
    name: "runner that puts a task back",
    prepare: |world| {
        let ends = "[ \"$AGENTSPOOL_ATTEMPT\" != 1 ] && exit 0\nkill -TERM $PPID\nexec sleep 1000";
        world.recipe_folder("ends", "on_lost = \"requeue\"", &stage::recipe(ends));
        let task = world.submit(&["ends"]);
        // Not `--once`, whose exit code reports that the task is not finished.
        Victim::of(&["runner"]).reading(format!("run {}\n", task.id))
    },
    most_attempts: 3,
    scans_processes: true,
    ..PLAIN
};

/// A task whose runner was killed while the recipe ran, and a process that escaped from it.
fn hanging(world: &World, on_lost: &str) -> String {
    let hang = "[ \"$AGENTSPOOL_ATTEMPT\" != 1 ] && exit 0\nsetsid sleep 1000 &\nexec sleep 1000";
    let manifest = format!("on_lost = \"{on_lost}\"");
    world.recipe_folder("hang", &manifest, &stage::recipe(hang));
    world.submit(&["hang"]).id
}

fn orphan(world: &World) {
    let mut runner = runner_of(world);
    world.wait_until("the escaped process runs", || {
        let all = world.processes();
        all.iter().filter(|(_, c)| c.contains("sleep 1000")).count() == 2
    });
    runner.kill().unwrap();
    runner.wait().unwrap();
}

fn runner_of(world: &World) -> std::process::Child {
    let task = world.only_task();
    let runner = world
        .command(&["runner", "--once", &task.id])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    world.wait_for_lines(&world.root().join("ledger"), 1);
    runner
}

const RECOVERY_FAILS: Scenario = Scenario {
    name: "recovery that fails the task",
    prepare: |world| Victim::of(&["runner", "--once", &hanging(world, "fail")]),
    start_with: orphan,
    scans_processes: true,
    afterwards: |world| assert_eq!(world.only_task().result()["error"]["kind"], "lost"),
    ..PLAIN
};

const RECOVERY_RETRIES: Scenario = Scenario {
    name: "recovery that tries again",
    prepare: |world| Victim::of(&["runner", "--once", &hanging(world, "requeue")]),
    start_with: orphan,
    // The attempt that the victim itself starts is lost with it.
    most_attempts: 3,
    scans_processes: true,
    afterwards: |world| {
        // If the recovery is killed as well, its own attempt is lost, and three attempts are the most.
        let result = world.only_task().result();
        let is_used_up = result["error"]["kind"] == "lost" && result["attempt"] == 3;
        assert!(result["status"] == "completed" || is_used_up, "{result}");
    },
    ..PLAIN
};

const CANCEL_PENDING: Scenario = Scenario {
    name: "cancel of a pending task",
    prepare: |world| {
        world.submit(&["echo", "--name", "n", "--session-id", "s"]);
        Victim::of(&["cancel", "n"])
    },
    ..PLAIN
};

const CANCEL_RUNNING: Scenario = Scenario {
    name: "cancel of a running task",
    prepare: |world| Victim::of(&["cancel", &hanging(world, "fail")]),
    start_with: |world| {
        let mut runner = runner_of(world);
        world.wait_running(&world.only_task());
        // Reaped by a thread of its own: a zombie is not a process of this world.
        std::thread::spawn(move || runner.wait());
    },
    again: true,
    scans_processes: true,
    afterwards: |world| assert_eq!(world.only_task().result()["status"], "cancelled"),
    ..PLAIN
};

const CANCEL_ORPHANED: Scenario = Scenario {
    name: "cancel of an orphaned task",
    prepare: |world| Victim::of(&["cancel", &hanging(world, "fail")]),
    start_with: orphan,
    scans_processes: true,
    ..PLAIN
};

fn finished(world: &World) {
    let task = world.submit(&["echo", "--name", "n", "--session-id", "s"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
}

/// A link in names/ to a task that does not exist.
fn leave_link(world: &World, name: &str) {
    let target = format!("../tasks/{}", removed_id(world));
    std::os::unix::fs::symlink(target, world.path("names").join(name)).unwrap();
}

/// The id of a task that was removed.
fn removed_id(world: &World) -> String {
    let task = world.submit(&["echo"]);
    world.run(&["cancel", &task.id]).succeeds();
    world.run(&["clear"]).succeeds();
    task.id
}

const SWEEP_TASKS: Scenario = Scenario {
    name: "sweep of tasks, names and sessions",
    prepare: |world| {
        for age in ["cleanup_delay_sec", "session_keep_sec"] {
            world.set(age, "0");
        }
        // A name whose task is missing, as a killed removal leaves it.
        leave_link(world, "old");
        finished(world);
        // A recipe keeps it between tasks, so it is not removed with the last task.
        std::fs::create_dir_all(world.path("sessions/s/state/kept")).unwrap();
        Victim::of(&["sweep"])
    },
    removes: true,
    ..PLAIN
};

const SWEEP_LITTER: Scenario = Scenario {
    name: "sweep of refused drops and litter",
    prepare: |world| {
        world.set("rejected_keep_sec", "0");
        world.drop_in("wrong.json", WRONG);
        world.run(&["watch", "--drain"]).succeeds();
        leave_link(world, &format!(".{}.link", removed_id(world)));
        // Half a submission: killed before its rename into place.
        let submit = Victim::of(&["submit", "--recipe", "echo", "--session-id", "s"]);
        let place = crate::traced::Point {
            call: "renameat2".into(),
            n: 2,
        };
        submit.kill_at(world, &place).ends_with(128 + 9);
        assert!(!names_in(&world.path("staging")).is_empty());
        std::fs::create_dir_all(world.path("trash/session.0000000000000000/state")).unwrap();
        Victim::of(&["sweep"])
    },
    ..PLAIN
};

const CLEAR: Scenario = Scenario {
    name: "clear",
    prepare: |world| {
        finished(world);
        Victim::of(&["clear"])
    },
    removes: true,
    ..PLAIN
};

const CLEAR_ALL: Scenario = Scenario {
    name: "clear --all",
    prepare: |world| {
        finished(world);
        world.submit(&["echo", "--name", "m"]);
        Victim::of(&["clear", "--all"])
    },
    removes: true,
    ..PLAIN
};

/// One test for each, so that one failure does not hide the others.
macro_rules! killed_everywhere {
    ($($test:ident: $scenario:ident, $least:literal;)*) => {$(
        #[test]
        fn $test() {
            kill_everywhere($scenario, $least);
        }
    )*};
}

killed_everywhere! {
    submit: SUBMIT, 20;
    batch: BATCH, 40;
    autostart: AUTOSTART, 15;
    autostarted_watcher: AUTOSTARTED_WATCHER, 20;
    admission: ADMISSION, 30;
    decision_about_a_complete_task: COMPLETE, 15;
    decision_about_an_incomplete_task: INCOMPLETE, 8;
    cut_off_admission: CUT_OFF_ADMISSION, 30;
    refusal: REFUSAL, 10;
    watcher_and_runners: WATCHER_AND_RUNNERS, 40;
    runner: RUNNER, 40;
    cancelled_claim: CANCELLED_CLAIM, 8;
    stopped_by_marker: STOPPED_BY_MARKER, 20;
    timeout: TIMEOUT, 20;
    stopped_by_signal: STOPPED_BY_SIGNAL, 20;
    recovery_that_fails_the_task: RECOVERY_FAILS, 8;
    recovery_that_tries_again: RECOVERY_RETRIES, 20;
    cancel_of_a_pending_task: CANCEL_PENDING, 8;
    cancel_of_a_running_task: CANCEL_RUNNING, 3;
    cancel_of_an_orphaned_task: CANCEL_ORPHANED, 8;
    sweep_of_tasks: SWEEP_TASKS, 10;
    sweep_of_litter: SWEEP_LITTER, 8;
    clear: CLEAR, 8;
    clear_all: CLEAR_ALL, 10;
}

/// The figure of one scenario must not be taken for that of another.
#[test]
fn scenarios_have_different_names() {
    let mut names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
}
