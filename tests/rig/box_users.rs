//! What one user of the group does through the drop box to the tasks of another user.
//!
//! Not single odd files (`hostile.rs`) and not a full box (`full_box.rs`). Checked: no user waits for more
//! than one file of each other user, no task runs in the place of another user's task, and nothing is
//! reported about a task that another user made up.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use crate::drop_box::{drop_request, id_at, is_refused, put};
use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::support::{PROGRAM, names_in};

/// A watcher on a disk that needs more time for each file than a pass over the box may take. It exits when no
/// task is open.
fn drain_slowly(shared: &Shared) {
    let delay = "inject=fsync,fdatasync,syncfs:delay_enter=60000";
    let mut command = shared.as_user(OWNER, "timeout");
    command.args(["60", "strace", "-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=fsync,fdatasync,syncfs", "-e", delay]);
    command.args([PROGRAM, "watch", "--drain"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
}

fn events(shared: &Shared, event: &str) -> Vec<serde_json::Value> {
    let printed = shared.run(OWNER, &["events", "--json"]);
    let all = printed
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    all.filter(|it: &serde_json::Value| it["event"] == event)
        .collect()
}

#[test]
fn on_a_slow_disk_drops_are_taken_in_rounds() {
    let shared = Shared::new();
    for n in 0..4 {
        drop_request(&shared, GROUP_USER, &id_at(0, &format!("m{n}")), "x");
    }
    drop_request(&shared, OTHER_GROUP_USER, &id_at(0, "z0"), "x");
    drain_slowly(&shared);
    let admitted = events(&shared, "admitted");
    let ids: Vec<&str> = admitted
        .iter()
        .filter_map(|it| it["task_id"].as_str())
        .collect();
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert!(ids[1].ends_with("z0"), "{ids:?}");
}

#[test]
fn on_a_slow_disk_control_files_are_taken_in_rounds() {
    let shared = Shared::new();
    shared.run(OWNER, &["pause"]).succeeds();
    let mut ids: Vec<String> = (0..4).map(|_| shared.submit(GROUP_USER, &[])).collect();
    ids.push(shared.submit(OTHER_GROUP_USER, &[]));
    shared.drain();
    for (n, id) in ids.iter().enumerate() {
        let uid = if n == 4 { OTHER_GROUP_USER } else { GROUP_USER };
        let content = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
        put(&shared, uid, &format!("{id}.cancel"), &content, 0o640);
    }
    drain_slowly(&shared);
    let asked_at = |id: &String| {
        let marker = shared.spool().join("tasks").join(id).join("cancel");
        let marker = fs::metadata(marker).unwrap();
        (marker.mtime(), marker.mtime_nsec())
    };
    let last = asked_at(&ids[4]);
    let before = ids[..4].iter().filter(|id| asked_at(id) < last).count();
    assert_eq!(before, 1);
}

/// A drop that failed once, here for lack of space, is taken in the round of its user.
#[test]
fn a_drop_that_failed_waits_for_one_file_of_each_other_user() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "max_concurrent", "1"])
        .succeeds();
    let least = |bytes: &str| {
        let set = shared.run(OWNER, &["config", "set", "min_free_bytes", bytes]);
        set.succeeds();
    };
    least("9000000000000000");
    let watching = shared.watcher();
    let failed = id_at(0, "z0");
    drop_request(&shared, OTHER_GROUP_USER, &failed, "x");
    shared
        .world
        .wait_until("it failed", || watching.log().contains("drops wait"));
    let pid = rustix::process::Pid::from_raw(watching.pid()).unwrap();
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    signal(rustix::process::Signal::STOP);
    for n in 0..4 {
        drop_request(&shared, GROUP_USER, &id_at(0, &format!("m{n}")), "x");
    }
    least("0");
    signal(rustix::process::Signal::HUP);
    signal(rustix::process::Signal::CONT);
    shared.world.wait_until("all are admitted", || {
        events(&shared, "admitted").len() == 5
    });
    let admitted = events(&shared, "admitted");
    let place = admitted
        .iter()
        .position(|it| it["task_id"] == failed.as_str());
    assert!(place.unwrap() <= 1, "{admitted:?}");
}

