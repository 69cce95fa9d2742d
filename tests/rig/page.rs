//! The two scripts of the documented page, run by bash and jq as they are, with only the program's name
//! changed.
//!
//! The commands are the contract, so they are here in the documented order. Ids that the page makes up are
//! replaced by the ids of our own tasks. A `sleep` of the test on PATH shortens the waits. Every other
//! command line of the page is also in `tests/it/background.rs`, flag by flag; here all of them run through a
//! shell.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{PROGRAM, Ran, World, write_executable};

/// A world with the program under its own name on PATH, and with a `sleep` that returns at once and records
/// its argument.
fn world() -> World {
    let world = World::new();
    let bin = world.root().join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(PROGRAM, bin.join("agentspool")).unwrap();
    let slept = world.root().join("slept");
    let stub = format!(
        "#!/bin/sh\necho \"$@\" >> '{}'\nexec /bin/sleep 0.05\n",
        slept.display()
    );
    write_executable(&bin.join("sleep"), &stub);
    world.recipe("news-monitor", "#!/bin/sh\ncat\n");
    world.recipe("my-recipe", "#!/bin/sh\ncat\n");
    world
}

/// Runs a script with bash, which does not stop at errors. A failure must show in what the script prints.
fn bash(world: &World, script: &str) -> Ran {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(script)
        .env_clear()
        .env(
            "PATH",
            format!("{}:{path}", world.root().join("bin").display()),
        )
        .env("HOME", world.root().join("home"))
        .env("AGENTSPOOL_DIR", world.spool())
        .current_dir(world.root())
        .stdin(Stdio::null());
    Ran::of(&mut command)
}

/// One command line, which must succeed and print nothing on stderr.
fn line(world: &World, line: &str) -> String {
    let ran = bash(world, line);
    ran.succeeds();
    assert_eq!(ran.stderr, "", "{line}");
    ran.stdout
}

#[test]
fn the_complete_workflow() {
    let world = world();
    let submitted = line(
        &world,
        r#"agentspool background submit --recipe news-monitor --input '{"topic": "AI"}' --json"#,
    );
    let object: Value = serde_json::from_str(&submitted).unwrap();
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(keys[..4], ["ok", "task_id", "recipe", "session_id"]);
    assert_eq!(
        (&object["ok"], &object["recipe"]),
        (&true.into(), &"news-monitor".into())
    );
    let id = object["task_id"].as_str().unwrap();
    let task = world.task(id);

    let status = format!("agentspool background status {id}");
    let first = line(&world, &status);
    assert!(
        first.starts_with(&format!("Task: {id}\nStatus: ")),
        "{first}"
    );

    world.result_of(&task);
    let second = line(&world, &format!("sleep 30\n{status}"));
    let words: Vec<&str> = second
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        words,
        [
            "Task", "Status", "Progress", "Duration", "Recipe", "Session"
        ]
    );
    assert!(
        second.contains("Status: completed\nProgress: 100%\n"),
        "{second}"
    );
    assert!(second.contains("Recipe: news-monitor\n"), "{second}");

    let list = line(&world, "agentspool background list");
    assert!(list.contains(id) && list.contains("completed"), "{list}");
    assert_eq!(task.result()["output"], serde_json::json!({"topic": "AI"}));

    assert_eq!(
        line(&world, "agentspool background clear"),
        "Cleared 1 task\n"
    );
    assert_eq!(line(&world, "agentspool background list"), "");
}

/// The page's polling script.
const POLLING: &str = r#"
RESULT=$(agentspool background submit --recipe my-recipe --json)
TASK_ID=$(echo $RESULT | jq -r '.task_id')

echo "Submitted task: $TASK_ID"

while true; do
    STATUS=$(agentspool background status $TASK_ID --json | jq -r '.status')
    echo "Status: $STATUS"

    if [ "$STATUS" = "completed" ] || [ "$STATUS" = "failed" ]; then
        break
    fi

    sleep 5
done

echo "Task finished with status: $STATUS"
"#;

#[test]
fn scripting_with_json_output() {
    for (recipe, end) in [
        ("#!/bin/sh\ncat\n", "completed"),
        ("#!/bin/sh\nexit 1\n", "failed"),
        // Long enough that the script's loop runs more than once.
        ("#!/bin/sh\n/bin/sleep 0.5\n", "completed"),
    ] {
        let world = world();
        world.recipe("my-recipe", recipe);
        let ran = bash(&world, POLLING);
        ran.succeeds();
        assert_eq!(ran.stderr, "");
        let task = world.only_task();
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(lines[0], format!("Submitted task: {}", task.id));
        let (polled, last) = lines[1..].split_at(lines.len() - 2);
        assert_eq!(last, [format!("Task finished with status: {end}")]);
        for word in polled {
            let status = word.strip_prefix("Status: ").unwrap();
            assert!(["pending", "running", end].contains(&status), "{word}");
        }
        assert_eq!(task.result()["status"], end);
        if recipe.contains("sleep") {
            let slept = std::fs::read_to_string(world.root().join("slept")).unwrap();
            assert!(slept.lines().all(|asked| asked == "5"), "{slept}");
        }
    }
}

#[test]
fn every_other_line_of_the_page() {
    let world = world();
    for command in [
        "agentspool background list",
        "agentspool background submit --recipe my-recipe",
        r#"agentspool background submit --recipe my-recipe --input '{"query": "test"}'"#,
        r#"agentspool background submit --recipe my-recipe --config '{"max_tokens": 1000}'"#,
        "agentspool background submit --recipe my-recipe --session-id session_123",
        "agentspool background submit --recipe my-recipe --timeout 600",
        "agentspool background submit --recipe my-recipe --json",
        "agentspool recipe run my-recipe --background",
        r#"agentspool recipe run my-recipe --background --input '{"query": "test"}'"#,
        "agentspool recipe run my-recipe --background --session-id session_123",
        "agentspool background list --status running",
        "agentspool background list --status completed",
        "agentspool background list --status failed",
        "agentspool background list --page 1 --page-size 20",
        "agentspool background list --json",
    ] {
        line(&world, command);
    }
    let tasks = world.tasks();
    assert_eq!(tasks.len(), 9);
    for task in &tasks {
        assert_eq!(world.result_of(task)["status"], "completed");
    }
    let id = &tasks[0].id;
    for command in [
        format!("agentspool background status {id}"),
        format!("agentspool background status {id} --json"),
        format!("agentspool background cancel {id}"),
        format!("agentspool background cancel {id} --json"),
        "agentspool background clear --older-than 3600".to_owned(),
        "agentspool background clear --json".to_owned(),
        "agentspool background clear".to_owned(),
        "agentspool background clear --all".to_owned(),
    ] {
        line(&world, &command);
    }
    assert!(world.tasks().is_empty());
}
