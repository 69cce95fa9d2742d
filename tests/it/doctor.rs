//! `agentspool doctor`: each problem is created and must be reported. The command changes nothing.
//!
//! What needs root or mounts (a full or read-only disk) is in `tests/rig`, what needs systemd is in
//! `tests/systemd`. Invariant: exit code 0 only if all is well, 8 if the spool cannot be used, and a hint for
//! every problem.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use agentspool::task::TaskId;
use serde_json::{Value, json};

use crate::support::{World, names_in, read_json};

fn world() -> World {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    // The world may be on a tmpfs, where `power` promises more than the disk can keep.
    world.set("durability", "process");
    world
}

/// The lines of one check.
fn of<'a>(object: &'a Value, name: &str) -> Vec<&'a Value> {
    let checks = object["checks"].as_array().unwrap();
    checks
        .iter()
        .filter(|check| check["name"] == name)
        .collect()
}

/// Asserts that a check has this status, these words and a hint, and that no other check fails.
#[track_caller]
fn assert_only_problem(world: &World, name: &str, status: &str, words: &str) -> Value {
    let ran = world.run(&["doctor", "--json"]);
    let object = ran.json();
    let wrong = object["checks"].as_array().unwrap().iter();
    let wrong: Vec<&Value> = wrong.filter(|check| check["status"] != "ok").collect();
    let as_expected = wrong.iter().any(|check| {
        check["name"] == name
            && check["status"] == status
            && check["message"].as_str().unwrap().contains(words)
            && !check["hint"].as_str().unwrap().is_empty()
    });
    assert!(
        as_expected,
        "no {status} of {name} with {words:?}: {object:#}"
    );
    assert!(
        wrong.iter().all(|check| check["name"] == name),
        "{object:#}"
    );
    assert_eq!(object["ok"], false);
    assert_eq!(object["code"], ran.code);
    object
}

#[track_caller]
fn assert_all_is_well(world: &World) -> Value {
    let ran = world.run(&["doctor", "--json"]);
    ran.succeeds();
    let object = ran.json();
    assert_eq!(object["ok"], true);
    object
}

#[test]
fn a_new_spool_has_no_problem_and_one_line_for_each_check() {
    let world = world();
    let object = assert_all_is_well(&world);
    let text = world.run(&["doctor"]);
    text.succeeds();
    let names: Vec<&str> = object["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "spool",
            "writable",
            "folders above",
            "file system",
            "identity",
            "clock",
            "watcher",
            "sweeps",
            "launcher",
            "limits",
            "recipes",
            "recipe path",
            "leftovers",
            "tasks"
        ]
    );
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!(lines.len(), names.len(), "{}", text.stdout);
    for (line, name) in lines.iter().zip(names) {
        assert!(line.starts_with(&format!("ok       {name}: ")), "{line}");
    }
    assert_eq!(world.run(&["doctor", "--quiet"]).stdout, "");
}

#[test]
fn doctor_changes_nothing() {
    let world = world();
    let spool = world.spool();
    fs::remove_dir(spool.join("slots")).unwrap();
    fs::remove_file(spool.join("identity.json")).unwrap();
    fs::write(world.path("open").join(id(1)), "").unwrap();
    let before = names(&world);
    world.run(&["doctor"]).ends_with(1);
    assert_eq!(names(&world), before);
}

fn names(world: &World) -> Vec<String> {
    let mut all = Vec::new();
    for folder in names_in(world.spool()) {
        all.push(folder.clone());
        all.extend(
            names_in(&world.path(&folder))
                .iter()
                .map(|name| format!("{folder}/{name}")),
        );
    }
    all.sort();
    all
}

fn id(n: u128) -> String {
    TaskId::from_parts(1_000_000_000_000, n).to_string()
}

