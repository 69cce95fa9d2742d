//! PraisonAI recipe folders: how they are detected, which Python runs them, and the error without PraisonAI.
//!
//! Not PraisonAI itself: a small program replaces the interpreter here, and the tests of `python/tests` run
//! the real one. Invariant: a recipe that cannot run is not submitted.

use std::fs;

use serde_json::json;

use crate::support::{Ran, World, write_executable};

/// An interpreter with PraisonAI (every check succeeds) that prints how it was called.
const WITH: &str = "#!/bin/sh\ncase $2 in *find_spec*) exit 0;; esac\n\
    printf '{\"flag\": \"%s\", \"input\": %s, \"config\": %s, \"key\": \"%s\"}' \"$1\" \"$(cat)\" \
    \"$AGENTSPOOL_CONFIG\" \"$OPENAI_API_KEY\" > \"$AGENTSPOOL_RESULT_FILE\"\n";
/// An interpreter without PraisonAI.
const WITHOUT: &str = "#!/bin/sh\nexit 1\n";

/// A spool with one PraisonAI recipe, and two folders with a Python next to it.
fn world() -> World {
    let world = World::new();
    let recipe = world.path("recipes/research");
    fs::create_dir_all(&recipe).unwrap();
    let template = "name: research\ndescription: \"Answers a question.\"\n";
    fs::write(recipe.join("TEMPLATE.yaml"), template).unwrap();
    for (folder, python) in [("with", WITH), ("without", WITHOUT)] {
        let bin = world.root().join(folder);
        fs::create_dir(&bin).unwrap();
        write_executable(&bin.join("python3"), python);
    }
    world
}

/// Runs a command with one of the two folders first on PATH.
fn run(world: &World, bin: &str, arguments: &[&str]) -> Ran {
    let path = format!("{}:/usr/bin:/bin", world.root().join(bin).display());
    Ran::of(world.command(arguments).env("PATH", path))
}

#[test]
fn a_missing_installation_is_code_6_with_instructions() {
    let world = world();
    let ran = run(&world, "without", &["submit", "--recipe", "research"]);
    ran.ends_with(6);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "error: the recipe research cannot run: PraisonAI is not installed for python3; install it with \
         `python3 -m pip install praisonai`, or name the Python that has it with `agentspool config set \
         praisonai_python /path/to/python`\n"
    );
    assert!(world.tasks().is_empty());
    let list = run(&world, "without", &["recipe", "list"]);
    assert!(list.stdout.contains("cannot run: "), "{}", list.stdout);
}

#[test]
fn the_python_of_the_praisonai_program_comes_first() {
    let world = world();
    let python = world.root().join("with/python3");
    let shebang = format!("#!{}\n", python.display());
    write_executable(&world.root().join("without/praisonai"), &shebang);
    let info = run(&world, "without", &["recipe", "info", "research"]);
    info.succeeds();
    assert_eq!(
        info.stdout,
        format!(
            "Recipe: research\nDescription: Answers a question.\nKind: praisonai\nPath: {}\nPython: {}\n\
             Timeout: 300s\nIf its runner is killed: fail\nTasks of a session: serial\n\
             Accepts --env: OPENAI_API_KEY OPENAI_BASE_URL OPENAI_MODEL_NAME ANTHROPIC_API_KEY \
             GEMINI_API_KEY GOOGLE_API_KEY GROQ_API_KEY OPENROUTER_API_KEY TAVILY_API_KEY\n",
            world.path("recipes/research").display(),
            python.display()
        )
    );
    let arguments = [
        "recipe",
        "run",
        "research",
        "--input",
        "{\"query\": \"owls\"}",
    ];
    let ran = run(&world, "without", &arguments);
    ran.succeeds();
    let result: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = json!({"flag": "-c", "input": {"query": "owls"}, "config": {}, "key": ""});
    assert_eq!(result, expected);
}

#[test]
fn the_setting_comes_before_the_path_and_must_be_absolute() {
    let world = world();
    let ran = world.run(&["config", "set", "praisonai_python", "python3"]);
    ran.ends_with(2);
    assert!(
        ran.stderr.contains("must be an absolute path"),
        "{}",
        ran.stderr
    );
    let nowhere = world.root().join("nowhere/python3");
    world.set("praisonai_python", nowhere.to_str().unwrap());
    let ran = run(&world, "with", &["submit", "--recipe", "research"]);
    ran.ends_with(6);
    assert!(ran.stderr.contains("No such file"), "{}", ran.stderr);
    // A drop is refused for the same reason, whatever PATH its watcher has.
    world.start_watcher();
    world.drop_in("early.json", "{\"recipe\": \"research\"}");
    world.wait_until("the drop is refused", || {
        world
            .run(&["status", "early"])
            .stderr
            .contains("was refused")
    });
    let python = world.root().join("with/python3");
    world.set("praisonai_python", python.to_str().unwrap());
    run(&world, "without", &["recipe", "run", "research"]).succeeds();
}

#[test]
fn python_is_not_started_in_the_current_folder() {
    let world = world();
    // Python searches for modules in the folder where it is started, which may belong to another user.
    let asked = world.root().join("asked-in");
    let script = format!("#!/bin/sh\npwd > '{}'\n", asked.display());
    write_executable(&world.root().join("with/python3"), &script);
    run(&world, "with", &["recipe", "list"]).succeeds();
    assert_eq!(fs::read_to_string(asked).unwrap(), "/\n");
}

#[test]
fn a_manifest_and_an_env_file_add_to_the_template() {
    let world = world();
    let folder = world.path("recipes/research");
    let python = world.root().join("with/python3");
    world.set("praisonai_python", python.to_str().unwrap());
    fs::write(folder.join(".env"), "OPENAI_API_KEY=hunter2\n").unwrap();
    let toml = "timeout = \"90s\"\nenv_accept = [\"MODEL\"]\n[config]\nmax_tokens = 7\n";
    fs::write(folder.join("recipe.toml"), toml).unwrap();
    let info = world.json(&["recipe", "info", "research"]);
    assert_eq!(info["kind"], "praisonai");
    assert_eq!(info["timeout_sec"], 90.0);
    assert_eq!(info["env_accept"], json!(["MODEL"]));
    assert_eq!(info["description"], "Answers a question.");
    // Other users may read the key: the run is refused with an error.
    fs::set_permissions(
        folder.join(".env"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let ran = world.run(&["recipe", "run", "research"]);
    ran.ends_with(2);
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    fs::set_permissions(
        folder.join(".env"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let ran = world.run(&["recipe", "run", "research"]);
    ran.succeeds();
    let result: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&result["config"], &result["key"]),
        (&json!({"max_tokens": 7}), &json!("hunter2"))
    );

    // With a command it is an ordinary folder recipe.
    fs::write(
        folder.join("recipe.toml"),
        "command = [\"/bin/echo\", \"mine\"]\n",
    )
    .unwrap();
    assert_eq!(world.run(&["recipe", "run", "research"]).stdout, "mine\n");
    fs::write(folder.join("recipe.toml"), "comand = []\n").unwrap();
    let ran = world.run(&["recipe", "run", "research"]);
    ran.ends_with(2);
    assert!(
        ran.stderr.contains("unknown field `comand`"),
        "{}",
        ran.stderr
    );
}
