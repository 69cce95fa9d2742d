//! `recipe list | info | run`: which recipes can run, which cannot and why, and both ways to run one.

use serde_json::json;

use crate::support::{World, write_executable};

fn world() -> World {
    let world = World::new();
    world.recipe(
        "greet",
        "#!/bin/sh\n# description: Says hello.\necho hello\n",
    );
    world.recipe_folder(
        "count",
        "description = \"Counts.\"\ntimeout = \"90s\"\non_lost = \"requeue\"\nmax_concurrent = 2\n\
         env_accept = [\"KEY\"]\n[env]\nTOKEN = \"hunter2\"\n[config]\nup_to = 3",
        "#!/bin/sh\necho 3\n",
    );
    world
}

/// Recipes that exist but cannot run.
fn create_broken_recipes(world: &World) {
    world.recipe_folder("typo", "descripton = \"x\"", "#!/bin/sh\n");
    let folder = world.path("recipes/needy");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = "command = [\"no-such-program-anywhere\"]\n";
    std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
    std::fs::write(world.path("recipes/plain.sh"), "#!/bin/sh\n").unwrap();
}

#[test]
fn the_list_shows_names_and_descriptions() {
    let world = world();
    std::fs::write(world.path("recipes/notes.txt"), "no recipe").unwrap();
    std::fs::create_dir(world.path("recipes/empty")).unwrap();
    let ran = world.run(&["recipe", "list"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "count  Counts.\ngreet  Says hello.\n");
    assert_eq!(ran.stderr, "");
    assert_eq!(
        world.run(&["recipe", "list", "-q"]).stdout,
        "count\ngreet\n"
    );
    let object = world.json(&["recipe", "list"]);
    assert_eq!(object["ok"], true);
    let greet = json!({
        "name": "greet", "kind": "executable", "description": "Says hello.",
        "path": world.path("recipes/greet"), "problem": null,
    });
    assert_eq!(object["recipes"][1], greet);
}

#[test]
fn an_empty_list_names_the_folder_for_recipes() {
    let world = World::new();
    let ran = world.run(&["recipe", "list"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "");
    let folder = world.path("recipes");
    let text = format!(
        "no recipes; put a script or a folder into {}, or create one with `agentspool recipe new NAME`\n",
        folder.display()
    );
    assert_eq!(ran.stderr, text);
}

#[test]
fn a_recipe_that_cannot_run_is_listed_with_the_reason() {
    let world = world();
    create_broken_recipes(&world);
    let object = world.json(&["recipe", "list"]);
    let problem = |name: &str| {
        let rows = object["recipes"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        row["problem"].as_str().unwrap().to_owned()
    };
    assert!(problem("needy").contains("no-such-program-anywhere"));
    assert!(problem("typo").contains("descripton"));
    let ran = world.run(&["recipe", "list"]);
    ran.succeeds();
    // One line for each recipe, however long the parser's error is.
    assert_eq!(ran.stdout.lines().count(), 4, "{}", ran.stdout);
}

#[test]
fn info_shows_everything_except_secrets() {
    let world = world();
    let ran = world.run(&["recipe", "info", "count"]);
    ran.succeeds();
    let expected = format!(
        "Recipe: count\nDescription: Counts.\nKind: folder\nPath: {}\nCommand: ./run.sh\n\
         Timeout: 90s\nIf its runner is killed: requeue\nTasks of a session: serial\nTasks at once: 2\n\
         Config: up_to = 3\nAccepts --env: KEY\n",
        world.path("recipes/count").display()
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!(ran.stderr, "");
    let ran = world.run(&["recipe", "info", "count", "--json"]);
    let object = ran.json();
    assert_eq!(object["config"], json!({"up_to": 3}));
    assert_eq!(object["env"], json!(["TOKEN"]));
    assert_eq!(object["timeout_sec"], 90.0);
    assert!(!ran.stdout.contains("hunter2"));
    assert_eq!(
        world.json(&["recipe", "info", "greet"])["timeout_sec"],
        300.0
    );
}

#[test]
fn info_shows_whether_limits_are_enforced() {
    let world = world();
    let manifest = "memory_max = \"64M\"\ntasks_max = 9\n";
    world.recipe_folder("bounded", manifest, "#!/bin/sh\n");
    let shown = |world: &World| world.run(&["recipe", "info", "bounded"]).stdout;
    let limits = "Limits: MemoryMax=67108864 MemorySwapMax=0 TasksMax=9";
    let local = shown(&world);
    assert!(
        local.contains(&format!("{limits} (not enforced:")),
        "{local}"
    );
    let object = world.json(&["recipe", "info", "bounded"]);
    assert_eq!(object["memory_max"], 64 << 20);
    assert_eq!(object["limits_enforced"], false);
    world.set("launcher", "systemd");
    let units = shown(&world);
    assert!(units.contains(&format!("{limits}\n")), "{units}");
}

#[test]
fn run_waits_and_prints_the_output() {
    let world = world();
    let ran = world.run(&["recipe", "run", "greet"]);
    ran.succeeds();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("hello\n", ""));
    world.recipe("fails", "#!/bin/sh\nexit 9\n");
    world.run(&["recipe", "run", "fails"]).ends_with(3);
}

#[test]
fn run_in_the_background_is_submit_with_a_message() {
    let world = world();
    world.set("autostart", "false");
    let arguments = [
        "recipe",
        "run",
        "greet",
        "--background",
        "--input",
        r#"{"query": "test"}"#,
        "--session-id",
        "session_123",
        "--name",
        "mine",
        "--json",
    ];
    let ran = world.run(&arguments);
    ran.succeeds();
    let object = ran.json();
    assert_eq!(object["message"], "Task submitted to background");
    assert_eq!(
        (&object["ok"], &object["recipe"]),
        (&json!(true), &json!("greet"))
    );
    let task = world.only_task();
    assert_eq!(object["task_id"], task.id);
    assert_eq!(task.request()["session_id"], "session_123");
    assert_eq!(task.request()["input"], json!({"query": "test"}));
    assert_eq!(task.request()["name"], "mine");
}

#[test]
fn an_unknown_name_is_code_7_with_a_suggestion() {
    let world = world();
    for arguments in [
        &["recipe", "info", "gret"][..],
        &["recipe", "run", "gret"],
        &["submit", "--recipe", "gret"],
    ] {
        let ran = world.run(arguments);
        ran.ends_with(7);
        assert_eq!(ran.stdout, "");
        let text = format!(
            "error: no recipe is called \"gret\" (did you mean greet?); searched in {}\n\
             hint: see `agentspool recipe list`\n",
            world.path("recipes").display()
        );
        assert_eq!(ran.stderr, text);
    }
    assert!(world.tasks().is_empty());
}

#[test]
fn a_broken_recipe_is_code_2_and_a_missing_program_code_6() {
    let world = world();
    create_broken_recipes(&world);
    for (name, code, text) in [
        ("typo", 2, "unknown field `descripton`"),
        ("plain", 2, "not executable; chmod +x"),
        ("needy", 6, "no-such-program-anywhere"),
    ] {
        let ran = world.run(&["submit", "--recipe", name]);
        ran.ends_with(code);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(text), "{name}: {}", ran.stderr);
        let object = world.json(&["recipe", "run", name, "--background"]);
        assert_eq!(
            (&object["ok"], &object["code"]),
            (&json!(false), &json!(code))
        );
    }
    // `recipe info` of a broken recipe is not an error.
    let info = world.run(&["recipe", "info", "needy"]);
    info.succeeds();
    assert!(info.stdout.contains("Cannot run: "), "{}", info.stdout);
    assert!(world.tasks().is_empty());
}

#[test]
fn special_files_block_no_command_and_links_work() {
    let world = world();
    let fifo = world.root().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let toml = format!("command = [\"true\"]\nenv_file = \"{}\"\n", fifo.display());
    let huge = world.path("recipes/huge");
    let waits = world.path("recipes/waits");
    for folder in [&huge, &waits] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(waits.join("recipe.toml"), toml).unwrap();
    let sparse = std::fs::File::create(huge.join("recipe.toml")).unwrap();
    sparse.set_len(1 << 41).unwrap();
    let list = world.run(&["recipe", "list"]);
    list.succeeds();
    assert!(
        list.stdout.contains("it is larger than 1048576 bytes"),
        "{}",
        list.stdout
    );
    let doctor = world.run(&["doctor"]);
    assert!(
        doctor.stdout.contains("it is not a regular file"),
        "{}",
        doctor.stdout
    );

    let elsewhere = world.root().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    crate::support::write_executable(
        &elsewhere.join("linked"),
        "#!/bin/sh\necho through a link\n",
    );
    std::os::unix::fs::symlink(elsewhere.join("linked"), world.path("recipes/linked")).unwrap();
    let ran = world.run(&["recipe", "run", "linked"]);
    ran.succeeds();
    assert_eq!(ran.stdout, "through a link\n");
}

#[test]
fn folders_of_recipe_path_come_after_the_spools_own() {
    let world = world();
    let more = world.root().join("more");
    std::fs::create_dir(&more).unwrap();
    write_executable(&more.join("greet"), "#!/bin/sh\necho other\n");
    write_executable(&more.join("extra.py"), "#!/bin/sh\necho extra\n");
    world.set("recipe_path", &format!("[{:?}]", more));
    assert_eq!(world.run(&["recipe", "run", "greet"]).stdout, "hello\n");
    assert_eq!(world.run(&["recipe", "run", "extra"]).stdout, "extra\n");
}

/// What `recipe list` does not show is not run by its name either.
#[test]
fn a_copy_and_the_suffix_of_a_script_are_not_names_of_recipes() {
    let world = World::new();
    world.set("autostart", "false");
    for name in [
        "shout.sh",
        "deploy.bak",
        "deploy.sh.orig",
        "old.dpkg-old",
        "echo",
        "echo.py",
    ] {
        write_executable(&world.path("recipes").join(name), "#!/bin/sh\n");
    }
    for name in [
        "shout.sh",
        "deploy.bak",
        "deploy.sh.orig",
        "old.dpkg-old",
        "echo.py",
    ] {
        let ran = world.run(&["submit", "--recipe", name]);
        ran.ends_with(7);
        assert!(ran.stderr.contains("no recipe is called"), "{}", ran.stderr);
    }
    for name in ["shout", "echo"] {
        world.run(&["submit", "--recipe", name]).succeeds();
    }
}
