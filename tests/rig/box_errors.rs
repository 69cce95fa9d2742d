//! A call on one file of the drop box fails, or the watcher is killed at it, and the other files are still
//! processed. Also calls that are not made because they would fail.
//!
//! Not a disk that refuses everything (`disk.rs`, `errno.rs`). Checked: no file of a user keeps a task from
//! being cleared or other files from being taken; an interrupted or impossible refusal leaves one reason or
//! none; work that another watcher has done is not refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::box_ids::claim;
use crate::drop_box::{drop_request, id_at, put};
use crate::group::{GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::support::{PROGRAM, Ran, names_in};

/// The owner's command, with an error injected into calls that name this file.
fn injected(shared: &Shared, arguments: &[&str], file: &str, call: &str, what: &str) -> Ran {
    let mut command = shared.as_user(OWNER, "timeout");
    command.args(["60", "strace", "-qq", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace={call}"), "-P", file]);
    command.args(["-e", &format!("inject={call}:{what}")]);
    Ran::of(command.arg(PROGRAM).args(arguments))
}

fn rejected(shared: &Shared) -> Vec<String> {
    names_in(&shared.spool().join("rejected"))
}

fn in_the_box(shared: &Shared) -> Vec<String> {
    names_in(&shared.spool().join("incoming"))
}

/// A finished task of GROUP_USER.
fn finished(shared: &Shared) -> String {
    let id = shared.submit(GROUP_USER, &["--input", "1"]);
    shared.drain();
    id
}

/// As with a project quota, if a user gives his file to another project: no rename moves it.
#[test]
fn a_task_is_cleared_although_a_drop_cannot_be_moved() {
    let shared = Shared::new();
    for errno in ["EXDEV", "EIO", "ENOSPC"] {
        let id = finished(&shared);
        drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
        let what = format!("error={errno}");
        injected(
            &shared,
            &["clear"],
            &format!("{id}.json"),
            "renameat",
            &what,
        )
        .succeeds();
        assert!(
            names_in(&shared.spool().join("tasks")).is_empty(),
            "{errno}"
        );
        assert_eq!(in_the_box(&shared), [""; 0], "{errno}");
        assert_eq!(rejected(&shared), [""; 0], "{errno}");
    }
}

#[test]
fn a_file_that_cannot_be_moved_gets_no_reason() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "1"]);
    let control = format!("{id}.000000000000002a.cancel");
    put(&shared, GROUP_USER, &control, "not it", 0o640);
    for _ in 0..2 {
        let ran = injected(
            &shared,
            &["watch", "--drain"],
            &control,
            "renameat",
            "error=EXDEV",
        );
        ran.succeeds();
        assert!(ran.stderr.contains("left in the box"), "{}", ran.stderr);
        assert_eq!(rejected(&shared), [""; 0]);
    }
    assert_eq!(in_the_box(&shared), [control]);
    assert_eq!(shared.run(GROUP_USER, &["result", &id]).stdout, "1\n");
}

#[test]
fn the_owner_cancels_a_drop_that_cannot_be_moved() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "1"]);
    let file = format!("{id}.json");
    injected(&shared, &["cancel", &id], &file, "renameat", "error=EXDEV").succeeds();
    assert_eq!(in_the_box(&shared), [""; 0]);
    assert_eq!(rejected(&shared), [""; 0]);
}

/// Its owner keeps it open, and gives it to another project once it is claimed.
#[test]
fn a_drop_that_cannot_leave_its_claim_is_refused_anyway() {
    let shared = Shared::new();
    let id = id_at(0, "c1a1med");
    put(&shared, GROUP_USER, &format!("{id}.json"), "[]", 0o640);
    let file = format!("{id}.json");
    injected(
        &shared,
        &["watch", "--drain"],
        &file,
        "renameat",
        "error=EXDEV:when=2",
    )
    .succeeds();
    assert_eq!(rejected(&shared), [format!("{id}-{id}.reason.json")]);
    assert!(names_in(&shared.spool().join("staging")).is_empty());
    let message = shared.run(GROUP_USER, &["status", &id]);
    assert!(
        message.stderr.contains("could not be moved"),
        "{}",
        message.stderr
    );
}

#[test]
fn an_interrupted_refusal_is_continued() {
    let shared = Shared::new();
    let task = finished(&shared);
    let own = id_at(0, "0wn");
    let control = format!("{task}.000000000000002a.cancel");
    // A request without a recipe; an id that is taken; a control file, which is not claimed first.
    for (file, when) in [
        (format!("{own}.json"), 2),
        (format!("{task}.json"), 2),
        (control, 1),
    ] {
        put(&shared, OTHER_GROUP_USER, &file, "[]", 0o640);
        // The reason exists, and an empty file is in the place of the refused one.
        let what = format!("signal=KILL:when={when}");
        let ran = injected(&shared, &["watch", "--drain"], &file, "renameat", &what);
        assert_ne!(ran.code, 0, "{file} was not in its way");
        shared.drain();
        let names = rejected(&shared);
        let is_reason = |name: &&String| name.ends_with(".reason.json");
        assert_eq!(names.len(), 2, "{file}: {names:?}");
        assert_eq!(names.iter().filter(is_reason).count(), 1, "{names:?}");
        for name in names {
            let path = shared.spool().join("rejected").join(name);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_ne!(mode & 0o777, 0, "{file}");
            fs::remove_file(path).unwrap();
        }
        assert_eq!(in_the_box(&shared), [""; 0]);
        assert!(names_in(&shared.spool().join("staging")).is_empty());
    }
}