/// A user who knows the id of another user's task may name its session.
#[test]
fn no_drop_comes_before_the_first_task_of_its_session() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "max_concurrent", "4"])
        .succeeds();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(GROUP_USER, &["submit", "--recipe", "forever"]);
    let (id, session) = (&object["task_id"], &object["session_id"]);
    let _watching = shared.watcher();
    let id = id.as_str().unwrap();
    shared.world.wait_until("it runs", || {
        shared.json(GROUP_USER, &["status", id])["status"] == "running"
    });
    let session = session
        .as_str()
        .map_or_else(|| id.replacen("task", "session", 1), str::to_owned);
    let request = format!("{{\"recipe\": \"forever\", \"session_id\": \"{session}\"}}");
    let older = id_at(-90, "d");
    let file = put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{older}.json"),
        &request,
        0o640,
    );
    shared.world.wait_until("it is decided", || !file.exists());
    is_refused(&shared, &older, "the first task of its session");
    assert!(!shared.spool().join("tasks").join(&older).exists());
    // A newer task waits for it.
    let newer = id_at(0, "d");
    put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{newer}.json"),
        &request,
        0o640,
    );
    shared.world.wait_until("it is a task", || {
        shared.run(OWNER, &["why", &newer]).stdout.contains(id)
    });
    shared.run(OWNER, &["cancel", &newer]).succeeds();
    shared.run(OWNER, &["cancel", id]).succeeds();
}

/// A user who chooses an id of the near future can name its session before its task exists. That task could then
/// name the session of a task that waits for it.
#[test]
fn no_drop_waits_for_a_task_that_is_newer() {
    let shared = Shared::new();
    let newer = id_at(100, "n");
    let session = newer.replacen("task", "session", 1);
    let request = format!("{{\"recipe\": \"echo\", \"session_id\": \"{session}\"}}");
    put(&shared, GROUP_USER, "early.json", &request, 0o640);
    shared.drain();
    is_refused(&shared, "early", "the first task of its session");
    // The first task may name its own session, and so may tasks that are newer.
    let newest = id_at(101, "n");
    for id in [&newer, &newest] {
        put(&shared, GROUP_USER, &format!("{id}.json"), &request, 0o640);
    }
    shared.drain();
    for id in [&newer, &newest] {
        shared.run(GROUP_USER, &["result", id]).succeeds();
    }
}

/// The group users cannot see which other tasks run, and in which sessions.
#[test]
fn a_user_of_the_group_asks_why_a_task_of_theirs_waits() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--session-id", "mine"]);
    shared.drain();
    shared.run(OWNER, &["pause"]).succeeds();
    let id = {
        let later = shared.submit(GROUP_USER, &["--session-id", "mine"]);
        assert_eq!(
            shared.run(GROUP_USER, &["why", &id]).stdout,
            format!("{id} has completed\n")
        );
        shared.drain();
        later
    };
    let reasons = || {
        let printed = shared.json(GROUP_USER, &["why", &id]);
        let reasons = printed["reasons"].as_array().unwrap().clone();
        let words = reasons.iter().filter_map(|it| it["reason"].as_str());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(reasons(), ["watcher", "paused"]);
    let status = shared.run(GROUP_USER, &["status", &id]);
    status.succeeds();
    assert!(status.stderr.contains("paused"), "{}", status.stderr);
    shared.recipe("echo", "#!/bin/sh\nexec sleep 1000\n");
    shared
        .run(OWNER, &["config", "set", "max_concurrent", "1"])
        .succeeds();
    let running = shared.submit(OWNER, &[]);
    shared.run(OWNER, &["resume"]).succeeds();
    let _watching = shared.watcher();
    let status = |id: &str| shared.json(GROUP_USER, &["status", id])["status"].clone();
    shared.world.wait_until("one of them runs", || {
        status(&running) == "running" || status(&id) == "running"
    });
    let (ran, waits) = match status(&id) == "running" {
        true => (id.clone(), running),
        false => (running, id.clone()),
    };
    let printed = shared.json(GROUP_USER, &["why", &waits]);
    assert_eq!(printed["reasons"][0]["reason"], "unseen", "{printed}");
    shared.run(GROUP_USER, &["status", &waits]).succeeds();
    for id in [waits, ran] {
        shared.run(OWNER, &["cancel", &id]).succeeds();
    }
}

#[test]
fn a_refused_event_names_no_task_of_another_user() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    drop_request(&shared, OTHER_GROUP_USER, &id, "x");
    shared.drain();
    let refused = events(&shared, "refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let under = refused[0]["drop"].as_str().unwrap();
    assert_ne!(under, id);
    let kept = names_in(&shared.spool().join("rejected"));
    assert!(kept.iter().all(|name| name.starts_with(under)), "{kept:?}");
}

