//! A recipe that shuts or replaces its own folders: those of its task and of its session.
//!
//! Needs root for a spool whose owner is not root, because modes do not stop root. Checked: every task ends,
//! the tasks after it run, and everything can be removed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use crate::group::{GROUP, OWNER, Shared};
use crate::support::names_in;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a task does to the folder of its session, `$S`, which contains `queue` and `state`.
const TO_A_SESSION: &[&str] = &[
    "chmod 0 $S",
    "chmod 400 $S",
    "chmod 600 $S/queue",
    "chmod 0 $S/queue $S/state $S/lock",
    "chmod 500 $S $S/queue $S/state",
    "rm -r $S/state; echo >$S/state",
    "rm -r $S/queue; ln -s .. $S/queue",
    "rm -r $S; echo >$S",
    "rm $S/lock; mkdir $S/lock",
    "rm -r $S",
];

#[test]
fn a_session_whose_folder_is_shut_or_replaced_continues_and_is_removed() {
    let shared = Shared::new();
    shared.recipe(
        "does",
        "#!/bin/sh\nS=${AGENTSPOOL_SESSION_DIR%/state}; eval \"$(sed 's/^\"//; s/\"$//')\"\n",
    );
    let sessions = shared.spool().join("sessions");
    let mut tasks = Vec::new();
    for round in ["first", "again"] {
        for (number, done) in TO_A_SESSION.iter().enumerate() {
            let session = format!("s{number}");
            let input = serde_json::to_string(done).unwrap();
            for input in [input.as_str(), "\"true\""] {
                let object = shared.json(
                    OWNER,
                    &[
                        "submit",
                        "--recipe",
                        "does",
                        "--session-id",
                        &session,
                        "--input",
                        input,
                    ],
                );
                assert_eq!(
                    object["ok"],
                    true,
                    "{round} {done}: {object}\n{}",
                    shared.tree()
                );
                tasks.push(object["task_id"].as_str().unwrap().to_owned());
            }
        }
        shared.drain();
    }
    for task in &tasks {
        let status = shared.json(OWNER, &["status", task]);
        assert_eq!(status["status"], "completed", "{status}\n{}", shared.tree());
    }
    assert_eq!(names_in(&shared.spool().join("open")), [".boot"]);
    shared.run(OWNER, &["clear"]).succeeds();
    for session in names_in(&sessions) {
        let _ = shared.shell(
            OWNER,
            &format!("touch -h -d 2001-01-01 spool/sessions/{session}"),
        );
    }
    shared
        .run(OWNER, &["config", "set", "session_keep_sec", "0"])
        .succeeds();
    shared.run(OWNER, &["sweep"]);
    shared.world.wait_until("the sessions are swept", || {
        shared.run(OWNER, &["sweep"]).succeeds();
        names_in(&sessions).is_empty()
    });
}

#[test]
fn a_task_whose_folders_are_shut_ends_and_is_removed() {
    let shared = Shared::new();
    let folders = ["", "attempts", "attempts/1", "attempts/1/work"];
    let modes = ["0", "400", "500", "600"];
    let mut tasks = Vec::new();
    for folder in folders {
        for mode in modes {
            let recipe = format!("r{}-{mode}", folder.replace('/', "-"));
            shared.recipe(
                &recipe,
                &format!("#!/bin/sh\necho out\nchmod {mode} \"$AGENTSPOOL_TASK_DIR/{folder}\"\n"),
            );
            let object = shared.json(OWNER, &["submit", "--recipe", &recipe]);
            tasks.push((recipe, object["task_id"].as_str().unwrap().to_owned()));
        }
    }
    shared.drain();
    for (recipe, task) in &tasks {
        let result = shared.run(OWNER, &["result", task]);
        assert_eq!(result.stdout, "out\n", "{recipe}: {}", result.stderr);
        let logs = shared.run(OWNER, &["logs", task]);
        assert_eq!(logs.stdout, "out\n", "{recipe}: {}", logs.stderr);
    }
    shared.run(OWNER, &["clear"]).succeeds();
    assert!(
        names_in(&shared.spool().join("tasks")).is_empty(),
        "{}",
        shared.tree()
    );
}

