//! A group spool in which others can write is refused, and nothing in it is changed.
//!
//! Needs root. Not what a conversion keeps of a spool of version 1 (`exposed.rs`). Checked: `init`, a watcher
//! and every command of the owner that writes name the path; the commands that read still work.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use crate::convert::{init, mode, mode_of};
use crate::group::{GROUP, GROUP_USER, OWNER, STRANGER, Shared};
use crate::support::Ran;

const FOLDERS: [&str; 12] = [
    "incoming", "tasks", "names", "sessions", "open", "staging", "trash", "rejected", "slots",
    "watchers", "recipes", "events",
];
const FILES: [&str; 6] = [
    "spool.json",
    "identity.json",
    "sweep.json",
    "spool.lock",
    "names.lock",
    "sweep.lock",
];

/// A spool with all its files, a finished task and a waiting one. Returns the id of the waiting task.
fn used() -> (Shared, String) {
    let shared = Shared::new();
    shared.submit(OWNER, &["--input", "7", "--name", "done"]);
    shared.drain();
    shared.run(OWNER, &["sweep"]).succeeds();
    let waiting = shared.submit(OWNER, &["--session-id", "s"]);
    (shared, waiting)
}

fn shell(script: &str) -> String {
    let ran = Ran::of(Command::new("sh").args(["-ec", script]));
    assert_eq!(ran.code, 0, "{script}: {}", ran.stderr);
    ran.stdout
}

/// The names, modes, owners, times and contents of everything in the spool.
fn snapshot(spool: &Path) -> String {
    shell(&format!(
        "cd {}; find . -printf '%p %y %m %U %G %s %T@ %l\\n' | sort; find . -type f -exec sha256sum {{}} + | sort; \
         getfacl -R . | sort",
        spool.display()
    ))
}

fn is_refused(ran: &Ran, path: &Path, what: &str) {
    let (code, stderr) = (ran.code, &ran.stderr);
    assert_eq!(code, 4, "{what}: {stderr}");
    let named = format!("error: {} ", path.display());
    assert!(stderr.starts_with(&named), "{what}: {stderr}");
    let fix = format!("with `agentspool init NEW --group {GROUP}`");
    assert!(stderr.contains(&fix), "{what}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{what}: {stderr}");
}

/// With this change others can write in the spool.
fn check(shared: &Shared, waiting: &str, entry: &str, change: &str) {
    let spool = shared.spool();
    let path = match entry {
        "." => spool.clone(),
        entry => spool.join(entry),
    };
    shell(&format!("cd {}; {change}", spool.display()));
    let before = snapshot(&spool);
    for arguments in [
        &["init"][..],
        &["watch", "--drain"],
        &["submit", "--recipe", "echo"],
    ] {
        let ran = shared.run(OWNER, arguments);
        is_refused(&ran, &path, &format!("{change}: {arguments:?}"));
    }
    let listed = shared.run(OWNER, &["list"]);
    assert_eq!(listed.code, 0, "{change}: {}", listed.stderr);
    assert!(
        listed.stdout.contains(waiting),
        "{change}: {}",
        listed.stdout
    );
    assert_eq!(snapshot(&spool), before, "{change}");
}

#[test]
fn each_path_that_others_can_write_is_refused() {
    let (shared, waiting) = used();
    for entry in ["."].iter().chain(&FOLDERS).chain(&FILES) {
        let metadata = fs::metadata(shared.spool().join(entry)).unwrap();
        let (all, gid) = (metadata.mode() & 0o7777, metadata.gid());
        let undo =
            format!("chown {OWNER}:{gid} {entry}; setfacl -b {entry}; chmod {all:04o} {entry}");
        let mut changes = vec![
            format!("chmod o+w {entry}"),
            format!("setfacl -m u:{STRANGER}:rwx {entry}"),
        ];
        if *entry == "incoming" {
            changes.push(format!("chmod -t {entry}"));
            changes.push(format!(
                "setfacl -d -m u:{STRANGER}:rwx {entry}; setfacl -k tasks"
            ));
            changes.push(format!("chgrp {STRANGER} {entry}; chmod {all:04o} {entry}"));
        } else {
            changes.push(format!("chmod g+w {entry}"));
        }
        if *entry != "." {
            let set = format!("chown {GROUP_USER}:{gid} {entry}; chmod {all:04o} {entry}");
            changes.push(set);
        }
        for change in changes {
            check(&shared, &waiting, entry, &change);
            shell(&format!(
                "cd {}; {undo}; setfacl -k {entry} 2>/dev/null || :",
                shared.spool().display()
            ));
        }
        if FOLDERS.contains(entry) {
            let aside = format!("../{entry}.aside");
            let place = format!("mv {entry} {aside}; mkdir {entry}; ");
            let place = format!("{place}chown {GROUP_USER}:{gid} {entry}; chmod {all:04o} {entry}");
            // Without its folder the task is not in the list.
            let shown = if ["tasks", "open"].contains(entry) {
                ""
            } else {
                &waiting
            };
            check(&shared, shown, entry, &place);
            let back = format!(
                "cd {}; rmdir {entry}; mv {aside} {entry}",
                shared.spool().display()
            );
            shell(&back);
        }
    }
    // Every change was undone, so nothing is refused.
    init(&shared, OWNER, &[]).succeeds();
    shared.drain();
    assert_eq!(
        shared.json(OWNER, &["status", &waiting])["status"],
        "completed"
    );
}

