//! `logs`: both streams on their own, followed from the first byte, the last lines, and each attempt.

use serde_json::json;

use crate::support::{Task, World};

const TALKS: &str = "#!/bin/sh\nseq 1 5\nseq 11 15 >&2\n";

fn world() -> World {
    let world = World::new();
    world.recipe("talks", TALKS);
    world
}

fn finished(world: &World, recipe: &str) -> Task {
    let task = world.submit(&[recipe]);
    world.result_of(&task);
    task
}

#[test]
fn each_stream_is_printed_to_its_own_stream() {
    let world = world();
    let task = finished(&world, "talks");
    let ran = world.run(&["logs", &task.id]);
    ran.succeeds();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("1\n2\n3\n4\n5\n", "11\n12\n13\n14\n15\n")
    );
    let stdout = world.run(&["logs", &task.id, "--stdout"]);
    assert_eq!(
        (stdout.stdout.as_str(), stdout.stderr.as_str()),
        ("1\n2\n3\n4\n5\n", "")
    );
    let stderr = world.run(&["logs", &task.id, "--stderr"]);
    assert_eq!(
        (stderr.stdout.as_str(), stderr.stderr.as_str()),
        ("", "11\n12\n13\n14\n15\n")
    );
    world
        .run(&["logs", &task.id, "--stdout", "--stderr"])
        .ends_with(2);
}

#[test]
fn the_last_lines_of_each_stream_are_shown() {
    let world = world();
    world.recipe("no-newline", "#!/bin/sh\nprintf 'a\\nb\\nc'\n");
    let task = finished(&world, "talks");
    for (lines, stdout, stderr) in [
        ("2", "4\n5\n", "14\n15\n"),
        ("0", "", ""),
        ("99", "1\n2\n3\n4\n5\n", "11\n12\n13\n14\n15\n"),
    ] {
        let ran = world.run(&["logs", &task.id, "-n", lines]);
        ran.succeeds();
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            (stdout, stderr),
            "-n {lines}"
        );
    }
    let task = finished(&world, "no-newline");
    assert_eq!(world.run(&["logs", &task.id, "-n", "2"]).stdout, "b\nc");
    let bad = world.run(&["logs", &task.id, "-n", "many"]);
    bad.ends_with(2);
    assert_eq!(bad.stdout, "");
}

#[test]
fn json_is_one_object() {
    let world = world();
    let task = finished(&world, "talks");
    let both = world.json(&["logs", &task.id, "-n", "1"]);
    assert_eq!(
        both,
        json!({"ok": true, "task_id": task.id, "attempt": 1, "stdout": "5\n", "stderr": "15\n"})
    );
    let one = world.json(&["logs", &task.id, "--stderr"]);
    assert_eq!(one.get("stdout"), None);
    let follow = world.run(&["logs", &task.id, "-f", "--json"]);
    follow.ends_with(2);
    assert_eq!(follow.json()["code"], 2);
}

#[test]
fn a_pending_task_is_followed_from_its_first_byte_to_its_last() {
    let world = world();
    world.set("autostart", "false");
    let go = world.root().join("go");
    let script = format!(
        "#!/bin/sh\necho first\necho error >&2\nwhile [ ! -e '{}' ]; do sleep 0.02; done\nprintf last\n",
        go.display()
    );
    world.recipe("slow", &script);
    let task = world.submit(&["slow"]);
    let pending = world.run(&["logs", &task.id]);
    pending.succeeds();
    assert_eq!(pending.stdout, "");
    assert_eq!(
        pending.stderr,
        format!("the task {} has not started yet\n", task.id)
    );

    let following = world.start(&["logs", &task.id, "-f", "-q"]);
    world.wait_until("the follower catches interrupts", || {
        following.catches_interrupts()
    });
    world.start_watcher();
    world.wait_for_lines(&task.path.join("attempts/1/stdout.log"), 1);
    std::fs::write(go, "").unwrap();
    let ran = following.end();
    ran.succeeds();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("first\nlast", "error\n")
    );
}

#[test]
fn a_drop_can_be_followed() {
    let world = world();
    world.set("autostart", "false");
    world.drop_in("report.json", "{\"recipe\": \"talks\"}");
    let early = world.run(&["logs", "report"]);
    early.ends_with(1);
    assert_eq!(early.stdout, "");
    let following = world.start(&["logs", "report", "-f", "--stdout", "-q"]);
    world.wait_until("the follower catches interrupts", || {
        following.catches_interrupts()
    });
    world.start_watcher();
    let ran = following.end();
    ran.succeeds();
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("1\n2\n3\n4\n5\n", "")
    );
}

#[test]
fn interrupting_a_follower_does_not_stop_the_task() {
    let world = World::new();
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    let task = world.submit(&["sleeps"]);
    world.wait_running(&task);
    let following = world.start(&["logs", &task.id, "-f"]);
    world.wait_until("the follower catches interrupts", || {
        following.catches_interrupts()
    });
    following.interrupt();
    let ran = following.end();
    ran.ends_with(130);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        format!("error: interrupted; the task {} continues\n", task.id)
    );
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
}

