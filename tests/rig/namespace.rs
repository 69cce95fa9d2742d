//! A spool seen from two pid or user namespaces, as by containers and their host. Needs root for `unshare`.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::drop_box::put;
use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::support::processes::{is_alive, state};
use crate::support::{PROGRAM, World, all_pids};

#[test]
fn a_watcher_from_another_pid_namespace_stops_no_session() {
    let world = World::new();
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.set("autostart", "false");
    world.start_watcher();
    // It compares the index entries with the tasks, records that, and exits.
    let other = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            PROGRAM,
            "watch",
            "--drain",
        ])
        .env("AGENTSPOOL_DIR", world.spool())
        .status()
        .unwrap();
    assert!(other.success());
    let first = world.submit(&["ok", "--session-id", "chat"]);
    let second = world.submit(&["ok", "--session-id", "chat"]);
    for task in [&first, &second] {
        assert_eq!(world.result_of(task)["output"], "fine");
    }
}

/// A watcher as the first process of a container: TERM reaches the tasks, their ends are recorded, and the
/// watcher exits last. Orphans of other processes in the container become its children, and it reaps them.
#[test]
fn the_first_process_of_a_container_stops_its_tasks_and_exits_last() {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cancel_grace_sec", "20");
    let script = "#!/bin/sh\n[ $AGENTSPOOL_ATTEMPT = 2 ] && exit 0\n\
                  trap 'sleep 0.3; echo heeded >heeded; exit 1' TERM\ntouch ready\n\
                  while :; do sleep 0.05; done\n";
    world.recipe_folder("again", "on_lost = \"requeue\"", script);
    world.recipe("once", script);
    let (again, once) = (world.submit(&["again"]), world.submit(&["once"]));
    let mut container = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .args([PROGRAM, "watch"])
        .env("AGENTSPOOL_DIR", world.spool())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for task in [&again, &once] {
        world.wait_for_file(&task.work(1, "ready"));
    }
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
        rest.split(' ')
            .nth(1)
            .and_then(|pid| pid.parse::<u32>().ok())
    };
    let first = all_pids()
        .into_iter()
        .find(|pid| parent(*pid) == Some(container.id()));
    let first = first.expect("no process is in the container");

    // A process that is started there by hand, as with `docker exec`, and orphaned.
    let entered = Command::new("nsenter")
        .args([
            "--target",
            &first.to_string(),
            "--pid",
            "--mount",
            "sh",
            "-c",
        ])
        .arg("sleep 0.2 & sleep 1000 & echo orphans")
        .stdout(Stdio::null())
        .status();
    assert!(entered.unwrap().success());
    let orphans = || {
        let all = all_pids().into_iter();
        all.filter(|pid| parent(*pid) == Some(first as u32) && state(*pid) == Some('Z'))
            .count()
    };
    world.wait_until("processes that exit in the container are reaped", || {
        let of_first = all_pids()
            .into_iter()
            .filter(|pid| parent(*pid) == Some(first as u32));
        // Two runners and the second sleep.
        of_first.count() == 3 && orphans() == 0
    });

    world.signal(first, Signal::TERM);
    assert!(container.wait().unwrap().success(), "{}", world.describe());
    assert!(!is_alive(first));
    for task in [&again, &once] {
        assert_eq!(
            std::fs::read_to_string(task.work(1, "heeded")).unwrap(),
            "heeded\n"
        );
    }
    assert_eq!(once.result()["error"]["kind"], "lost");
    assert_eq!(again.status()["condition"], "retrying");
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(again.result()["status"], "completed");
}

/// Everything but the spool may be read-only, and HOME need not exist.
#[test]
fn a_container_with_a_read_only_root_needs_only_the_spool() {
    let world = World::new();
    world.recipe("writes", "#!/bin/sh\nmktemp >\"$AGENTSPOOL_RESULT_FILE\"\n");
    let root = world.root().display().to_string();
    let script = format!(
        "mount --bind {root} {root}\nmount -o remount,bind,ro /\n! touch /probe 2>/dev/null || exit 9\n\
         id=$({PROGRAM} submit --recipe writes -q) && exec {PROGRAM} wait \"$id\" --json\n"
    );
    let ran = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            &script,
        ])
        .env("AGENTSPOOL_DIR", world.spool())
        .env_remove("HOME")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{printed}\n{}", world.describe());
    let result = world.only_task().result();
    let made = result["output"].as_str().unwrap();
    assert!(made.contains("/attempts/1/work/"), "{result}");
}

