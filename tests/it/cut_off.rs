//! Tasks whose submission a power cut or a kill interrupted after the rename into `tasks/`.
//!
//! Each is a pending task with a marker that is planted as the submitter leaves it, of this boot or of
//! another. Not the syncs themselves and not real power cuts (`tests/rig`). Invariants: a complete task runs
//! once; an incomplete one never runs, is removed with a line in the log, and is not shown as damaged; no
//! drop is lost.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::marker::{OTHER_BOOT, markers, put_marker, this_boot};
use crate::support::{Ran, Task, World, names_in};

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe_folder("echo", "env_accept = [\"TOKEN\"]", "#!/bin/sh\ncat\n");
    world
}

/// A pending task with variables, and the marker of a boot.
fn published(world: &World, boot: &str) -> Task {
    let task = world.submit(&["echo", "--env", "TOKEN=secret", "--input", "1"]);
    assert_eq!(markers(&task), Vec::<String>::new(), "an accepted task");
    put_marker(&task, boot);
    task
}

/// What a power cut can do to a task: a name, and the damage.
type Damage = (&'static str, fn(&World, &Task));

const DAMAGES: [Damage; 9] = [
    ("an empty request", |_, task| {
        fs::write(task.path.join("request.json"), "").unwrap();
    }),
    ("a torn request", |_, task| {
        let text = task.read("request.json");
        fs::write(task.path.join("request.json"), &text[..text.len() / 2]).unwrap();
    }),
    ("a request of zeros", |_, task| {
        let length = task.read("request.json").len();
        fs::write(task.path.join("request.json"), vec![0; length]).unwrap();
    }),
    ("the request of another task", |world, task| {
        let other = world.submit(&["echo", "--input", "2"]);
        fs::copy(
            other.path.join("request.json"),
            task.path.join("request.json"),
        )
        .unwrap();
        world.run(&["cancel", &other.id]).succeeds();
        world.run(&["clear"]).succeeds();
    }),
    ("no request", |_, task| {
        fs::remove_file(task.path.join("request.json")).unwrap();
    }),
    ("no request and no lock", |_, task| {
        fs::remove_file(task.path.join("request.json")).unwrap();
        fs::remove_file(task.path.join("lock")).unwrap();
    }),
    ("torn variables", |_, task| {
        fs::write(task.path.join("env.json"), "").unwrap();
    }),
    ("no variables", |_, task| {
        fs::remove_file(task.path.join("env.json")).unwrap();
    }),
    ("no attempts", |_, task| {
        fs::remove_dir(task.path.join("attempts")).unwrap();
    }),
];

/// A task with each of the damages, in a world of its own.
fn each_damage(then: impl Fn(&World, &Task)) {
    for (what, damage) in DAMAGES {
        let world = world();
        // A failure prints the tree of the spool, and so the name of the damage.
        fs::write(
            world.path(&format!("recipes/{}", what.replace(' ', "-"))),
            "",
        )
        .unwrap();
        let task = published(&world, OTHER_BOOT);
        damage(&world, &task);
        then(&world, &task);
    }
}

/// As in a new boot: no comparison of index and tasks yet, and the entry of the task is lost.
fn lose_index(world: &World, task: &Task) {
    fs::remove_file(world.path("open").join(&task.id)).unwrap();
    let _ = fs::remove_file(world.path("open/.boot"));
}

#[track_caller]
fn assert_removed(world: &World, task: &Task, log: &str) {
    assert!(!task.path.exists(), "{}", world.describe());
    assert!(!world.path("open").join(&task.id).exists());
    assert!(
        log.contains(&task.id) && log.contains("before this task was accepted"),
        "{log}"
    );
    assert!(
        names_in(&world.path("trash")).is_empty(),
        "{}",
        world.describe()
    );
    let events: String = names_in(&world.path("events"))
        .iter()
        .map(|day| fs::read_to_string(world.path("events").join(day)).unwrap())
        .collect();
    let started = events
        .lines()
        .any(|line| line.contains(&task.id) && line.contains("\"started\""));
    assert!(!started, "{events}");
}

#[track_caller]
fn assert_ran_once(world: &World, task: &Task) {
    let result = world.result_of(task);
    assert_eq!(result["status"], "completed", "{result}");
    assert_eq!(result["attempt"], 1, "{result}");
    assert_eq!(markers(task), Vec::<String>::new());
}

fn drain(world: &World) -> Ran {
    let ran = world.run(&["watch", "--drain"]);
    ran.succeeds();
    ran
}

#[test]
fn a_complete_task_of_another_boot_runs() {
    for is_indexed in [true, false] {
        let world = world();
        let task = published(&world, OTHER_BOOT);
        if !is_indexed {
            lose_index(&world, &task);
        }
        drain(&world);
        assert_ran_once(&world, &task);
    }
}

#[test]
fn a_complete_task_of_another_boot_is_accepted_before_it_may_run() {
    let world = world();
    let task = published(&world, OTHER_BOOT);
    lose_index(&world, &task);
    world.run(&["pause"]).succeeds();
    world.start_watcher();
    world.wait_until("its marker is gone", || markers(&task).is_empty());
    world.wait_until("its index entry is there again", || {
        world.path("open").join(&task.id).exists()
    });
    assert_eq!(task.attempts(), 0);
}

#[test]
fn the_comparison_removes_incomplete_tasks_of_another_boot() {
    each_damage(|world, task| {
        lose_index(world, task);
        // No task is started, so no runner takes part.
        world.run(&["pause"]).succeeds();
        world.start_watcher();
        world.wait_until("it is removed", || !task.path.exists());
        world.wait_until("the trash is empty", || {
            names_in(&world.path("trash")).is_empty()
        });
        let log = world.root().join("watch.log");
        world.wait_until("the log has it", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains(&task.id))
        });
        assert_removed(world, task, &fs::read_to_string(&log).unwrap());
    });
}