#[test]
fn each_attempt_has_its_own_log() {
    let world = World::new();
    let script = "#!/bin/sh\necho attempt $AGENTSPOOL_ATTEMPT\n\
                  [ $AGENTSPOOL_ATTEMPT = 1 ] && exec sleep 1000\nexit 0\n";
    world.recipe_folder("again", "on_lost = \"requeue\"", script);
    let task = world.submit(&["again"]);
    world.wait_for_lines(&task.path.join("attempts/1/stdout.log"), 1);
    let following = world.start(&["logs", &task.id, "-f"]);
    world.wait_until("the follower catches interrupts", || {
        following.catches_interrupts()
    });
    let (runner, _) = world.processes_of(&task, 1);
    world.signal(runner, rustix::process::Signal::KILL);
    world.result_of(&task);
    assert_eq!(following.end().stdout, "attempt 1\nattempt 2\n");
    let shown = |attempt: &[&str]| {
        let mut arguments = vec!["logs", task.id.as_str()];
        arguments.extend(attempt);
        let ran = world.run(&arguments);
        ran.succeeds();
        ran.stdout
    };
    assert_eq!(shown(&[]), "attempt 2\n");
    assert_eq!(shown(&["--attempt", "1"]), "attempt 1\n");
    assert_eq!(shown(&["--attempt", "2"]), "attempt 2\n");
    let bad = world.run(&["logs", &task.id, "--attempt", "3"]);
    bad.ends_with(7);
    assert_eq!(bad.stdout, "");
    assert_eq!(
        bad.stderr,
        "error: the task has no attempt 3 (the latest attempt is 2)\n"
    );
}

#[test]
fn bytes_that_are_not_text_are_not_changed() {
    let world = World::new();
    world.recipe("bytes", "#!/bin/sh\nprintf 'a\\377\\000\\033[1mb'\n");
    let task = finished(&world, "bytes");
    let mut command = world.command(&["logs", &task.id]);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"a\xff\0\x1b[1mb");
    assert_eq!(
        world.json(&["logs", &task.id])["stdout"],
        "a\u{fffd}\0\u{1b}[1mb"
    );
}

/// Each recipe starts its log again: it truncates the file or puts another one in its place.
#[test]
fn a_followed_log_that_starts_again_is_shown_from_its_start() {
    let again = [
        // Shorter than what was read.
        "echo again >/dev/stdout",
        // Longer.
        "seq 1001 2000 >/dev/stdout; echo again >>/dev/stdout",
        // Another file.
        "seq 2000 3000 >new; echo again >>new; mv new ../stdout.log",
    ];
    let world = World::new();
    for (number, again) in again.iter().enumerate() {
        let recipe = format!("again{number}");
        world.recipe(
            &recipe,
            &format!("#!/bin/sh\nseq 100\necho first\nwhile [ ! -e go ]; do sleep 0.01; done\n{again}\nwhile [ ! -e end ]; do sleep 0.01; done\n"),
        );
        let task = world.submit(&[&recipe]);
        let seen = world.path(&format!("seen{number}"));
        let mut command = world.command(&["logs", "-f", &task.id]);
        command.stdout(std::fs::File::create(&seen).unwrap());
        command.stderr(std::process::Stdio::piped());
        let following = command.spawn().unwrap();
        let shows = |line: &str| {
            std::fs::read_to_string(&seen).is_ok_and(|text| text.lines().any(|it| it == line))
        };
        world.wait_until("the first part is shown", || shows("first"));
        std::fs::write(task.work(1, "go"), "").unwrap();
        world.wait_until("the second part is shown", || shows("again"));
        std::fs::write(task.work(1, "end"), "").unwrap();
        let ended = following.wait_with_output().unwrap();
        let message = String::from_utf8(ended.stderr).unwrap();
        assert!(message.contains("starts again"), "{again}: {message}");
    }
}

