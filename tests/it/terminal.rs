//! The output on a terminal: the panel, and no control characters from other sources.

use crate::support::World;
use crate::support::terminal::On;

#[test]
fn the_list_is_only_the_panel() {
    let world = World::new();
    world.recipe("hello", "#!/bin/sh\n");
    let task = world.submit(&["hello", "--name", "greeting"]);
    world.result_of(&task);
    let short = &task.id[task.id.len() - 8..];
    let row = format!("  ✅ [{short}] greeting - completed");
    // The symbol is two columns wide.
    let padding = " ".repeat(77 - 1 - row.chars().count());
    let expected = format!(
        "╭─ Background Tasks {}╮\n│{row}{padding}│\n╰{}╯\n",
        "─".repeat(58),
        "─".repeat(77)
    );
    let ran = world.run_on_terminal(On::All, 80, &["list"]);
    ran.succeeds();
    assert_eq!(ran.stdout, expected);
}

/// A name with such characters may come from another user, for example through the shell's completion.
#[test]
fn a_mistyped_word_is_shown_without_control_characters() {
    let world = World::new();
    let typed = "x\u{1b}[31m\u{9b}2J\u{202e}\u{feff}";
    for arguments in [
        &[typed][..],
        &["submit", "--recipe", "r", "--timeout", typed],
        &["list", typed],
        &["--json", typed],
    ] {
        for ran in [
            world.run(arguments),
            world.run_on_terminal(On::All, 80, arguments),
        ] {
            ran.ends_with(2);
            let shown = format!("{}{}", ran.stdout, ran.stderr);
            // Our own colours are only before the first word.
            let shown = shown
                .split_once("error")
                .unwrap()
                .1
                .replacen("\u{1b}[39m", "", 1);
            let shown = shown.replacen("\u{1b}[0m", "", 1);
            let odd = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{feff}".contains(c);
            assert!(!shown.contains(odd), "{arguments:?}: {shown:?}");
        }
    }
}

/// A verb for units does not help a person who mistypes another verb.
#[test]
fn hidden_verbs_are_not_completed_or_suggested() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = world.run(&["completions", shell]);
        ran.succeeds();
        let script = ran.stdout;
        assert!(script.contains("submit"), "{shell}");
        assert!(script.contains("need-watcher"), "{shell}");
        for hidden in ["runner", "autostarted"] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    for (typed, hidden) in [
        (&["runnr"][..], "runner"),
        (&["watch", "--autostart"], "autostarted"),
    ] {
        let ran = world.run(typed);
        ran.ends_with(2);
        assert!(!ran.stderr.contains(hidden), "{}", ran.stderr);
    }
    let ran = world.run(&["sumbit"]);
    assert!(ran.stderr.contains("'submit'"), "{}", ran.stderr);
    let ran = world.run(&["watch", "--dran"]);
    assert!(ran.stderr.contains("'--drain'"), "{}", ran.stderr);
}

/// The options of the verb come first, the options of every verb last.
#[test]
fn the_options_of_a_verb_are_in_one_group() {
    let world = World::new();
    for verb in [
        &["submit"][..],
        &["background", "submit"],
        &["logs"],
        &["watch"],
        &["list"],
    ] {
        let help = world.run(&[verb, &["--help"]].concat()).stdout;
        let (own, global) = help.split_once("Global options:").unwrap();
        for option in [
            "--spool",
            "--json",
            "--quiet",
            "--verbose",
            "--color",
            "--set",
        ] {
            assert!(!own.contains(&format!("{option} ")), "{verb:?}: {own}");
            assert!(global.contains(option), "{verb:?}: {global}");
        }
    }
}

#[test]
fn ok_is_true_exactly_if_the_exit_code_is_0() {
    let world = World::new();
    world.recipe("fails", "#!/bin/sh\nexit 1\n");
    let task = world.submit(&["fails"]);
    world.result_of(&task);
    for arguments in [
        &["status", "last"][..],
        &["result", "last"],
        &["wait", "last"],
        &["submit", "--recipe", "fails", "--wait"],
        &["list"],
        &["cancel", "last"],
        &["status", "nobody"],
        &["doctor"],
        &["clear"],
    ] {
        let ran = world.run(&[arguments, &["--json"]].concat());
        assert_eq!(ran.json()["ok"], ran.code == 0, "{arguments:?}");
    }
}
