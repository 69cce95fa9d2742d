//! What a recipe puts into its own task's folder where only we write: it stops and fakes nothing.

use serde_json::Value;

use crate::support::{Task, World};

/// What a recipe can make of a name, and how it is known afterwards.
const THINGS: [(&str, &str); 6] = [
    ("file", "echo '{\"v\": 1, \"ok\": true}' > $T"),
    ("whole", "cp \"$AGENTSPOOL_TASK_DIR/../../fake\" $T"),
    ("folder", "mkdir -p $T/in/it; echo x > $T/in/it/x"),
    ("link", "ln -s /etc/passwd $T"),
    ("fifo", "mkfifo $T"),
    ("huge", "truncate -s 1T $T"),
];

/// A result of another task: whole and readable.
fn make_fake(world: &World) {
    world.recipe("honest", "#!/bin/sh\necho honest\n");
    let task = world.submit(&["honest"]);
    world.result_of(&task);
    let fake = task.read("result.json").replace("\"honest\"", "\"faked\"");
    std::fs::write(world.path("fake"), fake).unwrap();
}

/// A recipe that makes the thing under this name in its task's folder and then goes on with `then`.
fn plants(world: &World, recipe: &str, file: &str, made: &str, then: &str) {
    let script = format!("#!/bin/sh\nT=\"$AGENTSPOOL_TASK_DIR/{file}\"\n{made}\n{then}\n");
    world.recipe(recipe, &script);
}

fn is_aside(task: &Task) -> bool {
    let path = task.path.join("attempts/1/foreign-result");
    std::fs::symlink_metadata(path).is_ok()
}

#[test]
fn a_task_with_a_result_that_it_made_itself_can_be_cancelled() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    make_fake(&world);
    for (kind, made) in THINGS {
        // Made again and again, so that one stands there whatever the runner does.
        let again =
            "while :; do [ -e made ] || touch made; sleep 0.05; [ -e \"$T\" ] || { M; }; done";
        let then = format!("M() {{ {made}; }}\n{again}");
        plants(&world, kind, "result.json", made, &then);
        let task = world.submit(&[kind]);
        world.wait_for_file(&task.work(1, "made"));
        world.run(&["cancel", &task.id]).succeeds();
        assert!(task.processes().is_empty(), "{kind}: nothing of it runs");
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
    let said = log.matches("a result.json that no runner wrote").count();
    assert_eq!(said, THINGS.len(), "once a task: {log}");
}

#[test]
fn it_times_out_and_ends_as_it_really_ended() {
    let world = World::new();
    world.set("cancel_grace_sec", "0");
    make_fake(&world);
    for (kind, made) in THINGS {
        plants(&world, kind, "result.json", made, "exec sleep 1000");
        let late = world.submit(&[kind, "--timeout", "0.4"]);
        // In its last moment, when nobody looks any more.
        let quick = format!("{kind}-quick");
        plants(&world, &quick, "result.json", made, "echo said; exit 7");
        let quick = world.submit(&[&quick]);
        for (task, error, code) in [(late, "timeout", Value::Null), (quick, "exit", 7.into())] {
            world.wait_until("its own result stands", || {
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
fn other_files_of_ours_that_a_recipe_makes_fake_nothing() {
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
            world.wait_until("the status is settled", || {
                world.json(&["status", &task.id])["status"] == "cancelled"
                    && task.path.join("status.json").is_file()
                    && task.status()["status"] == "cancelled"
            });
            assert!(!task.path.join("env.json").exists(), "{file} {kind}");
        }
    }
    // The marker's name counts, whatever stands there.
    for (kind, made) in THINGS {
        let name = format!("cancel-{kind}");
        plants(&world, &name, "cancel", made, "exec sleep 1000");
        let task = world.submit(&[&name]);
        assert_eq!(world.result_of(&task)["status"], "cancelled", "{kind}");
    }
}
