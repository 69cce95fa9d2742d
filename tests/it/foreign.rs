//! Files that a recipe creates in its own task's folder: they stop nothing and fake no result.

use serde_json::Value;

use crate::support::processes::is_alive;
use crate::support::{Task, World, names_in};

/// What a recipe can create under a name, with the name of the kind.
const THINGS: [(&str, &str); 6] = [
    ("file", "echo '{\"v\": 1, \"ok\": true}' > $T"),
    ("whole", "cp \"$AGENTSPOOL_TASK_DIR/../../fake\" $T"),
    ("folder", "mkdir -p $T/in/it; echo x > $T/in/it/x"),
    ("link", "ln -s /etc/passwd $T"),
    ("fifo", "mkfifo $T"),
    ("huge", "truncate -s 1T $T"),
];

/// A complete, readable result of another task.
fn make_fake(world: &World) {
    make_fake_with(world, &[]);
}

fn make_fake_with(world: &World, drain: &[&str]) {
    world.recipe("honest", "#!/bin/sh\necho honest\n");
    let task = world.submit(&["honest"]);
    if !drain.is_empty() {
        world.run(drain).succeeds();
    }
    world.result_of(&task);
    let fake = task.read("result.json").replace("\"honest\"", "\"faked\"");
    std::fs::write(world.path("fake"), fake).unwrap();
}

/// A recipe that creates the thing under this name in its task's folder and then runs `then`.
fn plants(world: &World, recipe: &str, file: &str, made: &str, then: &str) {
    let script = format!("#!/bin/sh\nT=\"$AGENTSPOOL_TASK_DIR/{file}\"\n{made}\n{then}\n");
    world.recipe(recipe, &script);
}

fn is_aside(task: &Task) -> bool {
    let path = task.path.join("attempts/1/foreign-result");
    std::fs::symlink_metadata(path).is_ok()
}

#[test]
fn a_task_that_writes_its_own_result_can_be_cancelled() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    make_fake(&world);
    for (kind, made) in THINGS {
        // Created again and again, so that a file is there whatever the runner does.
        let again =
            "while :; do [ -e made ] || touch made; sleep 0.05; [ -e \"$T\" ] || { M; }; done";
        let then = format!("M() {{ {made}; }}\n{again}");
        plants(&world, kind, "result.json", made, &then);
        let task = world.submit(&[kind]);
        world.wait_for_file(&task.work(1, "made"));
        world.run(&["cancel", &task.id]).succeeds();
        assert!(task.processes().is_empty(), "{kind}: no process of it runs");
        let result = task.result();
        assert_eq!(result["status"], "cancelled", "{kind}: {result}");
        assert_eq!(result["task_id"], *task.id, "{kind}");
        assert!(is_aside(&task), "{kind}");
        let kept = std::fs::symlink_metadata(task.path.join("attempts/1/foreign-result")).unwrap();
        assert!(
            !kept.is_file() || kept.len() <= 1 << 20,
            "{kind}: {}",
            kept.len()
        );
    }
    let log = std::fs::read_to_string(world.path("watchers/log")).unwrap();
    let count = log.matches("a result.json that no runner wrote").count();
    assert_eq!(count, THINGS.len(), "once a task: {log}");
}

#[test]
fn a_task_that_writes_its_own_result_gets_its_true_end() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    make_fake(&world);
    for (kind, made) in THINGS {
        plants(&world, kind, "result.json", made, "exec sleep 1000");
        let late = world.submit(&[kind, "--timeout", "0.4"]);
        // At the last moment, when the runner does not check any more.
        let quick = format!("{kind}-quick");
        plants(&world, &quick, "result.json", made, "echo said; exit 7");
        let quick = world.submit(&[&quick]);
        for (task, error, code) in [(late, "timeout", Value::Null), (quick, "exit", 7.into())] {
            world.wait_until("the runner's result is there", || {
                let open = world.path("open").join(&task.id);
                !open.exists() && task.path.join("result.json").is_file()
            });
            let result = task.result();
            assert_eq!(result["error"]["kind"], error, "{kind}: {result}");
            assert_eq!(result["exit_code"], code, "{kind}");
            assert_eq!(result["task_id"], *task.id, "{kind}");
            assert!(is_aside(&task), "{kind}");
            let shown = world.json(&["status", &task.id]);
            assert_eq!(shown["status"], "failed", "{kind}: {shown}");
            assert_eq!(shown["condition"], Value::Null, "{kind}");
        }
    }
}

#[test]
fn our_other_files_cannot_be_faked_by_a_recipe() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    make_fake(&world);
    for file in ["status.json", ".status.json.new", "env.json"] {
        for (kind, made) in THINGS {
            let name = format!("{}-{kind}", file.trim_start_matches('.'));
            let made = format!("rm -f $T; {made}; echo '50 half' >> $AGENTSPOOL_PROGRESS_FILE");
            plants(&world, &name, file, &made, "touch made; exec sleep 1000");
            let task = world.submit(&[&name]);
            world.wait_for_file(&task.work(1, "made"));
            world.wait_until("its progress is seen", || {
                let shown = world.json(&["status", &task.id]);
                shown["status"] == "running" && shown["progress"] == 0.5
            });
            world.run(&["cancel", &task.id]).succeeds();
            assert_eq!(task.result()["status"], "cancelled", "{file} {kind}");
            world.wait_until("the status is final", || {
                world.json(&["status", &task.id])["status"] == "cancelled"
                    && task.path.join("status.json").is_file()
                    && task.status()["status"] == "cancelled"
            });
            assert!(!task.path.join("env.json").exists(), "{file} {kind}");
        }
    }
    // Only the marker's name counts, not its kind.
    for (kind, made) in THINGS {
        let name = format!("cancel-{kind}");
        plants(&world, &name, "cancel", made, "exec sleep 1000");
        let task = world.submit(&[&name]);
        assert_eq!(world.result_of(&task)["status"], "cancelled", "{kind}");
    }
}

