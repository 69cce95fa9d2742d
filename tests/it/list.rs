//! `list`: tab-separated lines in a pipe, the documented panel on a terminal, pages and filters.

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::support::terminal::On;
use crate::support::{Task, World};

/// Recipes that end in each way, and one that does not end by itself.
fn world() -> World {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    world.recipe("fails", "#!/bin/sh\nexit 1\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    world
}

fn finished(world: &World, arguments: &[&str]) -> Task {
    let task = world.submit(arguments);
    world.result_of(&task);
    task
}

/// One task of each status, in the order of the five words. The pending task is created last and stays
/// pending, because only one task may run.
fn one_of_each(world: &World) -> [Task; 5] {
    world.set("max_concurrent", "1");
    let completed = finished(world, &["works", "--name", "good"]);
    let failed = finished(world, &["fails"]);
    let cancelled = world.submit(&["sleeps"]);
    world.run(&["cancel", &cancelled.id]).succeeds();
    let running = world.submit(&["sleeps", "--name", "long"]);
    world.wait_running(&running);
    let pending = world.submit(&["works"]);
    [pending, running, completed, failed, cancelled]
}

fn short(task: &Task) -> &str {
    &task.id[task.id.len() - 8..]
}

fn ids(object: &Value) -> Vec<&str> {
    let tasks = object["tasks"].as_array().unwrap();
    tasks
        .iter()
        .map(|task| task["task_id"].as_str().unwrap())
        .collect()
}

#[test]
fn an_empty_spool_is_an_empty_list() {
    let world = World::new();
    let ran = world.run(&["list"]);
    ran.succeeds();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(
        world.json(&["list", "--counts"]),
        json!({
            "ok": true, "tasks": [], "total": 0, "page": 1, "page_size": 20,
            "counts": {"pending": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0},
            "drops": 0,
        })
    );
    let panel = world.run_on_terminal(On::Stdout, 100, &["list"]);
    panel.succeeds();
    assert_eq!(
        panel.stdout,
        format!(
            "╭─ Background Tasks ──────────────────────────────────────────────────────────╮\n\
             │  No tasks{}│\n\
             ╰─────────────────────────────────────────────────────────────────────────────╯\n",
            " ".repeat(67)
        )
    );
}

#[test]
fn a_pipe_gets_five_columns_and_no_decoration() {
    let world = world();
    let [pending, running, completed, failed, cancelled] = one_of_each(&world);
    let ran = world.run(&["list"]);
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    let rows: Vec<Vec<&str>> = ran
        .stdout
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let expected = [
        (&pending, "pending", "-", "works", false),
        (&running, "running", "long", "sleeps", true),
        (&cancelled, "cancelled", "-", "sleeps", true),
        (&failed, "failed", "-", "fails", true),
        (&completed, "completed", "good", "works", true),
    ];
    assert_eq!(rows.len(), expected.len());
    for (row, (task, status, name, recipe, has_seconds)) in rows.iter().zip(expected) {
        assert_eq!(row[..4], [task.id.as_str(), status, name, recipe]);
        assert_eq!(row.len(), 5);
        // A task that was cancelled before it started has no duration either.
        if status != "cancelled" {
            assert_eq!(row[4].parse::<f64>().is_ok(), has_seconds, "{row:?}");
        }
    }
    let quiet = world.run(&["list", "-q"]);
    let first: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(quiet.stdout.lines().collect::<Vec<_>>(), first);
}

#[test]
fn a_terminal_gets_the_documented_panel() {
    let world = world();
    let [pending, running, completed, failed, cancelled] = one_of_each(&world);
    let ran = world.run_on_terminal(On::Stdout, 120, &["list"]);
    ran.succeeds();
    assert_eq!(ran.stderr, "");
    assert!(!ran.stdout.contains('\x1b'), "no escape codes are needed");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    // A symbol takes two columns, a short id ten with its brackets.
    let row = |text: String, width: usize| format!("│  {text}{}│", " ".repeat(75 - width));
    // Only the running task's seconds change.
    let seconds = lines[2]
        .split_once('(')
        .unwrap()
        .1
        .split_once(')')
        .unwrap()
        .0;
    assert!(seconds.ends_with('s'), "{seconds}");
    let of_running = format!("🔄 [{}] long - running ({seconds})", short(&running));
    let expected = [
        "╭─ Background Tasks ──────────────────────────────────────────────────────────╮"
            .to_owned(),
        row(format!("⏳ [{}] works - pending", short(&pending)), 29),
        row(of_running, 31 + seconds.len()),
        row(format!("🚫 [{}] sleeps - cancelled", short(&cancelled)), 32),
        row(format!("❌ [{}] fails - failed", short(&failed)), 28),
        row(format!("✅ [{}] good - completed", short(&completed)), 30),
        "╰─────────────────────────────────────────────────────────────────────────────╯"
            .to_owned(),
    ];
    assert_eq!(lines, expected, "\n{}", ran.stdout);
}

#[test]
fn a_narrow_terminal_gets_a_narrower_panel_and_cut_rows() {
    let world = world();
    let name = "n".repeat(90);
    finished(&world, &["works", "--name", &name]);
    let ran = world.run_on_terminal(On::Stdout, 50, &["list"]);
    ran.succeeds();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    // The symbol takes two columns.
    let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
    assert_eq!(widths, [50, 49, 50], "{}", ran.stdout);
    assert!(lines[1].ends_with("nnn… - completed│"), "{}", lines[1]);
}

/// A label is any text. On a terminal it can neither hide nor fake what is next to it.
#[test]
fn a_label_cannot_change_the_rest_of_its_row() {
    let world = world();
    world.set("autostart", "false");
    let pushed = format!("nightly backup - completed{}", " ".repeat(74));
    let wrapped = format!("x{}Submitted by: user 4301", " ".repeat(73));
    let worded = format!("{} Status: completed", "y".repeat(73));
    for label in [pushed, wrapped, worded] {
        world.drop_in(&format!("{label}.json"), r#"{"recipe": "fails"}"#);
    }
    world.run(&["watch", "--drain"]).succeeds();
    let panel = world.run_on_terminal(On::Stdout, 80, &["list"]).stdout;
    assert_eq!(panel.matches(" - failed").count(), 3, "{panel}");
    assert!(
        panel.contains("\"nightly backup - completed\" - failed"),
        "{panel}"
    );
    assert!(panel.lines().all(|line| line.width() == 79), "{panel}");
    for task in world.tasks() {
        let page = world
            .run_on_terminal(On::Stdout, 80, &["status", &task.id])
            .stdout;
        let name = page
            .lines()
            .find(|line| line.starts_with("Label: "))
            .unwrap();
        assert!(name.width() < 80 && name.ends_with('"'), "{page}");
        let rows = world
            .run_on_terminal(On::Stdout, 80, &["wait", &task.id])
            .stdout;
        let label = rows.split('\t').nth(2).unwrap();
        assert!(label.width() <= 31 && label.ends_with('"'), "{rows}");
        // A script gets the unchanged text.
        let stored = task.request()["label"].clone();
        assert_eq!(world.json(&["status", &task.id])["label"], stored);
    }
}

#[test]
fn a_dumb_terminal_and_color_always_are_respected() {
    let world = world();
    let task = finished(&world, &["works"]);
    let always = world.run(&["list", "--color", "always"]);
    assert!(always.stdout.starts_with("╭─ Background Tasks "));
    let mut command = world.command(&["list"]);
    let panel =
        crate::support::terminal::Terminal::start(command.env("NO_COLOR", "1"), On::Stdout, 80);
    assert!(panel.end().stdout.starts_with("╭─ Background Tasks "));
    let row = world.run(&["list"]).stdout;
    assert!(row.starts_with(&task.id));
}

#[test]
fn a_filter_takes_the_five_words_and_two_aliases() {
    let world = world();
    let [pending, running, completed, failed, cancelled] = one_of_each(&world);
    for (word, task, total) in [
        ("pending", &pending, json!(1)),
        ("queued", &pending, json!(1)),
        ("running", &running, json!(1)),
        ("completed", &completed, json!(null)),
        ("succeeded", &completed, json!(null)),
        ("failed", &failed, json!(null)),
        ("cancelled", &cancelled, json!(null)),
    ] {
        let object = world.json(&["list", "--status", word]);
        assert_eq!(ids(&object), [&task.id], "{word}");
        assert_eq!(object["total"], total, "{word}");
    }
    let bad = world.run(&["list", "--status", "done"]);
    bad.ends_with(2);
    assert_eq!(bad.stdout, "");
    assert!(
        bad.stderr.contains("expected pending, running"),
        "{}",
        bad.stderr
    );
}

#[test]
fn pages_are_newest_first_and_the_total_is_exact() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("works", "#!/bin/sh\n");
    let lines = "{\"recipe\": \"works\"}\n".repeat(25);
    let all = world.run_with_stdin(&["submit", "--batch", "-", "-q"], lines.as_bytes());
    let mut newest_first: Vec<&str> = all.stdout.lines().collect();
    newest_first.reverse();
    let first = world.json(&["list"]);
    assert_eq!(ids(&first), newest_first[..20]);
    assert_eq!(
        (&first["page"], &first["page_size"]),
        (&json!(1), &json!(20))
    );
    let page = world.json(&["list", "--page", "3", "--page-size", "7"]);
    assert_eq!(ids(&page), newest_first[14..21]);
    assert_eq!(page["total"], 25);
    let last = world.json(&["list", "--page", "4", "--page-size", "7"]);
    assert_eq!(ids(&last), newest_first[21..]);
    let beyond = world.json(&["list", "--page", "5", "--page-size", "7"]);
    assert_eq!((ids(&beyond).len(), &beyond["total"]), (0, &json!(25)));
    let filtered = world.json(&[
        "list",
        "--status",
        "pending",
        "--page",
        "2",
        "--page-size",
        "7",
    ]);
    assert_eq!(ids(&filtered), newest_first[7..14]);
    assert_eq!(filtered["total"], 25, "of what is open all is counted");
    let panel = world.run_on_terminal(On::Stdout, 80, &["list", "--page-size", "2"]);
    let message = panel.stdout.lines().last().unwrap();
    assert_eq!(message, "2 of 25 tasks; see --page and --page-size");
    for arguments in [["--page", "0"], ["--page-size", "0"], ["--page", "x"]] {
        let mut command = world.command(&["list"]);
        let ran = crate::support::Ran::of(command.args(arguments));
        ran.ends_with(2);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn counts_are_shown_when_asked_for() {
    let world = world();
    one_of_each(&world);
    let counts = &world.json(&["list", "--counts"])["counts"];
    let one = json!({"pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1});
    assert_eq!(*counts, one);
    assert_eq!(world.json(&["list"]).get("counts"), None);
    assert_eq!(world.json(&["list"]).get("drops"), None);
    let ran = world.run(&["list", "--counts"]);
    let message = "1 pending, 1 running, 1 completed, 1 failed, 1 cancelled\n";
    assert_eq!(
        ran.stderr, message,
        "a script that reads lines gets only tasks"
    );
    assert_eq!(ran.stdout.lines().count(), 5);
}

/// A drop that no watcher has taken is not a task yet. It is reported all the same.
#[test]
fn drops_that_wait_are_counted_and_reported() {
    let world = World::new();
    world.set("autostart", "false");
    world.drop_in("one.json", "{\"recipe\": \"ok\"}");
    world.drop_in("two.json", "{");
    assert_eq!(world.json(&["list", "--counts"])["drops"], 2);
    let message = world.run(&["list", "--counts"]).stderr;
    assert!(
        message.ends_with("0 cancelled, 2 in the drop box\n"),
        "{message}"
    );
    let doctor = world.run(&["doctor"]);
    doctor.ends_with(1);
    let message = "none, and 2 files in the drop box";
    assert!(doctor.stdout.contains(message), "{}", doctor.stdout);
}

#[test]
fn absolute_shows_timestamps() {
    let world = world();
    let task = finished(&world, &["works"]);
    let ended = task.result()["completed_at"].as_str().unwrap().to_owned();
    let ran = world.run_on_terminal(On::Stdout, 80, &["list", "--absolute"]);
    assert!(
        ran.stdout.contains(&format!("- completed ({ended})")),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_reader_that_exits_early_is_not_an_error() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("works", "#!/bin/sh\n");
    let lines = "{\"recipe\": \"works\"}\n".repeat(10);
    world
        .run_with_stdin(&["submit", "--batch", "-", "-q"], lines.as_bytes())
        .succeeds();
    let mut command = world.command(&["list"]);
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A script that reads lines expects all of them. A terminal gets one page, and so does a command with `--page` or `--page-size`.
#[test]
fn a_pipe_gets_all_tasks() {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\n");
    let lines = "{\"recipe\": \"ok\"}\n".repeat(25);
    world
        .run_with_stdin(&["submit", "--batch", "-"], lines.as_bytes())
        .succeeds();
    let count = |arguments: &[&str]| {
        let mut all = vec!["list"];
        all.extend(arguments);
        world.run(&all).succeeds().stdout.lines().count()
    };
    assert_eq!(count(&[]), 25);
    assert_eq!(count(&["-q"]), 25);
    assert_eq!(count(&["--status", "pending"]), 25);
    assert_eq!(count(&["--page", "2"]), 5);
    assert_eq!(count(&["--page-size", "3"]), 3);
    let object = world.json(&["list"]);
    assert_eq!(
        (&object["page_size"], &object["total"]),
        (&20.into(), &25.into())
    );
}