/// The owner can still copy what he needs, and a group user is not affected.
#[test]
fn the_owner_reads_and_no_command_writes() {
    let (shared, waiting) = used();
    let tasks = shared.spool().join("tasks");
    mode(&tasks, 0o2770);
    for arguments in [
        &["sweep"][..],
        &["clear"],
        &["cancel", &waiting],
        &["submit", "--recipe", "echo"],
        &["config", "set", "rescan_sec", "9"],
        &["config", "unset", "rescan_sec"],
        &["pause"],
        &["resume"],
        &["recipe", "new", "fresh"],
        &["recipe", "run", "echo"],
        &["runner", "--once", &waiting],
        &["init", "--group", &GROUP.to_string()],
    ] {
        let before = snapshot(&shared.spool());
        let ran = shared.run(OWNER, arguments);
        is_refused(&ran, &tasks, &format!("{arguments:?}"));
        assert_eq!(snapshot(&shared.spool()), before, "{arguments:?}");
    }
    for arguments in [
        &["list"][..],
        &["status", &waiting],
        &["result", "done"],
        &["logs", "done"],
        &["events"],
        &["why", &waiting],
        &["wait", "done"],
        &["config"],
        &["config", "get", "rescan_sec"],
        &["recipe", "list"],
        &["recipe", "info", "echo"],
        &["recipe", "check", "echo"],
    ] {
        shared.run(OWNER, arguments).succeeds();
    }
    assert_eq!(shared.run(OWNER, &["result", "done"]).stdout, "7\n");
    let doctor = shared.run(OWNER, &["doctor"]).stdout;
    let named = format!(
        "problem  spool: {} can be written by group {GROUP}",
        tasks.display()
    );
    assert!(doctor.contains(&named), "{doctor}");
    assert!(doctor.contains("agentspool init NEW --group"), "{doctor}");
    assert!(!doctor.contains("it sets the modes"), "{doctor}");
    shared.run(GROUP_USER, &["status", "done"]).succeeds();
    assert_eq!(mode_of(&tasks), 0o2770);
}

#[test]
fn a_running_watcher_starts_no_task() {
    let shared = Shared::new();
    let tasks = shared.spool().join("tasks");
    let mut watching = shared.watcher();
    let first = shared.submit(GROUP_USER, &[]);
    let status = |id: &str| shared.json(GROUP_USER, &["status", id])["status"].clone();
    shared
        .world
        .wait_until("it runs tasks", || status(&first) == "completed");
    mode(&tasks, 0o2770);
    let second = shared.submit(GROUP_USER, &[]);
    let log = || fs::read_to_string(shared.world.root().join("watch.log")).unwrap();
    let line = format!("no task is started: {} can be written", tasks.display());
    shared
        .world
        .wait_until("it is reported", || log().contains(&line));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(status(&second), "pending");
    assert_eq!(log().matches("can be written").count(), 1, "{}", log());
    assert!(watching.is_alive());
    mode(&tasks, 0o2750);
    shared
        .world
        .wait_until("it continues", || status(&second) == "completed");
}

/// The owner may choose who else reads the recipes, and whether they are elsewhere.
#[test]
fn a_link_and_files_of_root_are_not_refused() {
    let (shared, _) = used();
    let recipes = shared.spool().join("recipes");
    let owner = shared.world.root().join("owner");
    shell(&format!(
        "cd {}; mv spool/recipes elsewhere; ln -s ../elsewhere spool/recipes; chown -h {OWNER} spool/recipes",
        owner.display()
    ));
    shared.drain();
    fs::remove_file(&recipes).unwrap();
    fs::rename(owner.join("elsewhere"), &recipes).unwrap();
    chown(&recipes, Some(0), Some(0)).unwrap();
    mode(&recipes, 0o755);
    init(&shared, OWNER, &[]).succeeds();
    shared.drain();
}

/// A group user can write settings in which the spool is not a group spool.
#[test]
fn settings_that_others_can_write_do_not_make_it_a_private_spool() {
    let (shared, _) = used();
    let file = shared.spool().join("spool.json");
    mode(&file, 0o660);
    for version in [1, 2] {
        let write = format!("echo '{{\"v\": {version}}}' >spool/spool.json");
        shared.shell(GROUP_USER, &write).succeeds();
        let before = snapshot(&shared.spool());
        is_refused(&init(&shared, OWNER, &[]), &file, "init");
        if version == 2 {
            let watch = shared.run(OWNER, &["watch", "--drain"]);
            is_refused(&watch, &file, "watch");
        }
        assert_eq!(snapshot(&shared.spool()), before);
    }
}

/// What was put below `tasks/` while others could write, and belongs to another user, is not a task.
#[test]
fn a_folder_of_another_user_is_not_a_task() {
    let (shared, waiting) = used();
    let task = shared.spool().join("tasks").join(&waiting);
    shared.run(OWNER, &["status", &waiting]).succeeds();
    chown(&task, Some(GROUP_USER), None).unwrap();
    shared.run(OWNER, &["status", &waiting]).ends_with(7);
}