/// A watcher of the owner in a user namespace with root, the owner and these groups, like the one that
/// systemd creates for `PrivateUsers=yes`.
fn watch_in_user_namespace(shared: &Shared, groups: &[u32]) -> Child {
    let mut command = shared.as_user(OWNER, "unshare");
    let log = shared.world.root().join("watch.log");
    let mut child = command
        .args(["-U", "sh", "-c", "read go && exec \"$0\" watch", PROGRAM])
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(log).unwrap())
        .spawn()
        .unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", child.id()));
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    shared
        .world
        .wait_until("it has a namespace of its own", || {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            name == "sh\n" && std::fs::read_link(process.join("ns/user")).unwrap() != own
        });
    let map = |ids: &[u32]| -> String { ids.iter().map(|id| format!("{id} {id} 1\n")).collect() };
    std::fs::write(process.join("uid_map"), map(&[0, OWNER])).unwrap();
    std::fs::write(process.join("gid_map"), map(groups)).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

/// In a user namespace all users from outside have the same uid, so the uid identifies no user.
#[test]
fn users_from_outside_a_user_namespace_are_not_one_user() {
    let shared = Shared::new();
    shared.run(OWNER, &["pause"]).succeeds();
    let own_group = OWNER + 1000;
    let mut watching = watch_in_user_namespace(&shared, &[0, own_group, GROUP]);
    let id = shared.submit(GROUP_USER, &[]);
    let origin = shared.spool().join("tasks").join(&id).join("origin.json");
    shared.world.wait_for_file(&origin);
    let origin = crate::support::read_json(&origin);
    assert_eq!(origin["uid"], serde_json::Value::Null, "{origin}");
    // Also not when another watcher took the files for one user's.
    let control = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}\n");
    for (number, uid) in [GROUP_USER, OTHER_GROUP_USER].into_iter().enumerate() {
        let name = format!("{id}.{number:016x}.cancel");
        let file = put(&shared, uid, &name, &control, 0o640);
        shared.world.wait_until("it is refused", || !file.exists());
    }
    assert_eq!(
        shared.json(GROUP_USER, &["status", &id])["status"],
        "pending"
    );
    watching.kill().unwrap();
    watching.wait().unwrap();

    // Groups from outside are not the spool's group either. The owner is in one of them, and not every user
    // of the spool is.
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let mut watching = watch_in_user_namespace(&shared, &[0]);
    let incoming = shared.spool().join("incoming");
    let (between, private) = (incoming.join(".private"), incoming.join("private.json"));
    std::fs::write(&between, "{\"recipe\": \"echo\"}").unwrap();
    chown(&between, Some(GROUP_USER), Some(own_group)).unwrap();
    std::fs::set_permissions(&between, PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::rename(between, &private).unwrap();
    shared
        .world
        .wait_until("it is decided", || !private.exists());
    let printed = shared.run(OTHER_GROUP_USER, &["status", "private"]);
    printed.ends_with(7);
    assert!(
        printed
            .stderr
            .contains("its group does not exist in the user namespace"),
        "{}",
        printed.stderr
    );
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// In a time namespace the same processes seem to have started at another time. Without a cgroup, the record
/// of a killed runner would suggest that all of them are older, or younger, than the attempt.
#[test]
fn processes_of_a_runner_in_another_time_namespace_are_ended() {
    let world = World::new();
    world.set("autostart", "false");
    let script = "#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\ntouch ready\nsleep 1000\n";
    world.recipe("leaves", script);
    for shift in ["86400", "-1"] {
        let task = world.submit(&["leaves"]);
        let mut watcher = Command::new("unshare")
            .args(["--mount", "--time", "--boottime", shift, "sh", "-c"])
            .arg("mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"")
            .args(["sh", PROGRAM, "watch"])
            .env("AGENTSPOOL_DIR", world.spool())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        world.wait_for_file(&task.work(1, "ready"));
        let (runner, _) = world.processes_of(&task, 1);
        watcher.kill().unwrap();
        watcher.wait().unwrap();
        world.signal(runner, Signal::KILL);
        world.run(&["watch", "--drain"]).succeeds();
        assert_eq!(task.result()["error"]["kind"], "lost");
        assert!(task.processes().is_empty(), "{shift}: {}", world.describe());
    }
}
