//! What a person sees on a terminal: the panel, and nothing that does not belong there.

use std::io::Read;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::World;

/// Runs a command whose stdin, stdout and stderr are one terminal; what was painted on it.
fn on_a_terminal(world: &World, arguments: &[&str]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let mut command = world.command(arguments);
    command
        .env("TERM", "xterm")
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::from(terminal.try_clone().unwrap()))
        .stderr(Stdio::from(terminal));
    let mut child = command.spawn().unwrap();
    // The command holds copies of the terminal's end; without them reading ends with its exit.
    drop(command);
    let mut painted = Vec::new();
    let mut screen = std::fs::File::from(master);
    let mut piece = [0u8; 4096];
    while let Ok(read @ 1..) = screen.read(&mut piece) {
        painted.extend_from_slice(&piece[..read]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(painted).unwrap().replace("\r\n", "\n")
}

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
    assert_eq!(on_a_terminal(&world, &["list"]), expected);
}
