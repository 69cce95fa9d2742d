//! `docs/cli-reference.md` is generated from the program: `UPDATE_DOCS=1 cargo test reference` writes it.
//! Without the variable the test compares it with the program's output.
//!
//! The verbs come from `--help`, the settings from `config --json` in a new spool, their meaning and the
//! variables from the comments in `src/config.rs` and `src/cli/env.rs`.

use std::fmt::Write as _;

use crate::support::{Ran, World};

/// The output of `--help`, as wide as on a wide terminal.
fn help(world: &World, verbs: &[String]) -> String {
    let mut arguments: Vec<&str> = verbs.iter().map(String::as_str).collect();
    arguments.push("--help");
    let ran = Ran::of(world.command(&arguments).env("COLUMNS", "100"));
    ran.succeeds();
    let lines: Vec<&str> = ran.stdout.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The verbs below a verb, as its help lists them.
fn verbs_in(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    rest.lines()
        .take_while(|line| line.starts_with("  "))
        .filter(|line| line.as_bytes().get(2).is_some_and(|b| *b != b' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

fn write_verb(world: &World, verbs: &[String], text: &mut String) {
    let help = help(world, verbs);
    let mut title = vec!["agentspool".to_owned()];
    title.extend(verbs.iter().cloned());
    writeln!(text, "\n### {}\n\n```text\n{help}\n```", title.join(" ")).unwrap();
    // The verbs of `background` are those at the top level.
    if verbs.first().is_some_and(|verb| verb == "background") {
        return;
    }
    for verb in verbs_in(&help) {
        let mut below = verbs.to_vec();
        below.push(verb);
        write_verb(world, &below, text);
    }
}

/// The comment above each line that `name_of` recognises.
fn commented(source: &str, name_of: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            comment += words;
        } else if !line.starts_with("#[") {
            found.extend(name_of(line).map(|name| (name, comment.trim().to_owned())));
            comment.clear();
        }
    }
    found
}

/// An item of a list, in lines of at most 110 characters.
fn item(words: &str) -> String {
    let mut lines = String::from("-");
    let mut length = 1;
    for word in words.split(' ') {
        let more = word.chars().count() + 1;
        if length + more > 110 {
            lines += "\n ";
            length = 1;
        }
        lines += " ";
        lines += word;
        length += more;
    }
    lines + "\n"
}

fn unit(setting: &str) -> &'static str {
    match setting.rsplit('_').next() {
        Some("sec") => "seconds",
        Some("bytes") => "bytes",
        Some("inodes") => "inodes",
        Some("concurrent" | "tasks") => "tasks",
        _ => "",
    }
}

fn reference() -> String {
    let mut text = "# Command line\n\n\
        This page lists every command, flag, exit code, setting and variable. It is not an introduction; that is the\n\
        [README](../README.md). `tests/it/reference.rs` generates the page: change the program, then run\n`UPDATE_DOCS=1 cargo test reference`.\n\n\
        ## Verbs\n"
        .to_owned();
    let world = World::without_spool();
    write_verb(&world, &[], &mut text);

    text += "\n## Exit codes\n\n| code | meaning |\n|---|---|\n";
    let help = help(&world, &[]);
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    for line in codes.lines() {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        writeln!(text, "| {code} | {} |", meaning.trim()).unwrap();
    }
    text += "\nThe hidden verb `runner --once ID`, for units and job schedulers, exits with 0 if the task has a result and\n\
        with 75 if another process runs the task or no slot was free.\n";

    text += "\n## Settings\n\nA flag (`--set KEY=VALUE`) takes precedence over the variable, the variable over `spool.json`, and\n\
        `spool.json` over the default. The variable of a setting is `AGENTSPOOL_` and its name in capital\n\
        letters, as in `AGENTSPOOL_MAX_CONCURRENT`. Seconds are a number or a text such as `\"90s\"`, from 0 to\n\
        1000000000 if no other range is given.\n\n";
    world.run(&["init"]).succeeds();
    let config = world.json(&["config"]);
    let meanings = commented(include_str!("../../src/config.rs"), |line| {
        let name = line.strip_prefix("pub ")?.split_once(':')?.0;
        Some(name.to_owned())
    });
    for (setting, message) in config["settings"].as_object().unwrap() {
        let (_, meaning) = meanings.iter().find(|(name, _)| name == setting).unwrap();
        let variable = format!("AGENTSPOOL_{}", setting.to_uppercase());
        assert_eq!(message["variable"], variable, "{setting}");
        let unit = match unit(setting) {
            unit if unit.is_empty() || message["value"].is_null() => String::new(),
            unit => format!(" {unit}"),
        };
        let default = format!("`{}`{unit}", message["value"]);
        text += &item(&format!("`{setting}`, default {default}: {meaning}"));
    }

    text += "\n## Environment variables\n\nBesides one for each setting:\n\n";
    let variables = commented(include_str!("../../src/cli/env.rs"), |line| {
        let value = line.strip_prefix("pub(crate) const ")?.split_once('"')?.1;
        Some(value.split_once('"')?.0.to_owned())
    });
    for (variable, meaning) in variables {
        text += &item(&format!("`{variable}`: {meaning}"));
    }
    for known in [
        "`XDG_STATE_HOME`, `HOME`: Where the default spool is: `$XDG_STATE_HOME/agentspool`, else `~/.local/state/agentspool`.",
        "`PATH`: Where recipes find their programs, if this command starts the watcher. The `PATH` of a running watcher counts for all tasks.",
        "`NO_COLOR`, `TERM`: No colour if `NO_COLOR` is not empty; no panel and no bar with `TERM=dumb` or without `TERM`.",
    ] {
        text += &item(known);
    }
    text +=
        "\n[recipes.md](recipes.md#what-a-recipe-gets) describes the environment of a recipe.\n";
    text
}

#[test]
fn the_command_line_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli-reference.md");
    let now = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, &now).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    for (line, (is, should)) in written.lines().zip(now.lines()).enumerate() {
        assert_eq!(
            is,
            should,
            "line {} (UPDATE_DOCS=1 cargo test reference)",
            line + 1
        );
    }
    assert_eq!(
        written, now,
        "UPDATE_DOCS=1 cargo test reference writes it again"
    );
}