#[test]
fn a_spool_that_cannot_be_used_is_code_8() {
    let world = World::without_spool();
    let ran = world.run(&["doctor", "--json"]);
    ran.ends_with(8);
    let object = ran.json();
    assert_eq!((&object["ok"], &object["code"]), (&json!(false), &json!(8)));
    assert!(
        object["error"].as_str().unwrap().contains("is not a spool"),
        "{object}"
    );
    let [check] = of(&object, "spool")[..] else {
        panic!("{object}")
    };
    assert!(
        check["hint"].as_str().unwrap().contains("agentspool init"),
        "{check}"
    );
    let text = world.run(&["doctor"]);
    text.ends_with(8);
    assert!(
        text.stdout.starts_with("problem  spool: "),
        "{}",
        text.stdout
    );

    world.run(&["init"]).succeeds();
    fs::write(world.path("spool.json"), "{\"v\": 2, \"max_concurent\": 2}").unwrap();
    let ran = world.run(&["doctor", "--json"]);
    ran.ends_with(8);
    assert!(
        ran.json()["error"]
            .as_str()
            .unwrap()
            .contains("max_concurrent")
    );
}

/// `init` does not help: it would refuse the folder.
#[test]
fn a_spool_without_its_settings_is_reported_as_a_spool() {
    let world = world();
    fs::remove_file(world.path("spool.json")).unwrap();
    for arguments in [&["doctor"][..], &["init"], &["list"]] {
        let ran = world.run(arguments);
        ran.ends_with(8);
        let text = ran.stdout + &ran.stderr;
        assert!(
            text.contains("is a spool whose spool.json is missing"),
            "{text}"
        );
        assert!(!text.contains("create one with"), "{text}");
    }
    fs::write(world.path("spool.json"), "{\"v\": 2}").unwrap();
    world.run(&["list"]).succeeds();
}