/// Files of one user that another user moves here wait in the round of that other user, after the files that
/// he submits himself.
#[test]
fn a_users_own_drops_come_before_files_that_others_moved() {
    let shared = Shared::new();
    for n in 0..20 {
        put(
            &shared,
            GROUP_USER,
            &format!("moved-{n}.json"),
            "{\"recipe\": \"echo\"}",
            0o640,
        );
    }
    let id = shared.submit(GROUP_USER, &[]);
    drop_request(&shared, OTHER_GROUP_USER, &id_at(0, "z0"), "x");
    shared.drain();
    let admitted = events(&shared, "admitted");
    assert_eq!(admitted.len(), 22);
    let place = admitted.iter().position(|it| it["task_id"] == id.as_str());
    assert!(place.unwrap() <= 1, "{place:?}");
}

/// The kernel frees the blocks of a file in the call that removes it. With very many blocks, also beyond the end
/// of a short file, that takes seconds.
#[test]
fn a_file_with_many_blocks_is_not_removed_by_the_watcher() {
    let shared = Shared::new();
    shared.run(OWNER, &["pause"]).succeeds();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let id = id_at(0, "b1g");
    let incoming = shared.spool().join("incoming");
    let more = |name: &str, content: &str| {
        let hidden = put(&shared, GROUP_USER, &format!(".{name}"), content, 0o640);
        let mut command = std::process::Command::new("fallocate");
        command
            .args(["--keep-size", "--length", "8MiB"])
            .arg(&hidden);
        assert!(command.status().unwrap().success());
        let blocks = fs::metadata(&hidden).unwrap().blocks();
        assert!(blocks * 512 >= 8 << 20, "{blocks}");
        fs::rename(hidden, incoming.join(name)).unwrap();
    };
    let left = || {
        let mut command = std::process::Command::new("find");
        command.arg(shared.spool().join("trash"));
        let found = command.args(["-type", "f", "-printf", "%b\n"]).output();
        let blocks = String::from_utf8(found.unwrap().stdout).unwrap();
        let blocks = blocks.lines().map(|it| it.parse::<u64>().unwrap());
        blocks.filter(|blocks| blocks * 512 >= 8 << 20).count()
    };
    // Its task exists: a watcher that was killed left its claim.
    drop_request(&shared, GROUP_USER, &id, "x");
    shared.drain();
    let file = crate::drop_box::origin(&shared, &id)["file"].clone();
    let folder = shared.spool().join(format!("staging/{id}.claim"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(format!(".{}.{}", file[0], file[1])), "").unwrap();
    std::os::unix::fs::chown(&folder, Some(OWNER), Some(GROUP)).unwrap();
    more(&format!("{id}.json"), "{\"recipe\": \"echo\"}");
    fs::rename(
        incoming.join(format!("{id}.json")),
        folder.join(format!("{id}.json")),
    )
    .unwrap();
    shared.drain();
    assert!(!folder.exists(), "{}", shared.tree());
    assert_eq!(left(), 1, "{}", shared.tree());
    shared.run(OWNER, &["sweep"]).succeeds();
    assert_eq!(left(), 0, "{}", shared.tree());
    // In the box it is refused.
    more("big.json", "{\"recipe\": \"echo\"}");
    let cancel = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    more(&format!("{id}.cancel"), &cancel);
    shared.drain();
    is_refused(&shared, "big", "more than 2 MiB");
    let status = shared.json(GROUP_USER, &["status", &id])["status"].clone();
    assert_eq!(status, "pending");
    assert_eq!(names_in(&incoming), [""; 0]);
}

/// The time that a control file of a user waits does not depend on files that others move here under such
/// names.
#[test]
fn a_users_control_file_comes_before_files_that_others_moved() {
    let shared = Shared::new();
    shared.run(OWNER, &["pause"]).succeeds();
    let id = shared.submit(GROUP_USER, &[]);
    let other = shared.submit(OTHER_GROUP_USER, &[]);
    shared.drain();
    let valid = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    for n in 0..20 {
        let name = format!("{other}.{n:016x}.cancel");
        let note = match n % 2 {
            0 => "note".to_owned(),
            _ => "n".repeat(valid.len()),
        };
        put(&shared, GROUP_USER, &name, &note, 0o640);
    }
    put(&shared, GROUP_USER, &format!("{id}.cancel"), &valid, 0o640);
    shared.drain();
    let changed = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let asked = changed(&shared.spool().join("tasks").join(&id).join("cancel"));
    let rejected = shared.spool().join("rejected");
    let reasons = names_in(&rejected).into_iter();
    let reasons: Vec<String> = reasons
        .filter(|name| name.ends_with(".reason.json"))
        .collect();
    assert_eq!(reasons.len(), 20, "{reasons:?}");
    let before = reasons
        .iter()
        .filter(|name| changed(&rejected.join(name)) < asked);
    assert_eq!(before.count(), 0);
}

/// Anybody can put a file of any name into the box.
#[test]
fn a_drop_does_not_hide_another_users_task_of_that_name() {
    let shared = Shared::new();
    let ended = shared.submit(GROUP_USER, &["--name", "ended"]);
    shared.drain();
    shared.run(OWNER, &["pause"]).succeeds();
    let open = shared.submit(GROUP_USER, &["--name", "nightly"]);
    shared.drain();
    let task_of = |name: &str| shared.json(GROUP_USER, &["status", name])["task_id"].clone();
    let are_found = || {
        assert_eq!(task_of("nightly"), open.as_str());
        assert_eq!(task_of("ended"), ended.as_str());
    };
    for name in ["nightly.json", "ended.json", "new.json"] {
        put(
            &shared,
            OTHER_GROUP_USER,
            name,
            "{\"recipe\": \"missing\"}",
            0o640,
        );
    }
    are_found();
    let is_pending = shared.json(OTHER_GROUP_USER, &["status", "new"]);
    assert_eq!(is_pending["status"], "pending", "{is_pending}");
    shared.drain();
    assert_eq!(events(&shared, "refused").len(), 3);
    are_found();
    is_refused(&shared, "new", "missing");
    let result = shared.run(GROUP_USER, &["result", "ended"]);
    result.succeeds();
    shared.run(OWNER, &["cancel", "nightly"]).succeeds();
}

/// Another user can choose an id that ends in a label, a name that equals it, and the same label.
#[test]
fn a_label_never_leads_silently_to_another_users_task() {
    let shared = Shared::new();
    let labelled = ["data", "weekly", "my report", "unsure", "mine"];
    let labelled = labelled.map(|label| (label, shared.submit(GROUP_USER, &["--label", label])));
    shared.drain();
    let found = |label: &str| shared.run(GROUP_USER, &["status", label]);
    for (label, id) in &labelled {
        assert!(found(label).succeeds().stdout.contains(id.as_str()));
    }
    shared.run(OWNER, &["pause"]).succeeds();
    let part = id_at(0, "data");
    drop_request(&shared, OTHER_GROUP_USER, &part, "x");
    let named = shared.submit(OTHER_GROUP_USER, &["--name", "weekly"]);
    let same = shared.submit(OTHER_GROUP_USER, &["--label", "my report"]);
    // Nobody knows who wrote a file that others can write.
    let unsure = id_at(0, "n0");
    let request = "{\"recipe\": \"echo\", \"label\": \"unsure\"}";
    put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{unsure}.json"),
        request,
        0o666,
    );
    let newer = shared.submit(GROUP_USER, &["--label", "mine"]);
    shared.drain();
    for ((label, id), other) in labelled.iter().zip([part, named, same, unsure]) {
        let printed = found(label);
        printed.ends_with(2);
        assert!(printed.stderr.contains(id.as_str()), "{}", printed.stderr);
        assert!(printed.stderr.contains(&other), "{}", printed.stderr);
    }
    // The label of one user leads to his unfinished task.
    assert!(found("mine").succeeds().stdout.contains(&newer));
}