/// What prevents a foreign result from being moved into the attempt's folder, at the recipe's last moment.
#[test]
fn a_fake_result_that_is_hard_to_move_is_not_believed() {
    const WAYS: [(&str, &str); 10] = [
        ("moved", "mv attempts/1 attempts/gone"),
        ("all-moved", "mv attempts a2"),
        ("removed", "rm -rf attempts"),
        ("linked", "mv attempts/1 attempts/g; ln -s g attempts/1"),
        ("shut-attempt", "chmod 555 attempts/1"),
        ("shut-task", "forge; chmod 555 ."),
        ("not-entered", "chmod 644 attempts/1"),
        ("nothing-entered", "chmod 0 attempts/1 ."),
        (
            "shut-place",
            "mkdir -p attempts/1/foreign-result/x; chmod 0 attempts/1/foreign-result",
        ),
        (
            "shut-folder",
            "mkdir -p result.json/x; chmod 555 result.json; forge() { :; }",
        ),
    ];
    let world = World::new();
    make_fake(&world);
    for (kind, way) in WAYS {
        let script = format!(
            "#!/bin/sh\nforge() {{ sed \"s/task_[0-9a-z]*/$AGENTSPOOL_TASK_ID/\" ../../fake >result.json; }}\n\
             cd \"$AGENTSPOOL_TASK_DIR\"\necho real\n{way}\nforge\nexit 7\n"
        );
        world.recipe(kind, &script);
        let task = world.submit(&[kind]);
        world.wait_until("the runner's result is there", || {
            !world.path("open").join(&task.id).exists() && task.path.join("result.json").is_file()
        });
        let result = task.result();
        assert_eq!(result["status"], "failed", "{kind}: {result}");
        assert_eq!(result["exit_code"], 7, "{kind}: {result}");
        world.run(&["clear", "--all"]).succeeds();
    }
}

/// The runner and the watcher were killed, and a process that is left writes a result.
#[test]
fn a_result_of_an_orphan_is_not_believed() {
    let world = World::new();
    world.set("autostart", "false");
    make_fake_with(&world, &["watch", "--drain"]);
    world.recipe(
        "orphan",
        "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"\n\
         setsid sh -c 'touch ready; while [ ! -e go ]; do sleep 0.02; done\n\
         sed \"s/task_[0-9a-z]*/$AGENTSPOOL_TASK_ID/\" ../../fake >result.json\n\
         touch written; sleep 1000' &\nsleep 1000\n",
    );
    let task = world.submit(&["orphan"]);
    let watcher = world.start_watcher();
    world.wait_for_file(&task.path.join("ready"));
    let (runner, _) = world.processes_of(&task, 1);
    world.kill_watcher(watcher);
    world.signal(runner, rustix::process::Signal::KILL);
    world.wait_until("the runner has exited", || !is_alive(runner));
    std::fs::write(task.path.join("go"), "").unwrap();
    world.wait_for_file(&task.path.join("written"));
    assert_eq!(world.json(&["status", &task.id])["status"], "pending");
    world.start_watcher();
    world.wait_until("the task has ended", || {
        world.json(&["status", &task.id])["status"] == "failed"
    });
    let result = task.result();
    assert_eq!(result["error"]["kind"], "lost", "{result}");
    assert!(task.processes().is_empty(), "{}", world.describe());
    assert!(is_aside(&task));
}

/// A task whose recipe empties its folder is not treated as removed.
#[test]
fn a_task_whose_recipe_emptied_its_folder_is_not_removed() {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cleanup_delay_sec", "0");
    world.recipe(
        "empty_folder",
        "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"\ntouch ../../ready\n\
         while [ ! -e ../../go ]; do sleep 0.02; done\nrm -rf ./* .status* ; touch ../../emptied\n\
         while [ ! -e ../../end ]; do sleep 0.02; done\n",
    );
    world.run(&["sweep"]).succeeds();
    let task = world.submit(&["empty_folder"]);
    world.start_watcher();
    world.wait_for_file(&world.path("ready"));
    world.wait_running(&task);
    std::fs::write(world.path("go"), "").unwrap();
    world.wait_for_file(&world.path("emptied"));
    for verb in ["sweep", "clear"] {
        world.run(&[verb]).succeeds();
        assert!(task.path.exists(), "{verb}");
        assert_eq!(world.json(&["list"])["tasks"][0]["task_id"], *task.id);
    }
    std::fs::write(world.path("end"), "").unwrap();
    assert_eq!(world.result_of(&task)["task_id"], *task.id);
}

/// The attempt's folder is removed, so each result that the recipe creates must be moved to another place.
#[test]
fn fake_results_do_not_accumulate() {
    let world = World::new();
    world.recipe(
        "piles",
        "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"\nrm -r attempts/1\n\
         for n in 1 2 3; do\nhead -c 2000000 /dev/zero >result.json\n\
         while [ -e result.json ]; do sleep 0.01; done\ndone\n",
    );
    let task = world.submit(&["piles"]);
    world.wait_until("the runner's result is there", || {
        !world.path("open").join(&task.id).exists() && task.path.join("result.json").is_file()
    });
    assert_eq!(task.result()["status"], "completed");
    let aside = |name: &String| name.starts_with(".foreign");
    let names: Vec<String> = names_in(&task.path).into_iter().filter(aside).collect();
    assert_eq!(names, [".foreign-result"]);
    let kept = std::fs::metadata(task.path.join(".foreign-result")).unwrap();
    assert!(kept.len() <= 1 << 20, "{} bytes", kept.len());
}
