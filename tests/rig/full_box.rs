//! A drop box full of files that cannot be taken, and the users whose drops wait behind them.
//!
//! Not single odd files (`hostile.rs`), and not who may do what (`drop_box.rs`). Checked: however many files
//! one user leaves in the box, the drops and cancellations of other users are taken; the watcher does not
//! spin; its log stays short; and `cancel` ends when it cannot be done.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentspool::task::TaskId;
use rustix::process::Signal;

use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared, Watching};
use crate::support::processes::ticks;
use crate::support::{PROGRAM, names_in};

/// Puts a file as some user: first under a hidden name, then under its own.
fn put(shared: &Shared, uid: u32, name: &str, content: &str, mode: u32) -> PathBuf {
    let incoming = shared.spool().join("incoming");
    let between = incoming.join(format!(".{name}.tmp"));
    fs::write(&between, content).unwrap();
    chown(&between, Some(uid), Some(GROUP)).unwrap();
    fs::set_permissions(&between, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(between, incoming.join(name)).unwrap();
    incoming.join(name)
}

fn echo(shared: &Shared, uid: u32, name: &str) {
    let request = format!("{{\"recipe\": \"echo\", \"input\": \"{name}\"}}");
    put(shared, uid, &format!("{name}.json"), &request, 0o640);
}

/// A task of GROUP_USER that runs until it is cancelled.
fn running(shared: &Shared) -> String {
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let submitted = shared.json(GROUP_USER, &["submit", "--recipe", "forever"]);
    submitted["task_id"].as_str().unwrap().to_owned()
}

fn wait_for(shared: &Shared, id: &str, status: &str) {
    shared.world.wait_until(&format!("{id} is {status}"), || {
        shared.json(GROUP_USER, &["status", id])["status"] == status
    });
}

/// Control files of OTHER_GROUP_USER for a task that never comes.
fn put_controls(shared: &Shared, count: usize, content: &str) {
    let id = "task_01m85x906pb06zhxqqsktssv9k";
    for n in 0..count {
        let name = format!("{id}.{n:016x}.cancel");
        put(shared, OTHER_GROUP_USER, &name, content, 0o640);
    }
}

#[test]
fn incomplete_drops_do_not_delay_others() {
    let shared = Shared::new();
    for n in 0..20_000 {
        put(&shared, OTHER_GROUP_USER, &format!("z{n}.json"), "", 0o640);
    }
    // After all of them, also a drop of the same user.
    echo(&shared, OTHER_GROUP_USER, "own");
    echo(&shared, GROUP_USER, "others");
    let watching = shared.watcher();
    watching.answers("others", "others\n");
    watching.answers("own", "own\n");
    // None of them is decided yet.
    assert_eq!(names_in(&shared.spool().join("incoming")).len(), 20_000);
}

#[test]
fn waiting_control_files_do_not_delay_others() {
    let shared = Shared::new();
    let id = running(&shared);
    let watching = shared.watcher();
    wait_for(&shared, &id, "running");
    let content = "{\"v\":2,\"task\":\"task_01m85x906pb06zhxqqsktssv9k\",\"do\":\"cancel\"}";
    put_controls(&shared, 10_000, content);
    shared.run(GROUP_USER, &["cancel", &id]).succeeds();
    echo(&shared, GROUP_USER, "later");
    watching.answers("later", "later\n");
    assert_eq!(names_in(&shared.spool().join("incoming")).len(), 10_000);
}

/// Like encrypted files whose key was removed: each can be listed and moved, but not opened.
#[test]
fn files_that_cannot_be_opened_are_set_aside() {
    const COUNT: usize = 300;
    let shared = Shared::new();
    let mut command = shared.as_user(OWNER, "timeout");
    command.args([
        "60",
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=openat",
    ]);
    command.args(["-e", "inject=openat:error=ENOKEY"]);
    for n in 0..COUNT {
        let name = format!("q{n}.json");
        echo(&shared, OTHER_GROUP_USER, &format!("q{n}"));
        command.arg("-P").arg(name);
    }
    echo(&shared, OTHER_GROUP_USER, "own");
    echo(&shared, GROUP_USER, "others");
    let ran = crate::support::Ran::of(command.args([PROGRAM, "watch", "--drain"]));
    ran.succeeds();
    for name in ["own", "others"] {
        let message = shared.run(OWNER, &["result", name]);
        assert_eq!(message.stdout, format!("{name}\n"), "{}", ran.stderr);
    }
    assert_eq!(names_in(&shared.spool().join("incoming")).len(), COUNT);
    assert!(ran.stderr.contains("left in the box"), "{}", ran.stderr);
}

/// No space for a single reason: drops to be refused wait, and work that needs no space is done.
#[test]
fn a_full_disk_does_not_make_the_watcher_spin() {
    let shared = Shared::new();
    let id = running(&shared);
    let watching = shared.watcher();
    wait_for(&shared, &id, "running");
    let rejected = shared.spool().join("rejected");
    let path = rejected.to_str().unwrap();
    let options = format!("nr_inodes=1,mode=2750,uid={OWNER},gid={GROUP}");
    crate::mount::run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path]);
    put_controls(&shared, 400, "not what its name says");
    becomes_idle(&shared, watching.pid());
    shared.run(GROUP_USER, &["cancel", &id]).succeeds();
    assert_eq!(names_in(&shared.spool().join("incoming")).len(), 400);
    crate::mount::run("umount", &["-l", path]);
    shared.world.wait_until("all are refused", || {
        names_in(&shared.spool().join("incoming")).is_empty()
    });
}