/// A watcher that was killed leaves its file. Only the kernel's table of locks shows whether the file is
/// locked.
#[test]
fn a_watcher_that_cannot_be_seen_is_not_reported_as_running() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.run(OWNER, &["pause"]).succeeds();
    let mut watching = shared.watcher();
    shared.world.wait_until("it is a task", || {
        shared.spool().join("tasks").join(&id).exists()
    });
    watching.kill();
    let doctor = || shared.run(GROUP_USER, &["doctor"]).stdout;
    assert!(doctor().contains("no watcher is running"), "{}", doctor());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let many = rustix::process::Rlimit {
        current: Some(limit.current.unwrap_or(0).max(12_000)),
        maximum: limit.maximum.map(|most| most.max(12_000)),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, many).unwrap();
    let path = shared.world.root().join("locks");
    fs::write(&path, "").unwrap();
    let held: Vec<fs::File> = (0..9000).map(|_| fs::File::open(&path).unwrap()).collect();
    for file in &held {
        rustix::fs::flock(file, rustix::fs::FlockOperation::LockShared).unwrap();
    }
    let printed = doctor();
    assert!(
        printed.contains("failed to check for a watcher"),
        "{printed}"
    );
    let reasons = &shared.json(GROUP_USER, &["why", &id])["reasons"];
    assert!(!reasons.to_string().contains("\"watcher\""), "{reasons}");
    drop(held);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    // A process that is being started may have these descriptors for a moment.
    shared.world.wait_until("it can be seen again", || {
        doctor().contains("no watcher is running")
    });
}