/// A gap ends at the recorded end of the cut, or where the recipe has written into it since. It never ends at
/// a boundary of the pieces in which the log is read.
#[test]
fn a_gap_of_any_size_is_reported_and_none_of_its_zero_bytes_is_shown() {
    const BLOCK: usize = 4096;
    let world = world();
    let task = finished(&world, "talks");
    let attempt = task.path.join("attempts/1");
    let data = |bytes: usize| vec![b'x'; bytes];
    let none = |bytes: usize| vec![0; bytes];
    let parts = |parts: &[Vec<u8>]| parts.concat();
    // The log, the end of its cut, the gaps that are reported, and the number of bytes that are shown.
    let cases = [
        (
            parts(&[data(BLOCK), none(BLOCK), data(9)]),
            2 * BLOCK,
            vec![BLOCK],
            BLOCK + 9,
        ),
        (
            parts(&[data(BLOCK), none(40 * BLOCK), data(9)]),
            41 * BLOCK,
            vec![40 * BLOCK],
            BLOCK + 9,
        ),
        // The recipe has written into the cut since.
        (
            parts(&[
                data(BLOCK),
                none(30 * BLOCK + 5),
                data(7),
                none(BLOCK - 12),
                data(9),
            ]),
            32 * BLOCK,
            vec![30 * BLOCK + 5],
            BLOCK + 7 + BLOCK - 12 + 9,
        ),
        (
            parts(&[
                data(BLOCK),
                none(20 * BLOCK),
                data(BLOCK),
                none(20 * BLOCK),
                data(9),
            ]),
            42 * BLOCK,
            vec![20 * BLOCK, 20 * BLOCK],
            2 * BLOCK + 9,
        ),
        // A zero byte after a cut was written by the recipe.
        (
            parts(&[data(BLOCK), none(BLOCK + 3), data(9)]),
            2 * BLOCK,
            vec![BLOCK],
            BLOCK + 3 + 9,
        ),
    ];
    for (log, to, gaps, shown) in cases {
        std::fs::write(attempt.join("stdout.log"), &log).unwrap();
        let cut = serde_json::json!({"v": 2, "stdout": {"from": BLOCK, "to": to}, "stderr": {"from": 0, "to": 0}});
        std::fs::write(attempt.join("cut.json"), cut.to_string()).unwrap();
        let ended = world.command(&["logs", &task.id]).output().unwrap();
        let reported = String::from_utf8(ended.stderr).unwrap();
        let reported: Vec<usize> = reported
            .lines()
            .filter_map(|line| line.split_once(" bytes of the log were cut out"))
            .map(|(before, _)| {
                before
                    .trim_matches(|c: char| !c.is_ascii_digit())
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!((reported, ended.stdout.len()), (gaps, shown), "{cut}");
    }
}

#[test]
fn only_the_last_version_of_an_overwritten_line_is_shown() {
    let world = World::new();
    let script = "#!/bin/sh\necho begun\nfor n in $(seq 100); do printf '\\r%s%%' $n; done\n\
                  printf '\\nended\\r\\n1%%\\r2%%' >&2\nprintf '\\nended\\n'\n";
    world.recipe("bar", script);
    let task = finished(&world, "bar");
    for (lines, stdout, stderr) in [
        ("1", "ended\n", "2%"),
        ("2", "100%\nended\n", "ended\r\n2%"),
        ("9", "begun\n100%\nended\n", "\nended\r\n2%"),
    ] {
        let ran = world.run(&["logs", &task.id, "-n", lines]);
        ran.succeeds();
        assert_eq!(
            (ran.stdout.as_str(), ran.stderr.as_str()),
            (stdout, stderr),
            "-n {lines}"
        );
        let object = world.json(&["logs", &task.id, "-n", lines]);
        assert_eq!(
            (&object["stdout"], &object["stderr"]),
            (&json!(stdout), &json!(stderr))
        );
    }
    // Without a number the whole log is shown, byte for byte.
    let whole = world.run(&["logs", &task.id, "--stdout"]).stdout;
    assert_eq!(
        whole.as_bytes(),
        std::fs::read(task.path.join("attempts/1/stdout.log")).unwrap()
    );
}

#[test]
fn a_task_that_was_cancelled_before_it_started_has_no_logs() {
    let world = World::new();
    world.recipe("echo", "#!/bin/sh\n");
    world.set("autostart", "false");
    let task = world.submit(&["echo"]);
    world.run(&["cancel", &task.id]).succeeds();
    let ran = world.run(&["logs", &task.id]);
    ran.succeeds();
    let expected = format!(
        "the task {} ended before it started, so it has no logs\n",
        task.id
    );
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("", expected.as_str())
    );
}

#[test]
fn a_follower_starts_with_the_last_lines() {
    let world = World::new();
    let go = world.root().join("go");
    let script = format!(
        "#!/bin/sh\nseq 1 5\nseq 11 15 >&2\nwhile [ ! -e '{}' ]; do sleep 0.02; done\necho last\n",
        go.display()
    );
    world.recipe("slow", &script);
    let task = world.submit(&["slow"]);
    world.wait_for_lines(&task.path.join("attempts/1/stderr.log"), 5);
    let following = world.start(&["logs", &task.id, "-f", "-n", "2", "-q"]);
    world.wait_until("the follower catches interrupts", || {
        following.catches_interrupts()
    });
    std::fs::write(go, "").unwrap();
    let ran = following.end();
    ran.succeeds();
    // A line that is written before the follower opens the log counts among the last lines.
    assert!(
        ["4\n5\nlast\n", "5\nlast\n"].contains(&ran.stdout.as_str()),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.stderr, "14\n15\n");
    let over = world.run(&["logs", &task.id, "-f", "-n", "1"]);
    assert_eq!(
        (over.stdout.as_str(), over.stderr.as_str()),
        ("last\n", "15\n")
    );
    // Following one attempt of several is refused, and not ignored.
    world
        .run(&["logs", &task.id, "-f", "--attempt", "1"])
        .ends_with(2);
}
