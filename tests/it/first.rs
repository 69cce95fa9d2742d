//! The first result: what the README promises a new user.

use crate::support::World;

#[test]
fn the_greeting_is_printed() {
    let world = World::with_samples();
    let ran = world.run(&[
        "submit",
        "--recipe",
        "hello",
        "--input",
        r#"{"name": "Ada"}"#,
        "--wait",
    ]);
    ran.succeeds();
    assert_eq!(ran.stdout, "Hello, Ada!\n");
    let task = world.only_task();
    assert_eq!(task.result()["output"], "Hello, Ada!");
    assert_eq!(task.status()["status"], "completed");
}
