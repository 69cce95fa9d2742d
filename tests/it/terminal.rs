//! What a person sees on a terminal: the panel, and nothing that does not belong there.

use crate::support::World;
use crate::support::terminal::On;

#[test]
fn the_panel_and_not_a_word_besides() {
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

/// A name with such characters may come from somebody else, as one that the shell completes.
#[test]
fn what_was_typed_wrong_is_shown_without_its_controls() {
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
            // Our own colours stand before the first word alone.
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

/// A verb for units is no help to a person who mistypes another one.
#[test]
fn what_is_hidden_is_neither_completed_nor_suggested() {
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

/// What a verb is for comes first, what every verb takes last.
#[test]
fn the_options_of_a_verb_stand_together() {
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