#[test]
fn a_damaged_result_of_a_finished_task_is_reported() {
    let world = world();
    let task = world.submit(&["ok"]);
    world.result_of(&task);
    world.run(&["watch", "--drain"]).succeeds();
    fs::write(world.path("tasks").join(&task.id).join("result.json"), "{").unwrap();
    let ran = world.run(&["doctor"]);
    assert!(
        ran.stdout
            .contains(&format!("tasks: 1 task ({}) cannot be read", task.id)),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_missing_folder_is_reported() {
    let world = world();
    fs::remove_dir(world.path("slots")).unwrap();
    assert_only_problem(&world, "spool", "problem", "has no slots");
    world.run(&["init"]).succeeds();
    assert_all_is_well(&world);
}

#[test]
fn a_spool_that_cannot_be_written_is_code_8() {
    let world = world();
    // Not a question of permissions, so it fails for root as well.
    fs::remove_dir(world.path("staging")).unwrap();
    fs::write(world.path("staging"), "").unwrap();
    let ran = world.run(&["doctor", "--json"]);
    ran.ends_with(8);
    let object = ran.json();
    assert_eq!(of(&object, "writable")[0]["status"], "problem");
}

#[test]
fn too_little_free_room_is_a_problem() {
    let world = world();
    world.set("min_free_bytes", "1000000000000000000");
    let object = assert_only_problem(&world, "file system", "problem", "no task is accepted");
    assert_eq!(object["code"], 8);
}

#[test]
fn a_copied_spool_is_reported() {
    let world = world();
    let path = world.path("identity.json");
    let mut identity = read_json(&path);
    identity["inode"] = json!(identity["inode"].as_u64().unwrap() + 1);
    fs::write(&path, identity.to_string()).unwrap();
    assert_only_problem(&world, "identity", "warn", "is that of another folder");
    world.run(&["list"]).succeeds();
    assert_only_problem(&world, "paused", "warn", "copy");
    world.run(&["resume"]).succeeds();
    assert_all_is_well(&world);
}

#[test]
fn the_watcher_is_reported_with_its_age_and_version() {
    let world = world();
    world.set("autostart", "false");
    assert_only_problem(&world, "watcher", "problem", "none, so no task starts");
    world.set("autostart", "true");
    let object = assert_all_is_well(&world);
    let message = &of(&object, "watcher")[0]["message"];
    assert_eq!(message, "none; the next submit starts one");

    let pid = world.start_watcher();
    let object = assert_all_is_well(&world);
    let message = of(&object, "watcher")[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("pid {pid} since 20")),
        "{message}"
    );

    // The same watcher, as if it had been started before an upgrade.
    let file = names_in(&world.path("watchers"))
        .into_iter()
        .find(|name| name.ends_with(".json"))
        .unwrap();
    let path = world.path("watchers").join(file);
    let mut file = read_json(&path);
    file["version"] = "0.0.1".into();
    fs::write(&path, file.to_string()).unwrap();
    assert_only_problem(
        &world,
        "watcher",
        "warn",
        "version 0.0.1, but this program is version ",
    );
}

#[test]
fn open_tasks_without_a_watcher_are_a_problem() {
    let world = world();
    world.set("autostart", "false");
    let task = world.submit(&["ok"]);
    world.set("autostart", "true");
    assert_only_problem(&world, "watcher", "problem", "none, and 1 task open");
    world.run(&["runner", "--once", &task.id]).succeeds();
    assert_all_is_well(&world);
}

#[test]
fn drops_without_a_watcher_are_a_problem() {
    let world = world();
    world.drop_in("waits.json", "{\"recipe\": \"ok\"}");
    assert_only_problem(
        &world,
        "watcher",
        "problem",
        "none, and 1 file in the drop box",
    );
    world.start_watcher();
    world.wait_until("it is taken", || {
        !world.path("incoming/waits.json").exists()
    });
    assert_all_is_well(&world);
}

#[test]
fn a_spool_that_is_not_swept_is_reported() {
    let world = world();
    world.set("autostart", "false");
    let task = world.submit(&["ok"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    world.set("autostart", "true");
    world.run(&["sweep"]).succeeds();
    assert_all_is_well(&world);
    // Two days pass, for both clocks.
    let mut clock = read_json(&world.path("sweep.json"));
    let now = agentspool::internals::wall().unix_ms();
    let then = agentspool::task::Timestamp::from_unix_ms(now - 2 * 86_400_000);
    clock["wall"] = then.to_string().into();
    let boot = clock["boottime_sec"].as_f64().unwrap();
    clock["boottime_sec"] = json!(boot - 2.0 * 86_400.0);
    fs::write(world.path("sweep.json"), clock.to_string()).unwrap();
    assert_only_problem(&world, "sweeps", "warn", "no timer and no watcher");
}

#[test]
fn a_clock_that_jumped_is_reported() {
    let world = world();
    world.run(&["sweep"]).succeeds();
    let mut clock = read_json(&world.path("sweep.json"));
    clock["wall"] = "9000-01-01T00:00:00.000Z".into();
    fs::write(world.path("sweep.json"), clock.to_string()).unwrap();
    assert_only_problem(&world, "clock", "warn", "jumped");
    world.run(&["sweep"]).succeeds();
    assert_all_is_well(&world);
}

#[test]
fn a_task_from_the_future_is_reported() {
    let world = world();
    let ahead = agentspool::internals::wall().unix_ms().unsigned_abs() + 3_600_000;
    let id = TaskId::from_parts(ahead, 1).to_string();
    fs::create_dir(world.path("tasks").join(id)).unwrap();
    assert_only_problem(&world, "clock", "warn", "is in the future");
}

#[test]
fn recipes_that_cannot_run_have_a_line_each() {
    let world = world();
    world.recipe_folder("broken", "tiemout = 3", "#!/bin/sh\n");
    let folder = world.path("recipes/needy");
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("recipe.toml"),
        "command = [\"no-such-program\"]\n",
    )
    .unwrap();
    world.recipe_folder("leaky", "env_file = \"secrets\"", "#!/bin/sh\n");
    fs::write(world.path("recipes/leaky/secrets"), "TOKEN=hunter2\n").unwrap();
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(world.path("recipes/leaky/secrets"), open).unwrap();
    for words in ["tiemout", "no-such-program", "other users can access it"] {
        assert_only_problem(&world, "recipes", "problem", words);
    }
    let ran = world.run(&["doctor"]);
    ran.ends_with(1);
    assert_eq!(
        ran.stdout.matches("problem  recipes: ").count(),
        3,
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("hunter2"));
}

#[test]
fn no_recipe_at_all_is_a_warning() {
    let world = world();
    fs::remove_file(world.path("recipes/ok")).unwrap();
    assert_only_problem(&world, "recipes", "warn", "there are no recipes");
}

#[test]
fn recipes_that_other_users_can_change_are_a_problem() {
    let world = world();
    let listed = world.root().join("listed");
    let setting = format!("[\"{}\"]", listed.display());
    world.set("recipe_path", &setting);
    assert_only_problem(&world, "recipe path", "warn", "does not exist");
    fs::create_dir(&listed).unwrap();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&listed, 0o755);
    assert_all_is_well(&world);
    mode(&listed, 0o777);
    assert_only_problem(&world, "recipe path", "problem", "anybody may write there");
    mode(&listed, 0o755);
    let recipe = world.path("recipes/ok");
    assert_eq!(fs::metadata(&recipe).unwrap().mode() & 0o777, 0o755);
    mode(&recipe, 0o757);
    assert_only_problem(
        &world,
        "recipe path",
        "problem",
        "recipes/ok: anybody may write there",
    );
}

#[test]
fn leftovers_are_counted() {
    let world = world();
    let staged = world.path("staging").join(id(1));
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("lock"), "").unwrap();
    assert_only_problem(
        &world,
        "leftovers",
        "warn",
        "1 incomplete submission in staging/",
    );
    fs::remove_dir_all(staged).unwrap();

    let trash_entry = world.path("trash").join(format!("{}.00000000", id(1)));
    fs::create_dir(&trash_entry).unwrap();
    assert_only_problem(&world, "leftovers", "warn", "in trash/");
    world.run(&["sweep"]).succeeds();
    assert!(!trash_entry.exists());

    fs::write(world.path("open").join(id(2)), "").unwrap();
    let object = world.json(&["doctor"]);
    let message = &of(&object, "leftovers")[0]["message"];
    assert_eq!(message, "1 index entry in open/ without a task");
    fs::remove_file(world.path("open").join(id(2))).unwrap();

    let drop = world.path("rejected").join(format!("{}-x", id(3)));
    fs::write(drop.with_extension("json"), "[]").unwrap();
    fs::write(drop.with_extension("reason.json"), "{}").unwrap();
    assert_only_problem(&world, "leftovers", "warn", "1 refused drop in rejected/");
}

