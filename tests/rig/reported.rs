//! What `submit` reports to a user of the group when something goes wrong before the drop reaches the box. A
//! submission that is accepted becomes a task, and one that is not accepted leaves nothing.
//!
//! Not what the box does with a drop (`drop_box.rs`), and not power cuts (`group_power.rs`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::clock::Clock;
use crate::group::{GROUP_USER, OWNER, Shared};
use crate::support::{PROGRAM, Ran, names_in};

/// A batch with this many lines, readable by the user.
fn batch(shared: &Shared, lines: usize) -> String {
    let path = shared.world.root().join("batch");
    fs::write(
        &path,
        "{\"recipe\": \"echo\", \"input\": 1}\n".repeat(lines),
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

/// The program as the user runs it, with this injection by strace.
fn under_strace(shared: &Shared, calls: &str, inject: &str, arguments: &[&str]) -> Command {
    let mut command = shared.as_user(GROUP_USER, "strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={inject}"), "--", PROGRAM])
        .args(arguments);
    command
}

/// The time in an id, in milliseconds since 1970.
fn moment(id: &str) -> i64 {
    let digits = id.strip_prefix("task_").unwrap().bytes().take(10);
    digits.fold(0, |sum, digit| {
        let value = b"0123456789abcdefghjkmnpqrstvwxyz";
        let value = value.iter().position(|one| *one == digit).unwrap();
        sum * 32 + i64::try_from(value).unwrap()
    })
}

fn incoming(shared: &Shared) -> Vec<String> {
    let mut names = names_in(&shared.spool().join("incoming"));
    names.sort();
    names
}

#[test]
fn an_id_has_the_time_at_which_its_drop_appears() {
    let shared = Shared::new();
    let batch = batch(&shared, 3);
    let slow = "fsync:delay_enter=700000";
    let arguments = ["submit", "--batch", &batch];
    let ran = Ran::of(&mut under_strace(&shared, "fsync", slow, &arguments));
    ran.succeeds();
    for id in ran.stdout.lines() {
        let drop = fs::metadata(shared.spool().join(format!("incoming/{id}.json"))).unwrap();
        let changed = drop.ctime() * 1000 + drop.ctime_nsec() / 1_000_000;
        // With an id from before the three syncs the first one would be 2.1 s off, and most of 200 would be
        // refused.
        assert!(changed - moment(id) < 1_000, "{id}: {changed}");
    }
    assert_eq!(ran.stdout.lines().count(), 3);
}

#[test]
fn a_submission_whose_id_would_be_too_old_is_not_accepted() {
    let shared = Shared::new();
    let clock = Clock::new(&shared.world);
    // This has the same effect as a process that is stopped for this long between the id and the rename.
    clock.set(-200, 0);
    let batch = batch(&shared, 2);
    for arguments in [
        ["submit", "--recipe", "echo"].as_slice(),
        &["submit", "--batch", &batch],
    ] {
        let mut command = shared.as_user(GROUP_USER, "agentspool");
        let ran = Ran::of(command.args(arguments).envs(clock.environment()));
        ran.ends_with(1);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.contains("its id was too old"), "{}", ran.stderr);
        assert_eq!(incoming(&shared), [""; 0]);
    }
}

#[test]
fn a_batch_that_fails_in_the_middle_reports_what_was_accepted() {
    let shared = Shared::new();
    let batch = batch(&shared, 5);
    let full = "renameat2:error=ENOSPC:when=3";
    let run = |arguments: &[&str]| {
        let ran = Ran::of(&mut under_strace(&shared, "renameat2", full, arguments));
        ran.ends_with(8);
        ran
    };
    let message = run(&["submit", "--json", "--batch", &batch]).json();
    assert_eq!(message["submitted"], 2, "{message}");
    let ids = message["task_ids"].as_array().unwrap().iter();
    let mut accepted: Vec<String> = ids
        .map(|id| format!("{}.json", id.as_str().unwrap()))
        .collect();
    accepted.sort();
    assert_eq!(incoming(&shared), accepted);
    // As text, the ids are printed on stdout as well.
    let ran = run(&["submit", "--batch", &batch]);
    assert_eq!(ran.stdout.lines().count(), 2);
    assert!(
        ran.stderr.contains("2 earlier lines were accepted"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_limit_of_file_sizes_is_reported_as_an_error() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    let waiting = incoming(&shared);
    let settings = fs::read(shared.spool().join("spool.json")).unwrap();
    for (uid, arguments) in [
        (GROUP_USER, "submit --recipe echo".to_owned()),
        (GROUP_USER, format!("cancel {id} --no-wait")),
        (OWNER, "submit --recipe echo".to_owned()),
        (OWNER, "config set max_concurrent 7".to_owned()),
    ] {
        let ran = shared.shell(uid, &format!("ulimit -f 0; exec {PROGRAM} {arguments}"));
        ran.ends_with(8);
        assert!(ran.stderr.contains("File too large"), "{}", ran.stderr);
        assert!(ran.stderr.contains("ulimit -f"), "{}", ran.stderr);
        assert_eq!(incoming(&shared), waiting);
    }
    assert_eq!(
        fs::read(shared.spool().join("spool.json")).unwrap(),
        settings
    );
    assert!(names_in(&shared.spool().join("staging")).is_empty());
    // A recipe has the signal's default action again.
    shared.recipe("limited", "#!/bin/sh\nulimit -f 0\necho x > file\n");
    let killed = shared.json(GROUP_USER, &["submit", "--recipe", "limited"]);
    let killed = killed["task_id"].as_str().unwrap().to_owned();
    shared.drain();
    assert_eq!(shared.json(OWNER, &["status", &killed])["signal"], 25);
}

#[test]
fn the_remains_of_a_killed_submission_are_removed_when_they_are_old() {
    let shared = Shared::new();
    let kill = "renameat2:signal=KILL:when=1";
    let arguments = ["submit", "--recipe", "echo"];
    Ran::of(&mut under_strace(&shared, "renameat2", kill, &arguments));
    let left = incoming(&shared);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].ends_with(".new"), "{left:?}");
    // A person's hidden file is left alone.
    fs::write(shared.spool().join("incoming/.mine.new"), "").unwrap();
    let sweep = || shared.json(OWNER, &["sweep"])["litter"].clone();
    // Ages count from the first pass.
    sweep();
    assert_eq!(sweep(), 0);
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let doctor = shared.run(OWNER, &["doctor"]);
    assert!(
        doctor.stdout.contains("1 incomplete drop in incoming/"),
        "{}",
        doctor.stdout
    );
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    assert_eq!(sweep(), 1);
    assert_eq!(incoming(&shared), [".mine.new"]);
}
