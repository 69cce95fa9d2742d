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