/// No descriptor for another open file is left, for a moment.
#[test]
fn a_file_that_cannot_be_checked_is_checked_again_soon() {
    let shared = Shared::new();
    // No rescan happens by time.
    shared
        .run(OWNER, &["config", "set", "rescan_sec", "3600"])
        .succeeds();
    let watching = shared.watcher();
    drop_request(&shared, GROUP_USER, "first", "1");
    watching.answers("first", "1\n");
    let mut strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-p", &watching.pid().to_string()])
        .args(["-P", "unseen.json", "-e", "trace=openat2"])
        .args(["-e", "inject=openat2:error=EMFILE:when=1..3"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    shared.world.wait_until("strace is attached", || {
        let status = fs::read_to_string(format!("/proc/{}/status", watching.pid())).unwrap();
        !status.contains("TracerPid:\t0\n")
    });
    drop_request(&shared, OTHER_GROUP_USER, "unseen", "2");
    drop_request(&shared, GROUP_USER, "other", "3");
    watching.answers("other", "3\n");
    watching.answers("unseen", "2\n");
    let pid = rustix::process::Pid::from_child(&strace);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let _ = strace.wait();
}

/// Another watcher was faster: it has done what the file requests, and removed it.
#[test]
fn a_control_file_that_another_watcher_has_handled_is_not_refused() {
    let shared = Shared::new();
    let id = finished(&shared);
    let control = format!("{id}.000000000000002a.cancel");
    for when in [2, 3] {
        put(&shared, GROUP_USER, &control, "not it", 0o640);
        let what = format!("error=ENOENT:when={when}");
        let ran = injected(&shared, &["watch", "--drain"], &control, "openat2", &what);
        ran.succeeds();
        assert!(!ran.stderr.contains("refused"), "{}", ran.stderr);
        assert_eq!(rejected(&shared), [""; 0]);
    }
}

/// No watcher would follow the request.
#[test]
fn cancel_of_another_users_drop_is_refused_at_once() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "1"]);
    let message = shared.run(OTHER_GROUP_USER, &["cancel", &id]);
    message.ends_with(4);
    assert!(
        message.stderr.contains("belongs to another user"),
        "{}",
        message.stderr
    );
    assert_eq!(in_the_box(&shared), [format!("{id}.json")]);
    shared.run(GROUP_USER, &["cancel", &id]).succeeds();
    assert_eq!(in_the_box(&shared).len(), 2);
}

#[test]
fn a_drop_claimed_by_a_killed_watcher_is_taken_soon() {
    let shared = Shared::new();
    // No rescan happens by time.
    shared
        .run(OWNER, &["config", "set", "rescan_sec", "3600"])
        .succeeds();
    let living = shared.watcher();
    drop_request(&shared, GROUP_USER, "first", "1");
    living.answers("first", "1\n");
    let dying = shared.watcher();
    shared.world.wait_until("both of them exist", || {
        names_in(&shared.spool().join("watchers")).len() == 2
    });
    // Neither of them takes the drop before it is in the claim.
    let pids = [&living, &dying].map(|watcher| watcher.pid().to_string());
    for pid in &pids {
        crate::mount::run("kill", &["-STOP", pid]);
    }
    let id = id_at(0, "1eft");
    claim(&shared, GROUP_USER, &id, "2");
    drop(dying);
    crate::mount::run("kill", &["-CONT", &pids[0]]);
    living.answers(&id, "2\n");
}

/// EINTR, with which the kernel asks for a second try, says nothing about the file.
#[test]
fn a_control_file_that_cannot_be_read_for_a_moment_is_not_refused() {
    for errno in ["EAGAIN", "EMFILE", "EINTR"] {
        let shared = Shared::new();
        let id = shared.submit(GROUP_USER, &["--input", "1"]);
        shared.run(GROUP_USER, &["cancel", &id]).succeeds();
        let names = in_the_box(&shared);
        let control = names.iter().find(|name| name.ends_with(".cancel")).unwrap();
        let what = format!("error={errno}:when=3");
        let ran = injected(&shared, &["watch", "--drain"], control, "openat2", &what);
        ran.succeeds();
        assert_eq!(rejected(&shared), [""; 0], "{errno}: {}", ran.stderr);
        assert_eq!(in_the_box(&shared), [""; 0], "{errno}");
    }
}
