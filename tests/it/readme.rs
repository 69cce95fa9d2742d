//! The README's examples: every command in them parses, and their output is what the program prints.
//!
//! Ids and times differ in each run, so only examples without them are compared.

use std::process::Command;

use crate::support::{PROGRAM, Ran, World};

/// A command of a `console` block, and the output below it.
struct Example {
    command: String,
    shown: String,
}

fn examples() -> Vec<Example> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<Example> = Vec::new();
    for block in text.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => found.push(Example {
                    command: command.to_owned(),
                    shown: String::new(),
                }),
                None => found.last_mut().unwrap().shown += &format!("{line}\n"),
            }
        }
    }
    found
}

/// A shell in a sealed world, in which `agentspool` runs the program with the arguments `more`.
fn shell(world: &World, command: &str, more: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!(
            "agentspool() {{ {PROGRAM} \"$@\" {more}; }}\n{command}"
        ))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", world.root().join("home"))
        .current_dir(world.root());
    shell
}

#[test]
fn the_first_command_prints_the_shown_output() {
    let first = examples().remove(0);
    let world = World::with_samples();
    let command = first
        .command
        .replace("cargo run --release --", "agentspool");
    assert_ne!(command, first.command, "the first example is no cargo run");
    let ran = Ran::of(&mut shell(&world, &command, ""));
    assert_eq!(ran.succeeds().stdout, first.shown);
}

#[test]
fn every_command_parses() {
    let world = World::without_spool();
    let mut seen = 0;
    for example in examples() {
        if !example.command.contains("agentspool") {
            continue;
        }
        // Flags before --help are checked. Missing arguments are not, and the command is not run.
        let ran = Ran::of(&mut shell(&world, &example.command, "--help"));
        ran.succeeds();
        assert!(ran.stdout.contains("Usage: agentspool"), "{}", ran.stdout);
        seen += 1;
    }
    assert!(seen > 15, "only {seen} commands were found");
    assert!(!world.spool().exists());
}

#[test]
fn output_that_does_not_vary_is_shown_exactly() {
    const SAME: [&str; 6] = [
        "agentspool recipe list",
        "agentspool recipe info summarize",
        "agentspool recipe run hello",
        "agentspool status nosuch --json",
        "agentspool config set max_concurrent 2",
        "agentspool config unset max_concurrent",
    ];
    let world = World::with_samples();
    let root = world.root().to_str().unwrap().to_owned();
    let examples = examples();
    for command in SAME {
        let example = examples.iter().find(|example| example.command == command);
        let example = example.unwrap_or_else(|| panic!("{command} is not in the README"));
        let mut shell = shell(&world, command, "");
        let ran = Ran::of(shell.env("AGENTSPOOL_DIR", world.spool()));
        let printed = ran.stdout.replace(&root, "/path/to/agentspool");
        assert_eq!(printed, example.shown, "{command}: {}", ran.stderr);
    }
}

#[test]
fn the_exit_codes_are_those_of_help() {
    let help = World::without_spool().run(&["--help"]).stdout;
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let table = help.split("Exit codes:\n").nth(1).unwrap();
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {} |", meaning.trim());
        assert!(readme.contains(&row), "the README lacks {row}");
    }
}

/// The file of a watcher that was killed is left, and its pid may now belong to another process.
#[test]
fn the_command_that_stops_the_watcher_stops_no_other_process() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1);
    let mut blocks = blocks.map(|block| block.split("```").next().unwrap());
    let stop = blocks
        .find(|block| block.contains("watchers/*.json"))
        .unwrap();
    let world = World::with_samples();
    let watcher = world.start_watcher();
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    let stale = format!("{{\n  \"v\": 1,\n  \"pid\": {}\n}}\n", bystander.id());
    std::fs::write(world.path("watchers/00.json"), stale).unwrap();
    Ran::of(&mut shell(&world, stop, ""));
    world.wait_until("the watcher has exited", || {
        !world
            .watcher_pids()
            .contains(&i32::try_from(watcher).unwrap())
    });
    let is_alive = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(is_alive);
}