#[test]
fn a_runner_removes_incomplete_tasks_of_another_boot() {
    each_damage(|world, task| {
        // Index and tasks were compared: until then a task that names another session waits.
        fs::write(world.path("open/.boot"), this_boot()).unwrap();
        let order = format!("run {}\n", task.id);
        let ran = world.run_with_stdin(&["runner"], order.as_bytes());
        assert_removed(world, task, &ran.stderr);
        // Not an answer after which the watcher would offer the task again.
        assert_eq!(ran.stdout.trim(), "finished");
    });
}

#[test]
fn a_watcher_and_its_runners_remove_incomplete_tasks_of_another_boot() {
    each_damage(|world, task| {
        let ran = drain(world);
        assert_removed(world, task, &ran.stderr);
    });
}

#[test]
fn a_cancellation_removes_incomplete_tasks_of_another_boot() {
    each_damage(|world, task| {
        let ran = world.run(&["cancel", &task.id]);
        assert_removed(world, task, &ran.stderr);
        assert_ne!(ran.code, 0, "there is no result");
    });
}

#[test]
fn clear_all_removes_incomplete_tasks_of_another_boot() {
    each_damage(|world, task| {
        // Not finished, so neither of these takes it.
        world.run(&["clear"]).succeeds();
        world.run(&["sweep"]).succeeds();
        assert!(task.path.exists());
        let ran = world.run(&["clear", "--all", "--yes"]);
        ran.succeeds();
        assert_removed(world, task, &ran.stderr);
    });
}

#[test]
fn an_undecided_task_is_shown_as_pending_and_not_as_damaged() {
    each_damage(|world, task| {
        // A power cut leaves the status empty as well.
        for status in ["", "{"] {
            fs::write(task.path.join("status.json"), status).unwrap();
            let shown = world.json(&["status", &task.id]);
            assert_eq!(shown["status"], "pending", "{shown}");
            assert_eq!(shown["condition"], Value::Null, "{shown}");
            let listed = world.json(&["list"]);
            assert_eq!(listed["tasks"][0]["condition"], Value::Null, "{listed}");
            let doctor = world.run(&["doctor"]);
            assert!(!doctor.stdout.contains("damaged"), "{}", doctor.stdout);
        }
        drain(world);
        assert!(!task.path.exists());
        let listed = world.json(&["list"]);
        assert_eq!(listed["tasks"].as_array().unwrap().len(), 0, "{listed}");
    });
}