/// During some second it uses less than a fifth of a processor.
fn becomes_idle(shared: &Shared, pid: i32) {
    let mut started = (Instant::now(), ticks(pid));
    shared.world.wait_until("it is idle", || {
        if started.0.elapsed() < Duration::from_secs(1) {
            return false;
        }
        let used = (ticks(pid) - started.1) as f64 / 100.0;
        let is_at_rest = used < started.0.elapsed().as_secs_f64() / 5.0;
        started = (Instant::now(), ticks(pid));
        is_at_rest
    });
}

#[test]
fn the_log_counts_repeated_refusals() {
    const COUNT: usize = 200;
    let shared = Shared::new();
    for n in 0..COUNT {
        put(
            &shared,
            OTHER_GROUP_USER,
            &format!("bad{n}.json"),
            "[]",
            0o640,
        );
    }
    let ran = shared.run(OWNER, &["watch", "--drain"]);
    ran.succeeds();
    let lines = ran.stderr.matches("refused: ").count();
    let counted: usize = ran
        .stderr
        .lines()
        .filter_map(|line| line.split_once("drops refused: ")?.1.split(' ').next())
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    // The line with the count has the same words.
    let single = lines - ran.stderr.matches("drops refused: ").count();
    assert!(single < COUNT / 2, "{}", ran.stderr);
    assert_eq!(single + counted, COUNT, "{}", ran.stderr);
}

/// A `cancel` of GROUP_USER that has put its control file into the box while the watcher was stopped.
fn cancel_of_a_drop(shared: &Shared, watching: &Watching<'_>, mode: u32) -> (String, Child) {
    // The watcher runs, and counts as running, before it is stopped.
    echo(shared, GROUP_USER, "first");
    watching.answers("first", "first\n");
    crate::mount::run("kill", &["-STOP", &watching.pid().to_string()]);
    let id = new_id();
    let request = "{\"recipe\": \"forever\"}";
    put(shared, GROUP_USER, &format!("{id}.json"), request, mode);
    let mut command = shared.as_user(GROUP_USER, "agentspool");
    command.args(["cancel", &id]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    shared.world.wait_until("it waits for the watcher", || {
        control_file(shared).is_some()
    });
    (id, child)
}

fn control_file(shared: &Shared) -> Option<PathBuf> {
    let incoming = shared.spool().join("incoming");
    let is_control = |name: &String| name.ends_with(".cancel") && !name.starts_with('.');
    let name = names_in(&incoming).into_iter().find(is_control)?;
    Some(incoming.join(name))
}

fn ended(watching: &Watching<'_>, child: Child) -> Output {
    crate::mount::run("kill", &["-CONT", &watching.pid().to_string()]);
    child.wait_with_output().unwrap()
}

/// An id of the current time, as a user chooses one.
fn new_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TaskId::from_parts(now.as_millis().try_into().unwrap(), 7).to_string()
}

/// Others could have written the drop, so its submitter is unknown.
#[test]
fn a_cancel_that_no_group_user_may_request_ends() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let watching = shared.watcher();
    let (id, child) = cancel_of_a_drop(&shared, &watching, 0o660);
    let message = ended(&watching, child);
    let stderr = String::from_utf8_lossy(&message.stderr).into_owned();
    assert_eq!(message.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains("is unknown: other users could have written"),
        "{stderr}"
    );
    wait_for(&shared, &id, "running");
    let again = shared.run(GROUP_USER, &["cancel", &id]);
    again.ends_with(4);
    assert!(
        again.stderr.contains("is unknown: other users"),
        "{}",
        again.stderr
    );
    shared.run(OWNER, &["cancel", &id]).succeeds();
}

/// Its own control file is refused, because it has a second hard link.
#[test]
fn a_cancel_whose_control_file_is_refused_ends() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let watching = shared.watcher();
    let (id, child) = cancel_of_a_drop(&shared, &watching, 0o640);
    let file = control_file(&shared).unwrap();
    fs::hard_link(&file, shared.spool().join("incoming/.second")).unwrap();
    let message = ended(&watching, child);
    let stderr = String::from_utf8_lossy(&message.stderr).into_owned();
    assert_eq!(message.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("was refused"), "{stderr}");
    shared.run(OWNER, &["cancel", &id]).succeeds();
}

/// A file that needed only another mode counts as new when it gets the mode.
#[test]
fn a_drop_that_waited_for_its_mode_comes_before_many_of_another_user() {
    const MANY: usize = 30;
    let shared = Shared::new();
    shared.run(OWNER, &["pause"]).succeeds();
    let watching = shared.watcher();
    let request = "{\"recipe\": \"echo\"}";
    let slow = put(&shared, OTHER_GROUP_USER, "slow.json", request, 0o600);
    // Of two drops that came in one tick of the clock, the one with the smaller name is taken first.
    echo(&shared, OTHER_GROUP_USER, "then");
    let name = |name: &str| fs::read_link(shared.spool().join("names").join(name)).ok();
    let has = |wanted: &str| shared.world.wait_until(wanted, || name(wanted).is_some());
    has("then");
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(watching.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(Signal::STOP);
    for n in 0..MANY {
        echo(&shared, GROUP_USER, &format!("many-{n}"));
    }
    fs::set_permissions(slow, fs::Permissions::from_mode(0o640)).unwrap();
    signal(Signal::CONT);
    has("slow");
    for n in 0..MANY {
        has(&format!("many-{n}"));
    }
    // Ids are created in the order of admission.
    let id_of = |wanted: &str| name(wanted).unwrap().file_name().unwrap().to_owned();
    let before = (0..MANY).filter(|n| id_of(&format!("many-{n}")) < id_of("slow"));
    let count = before.count();
    assert!(count < 3, "{count} came before");
}