/// A file with a wrong name, which no watcher reads, is reported. So is a folder.
#[test]
fn files_in_the_drop_box_that_no_watcher_takes_are_reported() {
    let world = world();
    let names = ["UPPER.JSON", "many.jsonl", "notes.txt"];
    for name in names {
        fs::write(world.path("incoming").join(name), r#"{"recipe":"ok"}"#).unwrap();
        let object = assert_only_problem(&world, "leftovers", "warn", name);
        let message = of(&object, "leftovers")[0]["message"].as_str().unwrap();
        assert!(message.starts_with("1 entry in incoming/"), "{message}");
        fs::remove_file(world.path("incoming").join(name)).unwrap();
    }
    for name in ["folder", "folder.json"] {
        fs::create_dir(world.path("incoming").join(name)).unwrap();
    }
    let words = "2 entries in incoming/ that no watcher takes (folder, folder.json)";
    assert_only_problem(&world, "leftovers", "warn", words);
}

#[test]
fn tasks_that_need_a_person_are_reported() {
    let world = world();
    world.set("autostart", "false");
    let (damaged, newer) = (world.submit(&["ok"]), world.submit(&["ok"]));
    world.start_watcher();
    for (task, request, words) in [
        (&damaged, "{", "cannot be read"),
        (
            &newer,
            "{\"v\": 2, \"recipe\": \"ok\"}",
            "written by a newer agentspool",
        ),
    ] {
        world.result_of(task);
        // After the result exists, the runner still has to update the status and remove the index entry.
        let entry = world.path("open").join(&task.id);
        world.wait_until("the task is finalized", || !entry.exists());
        fs::remove_file(task.path.join("result.json")).unwrap();
        fs::remove_file(task.path.join("status.json")).unwrap();
        fs::remove_dir_all(task.path.join("attempts")).unwrap();
        fs::create_dir(task.path.join("attempts")).unwrap();
        fs::write(task.path.join("request.json"), request).unwrap();
        fs::write(world.path("open").join(&task.id), "").unwrap();
        let object = assert_only_problem(&world, "tasks", "problem", words);
        let named = of(&object, "tasks")
            .iter()
            .any(|check| check["message"].as_str().unwrap().contains(&task.id));
        assert!(named, "{object:#}");
    }
}

#[test]
fn too_few_open_files_are_a_problem() {
    let world = world();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 50; exec \"$0\" doctor --json"])
        .arg(crate::support::PROGRAM)
        .env("AGENTSPOOL_DIR", world.spool());
    let ran = crate::support::Ran::of(&mut command);
    ran.ends_with(1);
    let object = ran.json();
    assert_eq!(of(&object, "limits")[0]["status"], "problem", "{object:#}");
}