fn submit(shared: &Shared, recipe: &str) -> String {
    let object = shared.json(OWNER, &["submit", "--recipe", recipe]);
    object["task_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_task_whose_files_are_shut_is_read_by_its_owner() {
    let shared = Shared::new();
    let end = "find \"$AGENTSPOOL_TASK_DIR\" -type f -exec chmod 0 {} +";
    shared.recipe(
        "prints",
        &format!("#!/bin/sh\necho out; echo err >&2\n{end}\n"),
    );
    let long = format!("#!/bin/sh\nseq 100000 >$AGENTSPOOL_RESULT_FILE\n{end}\n");
    shared.recipe("writes", &long);
    let tasks = ["prints", "writes"].map(|recipe| submit(&shared, recipe));
    shared.drain();
    let [prints, writes] = &tasks;
    for task in &tasks {
        let status = shared.json(OWNER, &["status", task]);
        assert_eq!(status["status"], "completed", "{status}\n{}", shared.tree());
    }
    let ran = ["result", "logs"].map(|verb| shared.run(OWNER, &[verb, prints]));
    assert_eq!(
        ran.map(|ran| ran.stdout),
        ["out\n", "out\n"],
        "{}",
        shared.tree()
    );
    assert_eq!(
        shared
            .run(OWNER, &["result", writes])
            .stdout
            .lines()
            .count(),
        100_000
    );
}

#[test]
fn a_log_is_followed_after_its_folder_is_shut() {
    let shared = Shared::new();
    let above = shared.spool().parent().unwrap().to_owned();
    let wait = |name: &str| {
        let path = above.join(name);
        format!("while [ ! -e {} ]; do sleep 0.02; done", path.display())
    };
    let (shut, end) = (wait("shut"), wait("end"));
    shared.recipe(
        "shuts",
        &format!("#!/bin/sh\necho begin\n{shut}\nchmod 0 $TMPDIR/..\necho shut\n{end}\n"),
    );
    let _watching = shared.watcher();
    let task = submit(&shared, "shuts");
    let seen = shared.world.root().join("seen");
    let mut command = shared.as_user(OWNER, "agentspool");
    command
        .args(["logs", "-f", &task])
        .stdout(fs::File::create(&seen).unwrap());
    let mut following = command.spawn().unwrap();
    let shows = |line: &str| fs::read_to_string(&seen).unwrap().contains(line);
    shared
        .world
        .wait_until("the log is followed", || shows("begin"));
    fs::write(above.join("shut"), "").unwrap();
    shared.world.wait_until("it is still followed", || {
        shows("shut") || following.try_wait().unwrap().is_some()
    });
    fs::write(above.join("end"), "").unwrap();
    assert!(following.wait().unwrap().success());
}

/// Waiting tasks, each with one of its folders shut in another way.
fn shut_tasks(shared: &Shared) -> Vec<(String, String)> {
    let mut tasks = Vec::new();
    for folder in ["", "attempts"] {
        for mode in [0, 0o400, 0o500, 0o600] {
            let task = shared.submit(OWNER, &[]);
            set_mode(&shared.spool().join("tasks").join(&task).join(folder), mode);
            tasks.push((format!("{folder:?} {mode:o}"), task));
        }
    }
    tasks
}

#[test]
fn a_pending_task_whose_folders_are_shut_is_cancelled_cleared_and_run() {
    let shared = Shared::new();
    for (what, task) in shut_tasks(&shared) {
        let cancelled = shared.json(OWNER, &["cancel", &task]);
        assert_eq!(cancelled["status"], "cancelled", "{what}: {cancelled}");
    }
    shut_tasks(&shared);
    shared.run(OWNER, &["clear", "--all"]).succeeds();
    let tasks = shared.spool().join("tasks");
    assert!(names_in(&tasks).is_empty(), "{}", shared.tree());
    let run = shut_tasks(&shared);
    shared.drain();
    for (what, task) in run {
        let status = shared.json(OWNER, &["status", &task]);
        assert_eq!(status["status"], "completed", "{what}: {status}");
    }
}

/// The owner cannot change another user's folder in any way: here a folder of root's.
#[test]
fn a_task_that_cannot_be_ended_does_not_stop_clearing_others() {
    let shared = Shared::new();
    let stays = shared.submit(OWNER, &[]);
    let goes: Vec<String> = (0..3).map(|_| shared.submit(OWNER, &[])).collect();
    let attempts = shared.spool().join("tasks").join(&stays).join("attempts");
    set_mode(&attempts, 0);
    chown(&attempts, Some(0), Some(0)).unwrap();
    let cleared = shared.json(OWNER, &["clear", "--all"]);
    chown(&attempts, Some(OWNER), Some(GROUP)).unwrap();
    assert_eq!(cleared["ok"], false, "{cleared}");
    assert_eq!(cleared["code"], 1, "{cleared}");
    assert_eq!(cleared["cleared"], goes.len(), "{cleared}");
    assert_eq!(cleared["skipped"], serde_json::json!([stays]), "{cleared}");
    assert_eq!(names_in(&shared.spool().join("tasks")), [stays]);
    shared.run(OWNER, &["clear", "--all"]).succeeds();
    assert!(
        names_in(&shared.spool().join("tasks")).is_empty(),
        "{}",
        shared.tree()
    );
}