/// A process that is still syncing it holds the lock.
#[test]
fn a_task_whose_submitter_lives_is_not_run_and_not_removed() {
    for boot in [this_boot(), OTHER_BOOT.to_owned()] {
        let world = world();
        let task = published(&world, &boot);
        fs::write(task.path.join("request.json"), "").unwrap();
        let lock = fs::File::open(task.path.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        world.run(&["runner", "--once", &task.id]);
        lose_index(&world, &task);
        let watcher = world.start_watcher();
        world.wait_until("the comparison is over", || {
            world.path("open/.boot").exists()
        });
        assert_eq!(markers(&task).len(), 1);
        assert_eq!(task.attempts(), 0);
        world.kill_watcher(watcher);
    }
}

/// Its submitter was killed. The page cache has its files.
#[test]
fn a_task_of_this_boot_runs_unacknowledged() {
    let world = world();
    let task = published(&world, &this_boot());
    let status = world.json(&["status", &task.id]);
    assert_eq!(status["status"], "pending", "{status}");
    drain(&world);
    assert_ran_once(&world, &task);
}

/// A disk may lose writes without a power cut: after an error the file system is mounted again in the same boot.
#[test]
fn a_damaged_task_of_this_boot_is_removed_like_any_other() {
    let world = world();
    let task = published(&world, &this_boot());
    fs::write(task.path.join("request.json"), "").unwrap();
    world.run(&["runner", "--once", &task.id]);
    assert!(!task.path.exists(), "{}", world.describe());
    assert_eq!(world.json(&["list"])["total"], 0);
}

/// The removal of a marker is not synced, so a power cut may bring it back.
#[test]
fn a_task_that_has_run_stays_whatever_its_marker_says() {
    let world = world();
    let finished = world.submit(&["echo"]);
    drain(&world);
    let begun = world.submit(&["echo"]);
    fs::create_dir(begun.path.join("attempts/1")).unwrap();
    for task in [&finished, &begun] {
        put_marker(task, OTHER_BOOT);
        fs::write(task.path.join("request.json"), "").unwrap();
    }
    world.run(&["runner", "--once", &finished.id]);
    assert_eq!(finished.result()["status"], "completed");
    world.run(&["runner", "--once", &begun.id]);
    assert!(begun.path.exists(), "{}", world.describe());
    let shown = world.json(&["status", &begun.id]);
    assert_ne!(shown["status"], "completed", "{shown}");
}

#[test]
fn only_a_well_formed_name_is_a_marker() {
    let world = world();
    let task = world.submit(&["echo"]);
    for name in [".new.", ".new.x", ".status.json.new"] {
        fs::write(task.path.join(name), "").unwrap();
    }
    fs::write(task.path.join("request.json"), "").unwrap();
    fs::remove_file(task.path.join("status.json")).unwrap();
    let shown = world.json(&["status", &task.id]);
    assert_eq!(shown["condition"], "damaged", "{shown}");
}

const DROP: &str = r#"{"recipe": "echo", "input": 7}"#;

/// The claim of the drop that a task was created from.
fn claim(world: &World, task: &Task) -> std::path::PathBuf {
    let claim = world.path("staging").join(format!("{}.claim", task.id));
    fs::create_dir(&claim).unwrap();
    fs::write(claim.join("dropped.json"), DROP).unwrap();
    claim
}

/// The watcher was killed, or the power was cut, between the rename and the removal of the claim.
#[test]
fn an_incomplete_task_is_created_again_from_its_claim() {
    each_damage(|world, task| {
        let claim = claim(world, task);
        lose_index(world, task);
        drain(world);
        let result = world.result_of(task);
        assert_eq!(result["output"], 7, "{result}");
        assert_eq!(task.request()["name"], "dropped");
        assert!(!claim.exists());
        assert_eq!(world.tasks().len(), 1, "{}", world.describe());
        assert_eq!(markers(task), Vec::<String>::new());
    });
}

/// A runner that was faster than the replay removes only the task. The claim creates it again.
#[test]
fn a_claim_outlives_the_removal_of_its_task() {
    each_damage(|world, task| {
        let claim = claim(world, task);
        let ran = world.run(&["runner", "--once", &task.id]);
        assert_removed(world, task, &ran.stderr);
        assert!(claim.exists());
        drain(world);
        assert_eq!(world.result_of(task)["output"], 7);
    });
}

#[test]
fn a_complete_task_is_not_created_again_from_its_claim() {
    for boot in [this_boot(), OTHER_BOOT.to_owned()] {
        let world = world();
        let task = published(&world, &boot);
        let claim = claim(&world, &task);
        drain(&world);
        assert_ran_once(&world, &task);
        assert_eq!(task.result()["output"], 1);
        assert!(!claim.exists());
        assert_eq!(world.tasks().len(), 1);
    }
}

/// A claim may go only after the syncs of its task, and the task is locked while somebody may be syncing it.
#[test]
fn a_claim_stays_while_its_task_is_undecided() {
    let world = world();
    let task = published(&world, OTHER_BOOT);
    let claim = claim(&world, &task);
    let lock = fs::File::open(task.path.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    world.start_watcher();
    // A drop that comes later is admitted after the claims were replayed.
    world.drop_in("later.json", DROP);
    world.wait_until("the later drop is a task", || {
        fs::symlink_metadata(world.path("names/later")).is_ok()
    });
    assert!(claim.join("dropped.json").exists());
    drop(lock);
    world.wait_until("the claim is finished", || !claim.exists());
    assert_ran_once(&world, &task);
}

/// `cp -a`, in this boot and as it looks on another machine or after the next boot.
#[test]
fn a_copied_spool_decides_for_itself() {
    for boot in [this_boot(), OTHER_BOOT.to_owned()] {
        let world = world();
        let whole = published(&world, &boot);
        let cut = published(&world, OTHER_BOOT);
        fs::write(cut.path.join("request.json"), "").unwrap();
        let copy = world.root().join("copy");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .args([world.spool(), &copy])
            .status();
        assert!(copied.unwrap().success());
        let there = |task: &Task| copy.join("tasks").join(&task.id);
        let run = |arguments: &[&str]| {
            let spool = ["--spool", copy.to_str().unwrap()];
            world.run(&[&spool[..], arguments].concat())
        };
        // The copy is paused until its owner resumes it.
        run(&["list"]).succeeds();
        run(&["resume"]).succeeds();
        run(&["watch", "--drain"]).succeeds();
        assert!(there(&whole).join("result.json").exists());
        assert!(!there(&cut).exists());
        assert!(Path::new(&whole.path).exists() && cut.path.exists());
    }
}
