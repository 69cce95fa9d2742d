//! An id that a user of the group chooses means one task forever, also if he saw the id too early. Files that
//! the owner, mode or place alone does not decide.
//!
//! The other half of `drop_box.rs`. The state of the disk in the middle of an admission or a submission is
//! built by hand, so that no race has to be won.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use agentspool::task::TaskId;
use fs2::FileExt;
use serde_json::json;

use crate::drop_box::{drop_request, id_at, is_refused, origin, put};
use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::support::names_in;

/// A folder of the owner's.
fn own_folder(shared: &Shared, path: &str) -> PathBuf {
    let folder = shared.spool().join(path);
    fs::create_dir_all(&folder).unwrap();
    chown(&folder, Some(OWNER), Some(GROUP)).unwrap();
    folder
}

/// Puts a drop of some user into the claim of its id, as a watcher does.
pub(crate) fn claim(shared: &Shared, uid: u32, id: &str, input: &str) -> PathBuf {
    drop_request(shared, uid, id, input);
    let file = shared.spool().join(format!("incoming/{id}.json"));
    let metadata = fs::metadata(&file).unwrap();
    let changed = metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000;
    let folder = own_folder(shared, &format!("staging/{id}.claim"));
    let note = folder.join(format!(".{}.{changed}", metadata.ino()));
    fs::write(&note, "").unwrap();
    chown(&note, Some(OWNER), Some(GROUP)).unwrap();
    fs::rename(file, folder.join(format!("{id}.json"))).unwrap();
    folder
}

fn refused_under_another_id(shared: &Shared, id: &str) -> bool {
    let rejected = names_in(&shared.spool().join("rejected"));
    let is_it = |name: &String| name.ends_with(&format!("-{id}.json")) && !name.starts_with(id);
    rejected.iter().any(is_it)
}

#[test]
fn an_id_whose_task_the_owner_is_creating_is_taken() {
    let shared = Shared::new();
    let id = id_at(0, "mak1ng");
    let folder = own_folder(&shared, &format!("staging/{id}"));
    let inode = fs::metadata(&folder).unwrap().ino();
    drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
    shared.drain();
    assert_eq!(fs::metadata(&folder).unwrap().ino(), inode);
    assert!(!shared.spool().join("tasks").join(&id).exists());
    assert!(refused_under_another_id(&shared, &id), "{}", shared.tree());
    // The same with the claim of a watcher that was killed.
    let again = id_at(0, "dead");
    let folder = own_folder(&shared, &format!("staging/{again}"));
    claim(&shared, OTHER_GROUP_USER, &again, "forged");
    shared.drain();
    assert!(folder.exists() && !shared.spool().join("tasks").join(&again).exists());
    assert!(refused_under_another_id(&shared, &again));
    // And with an entry in open/, while its task is not visible yet.
    let open = id_at(0, "0pen");
    let folder = own_folder(&shared, &format!("staging/{open}"));
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.try_lock_exclusive().unwrap();
    fs::write(shared.spool().join("open").join(&open), "").unwrap();
    drop_request(&shared, OTHER_GROUP_USER, &open, "forged");
    let _watching = shared.watcher();
    shared
        .world
        .wait_until("it is refused", || refused_under_another_id(&shared, &open));
    assert!(shared.spool().join("open").join(&open).exists());
}

/// A second drop of an id waits until the first one is decided, whichever watcher handles it.
#[test]
fn the_first_drop_of_an_id_gets_it() {
    let shared = Shared::new();
    let id = id_at(0, "f1rst");
    let folder = claim(&shared, GROUP_USER, &id, "first");
    let held = fs::File::open(&folder).unwrap();
    held.try_lock_exclusive().unwrap();
    drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
    let watching = shared.watcher();
    let other = shared.submit(GROUP_USER, &["--input", "1"]);
    watching.answers(&other, "1\n");
    assert!(!shared.spool().join("tasks").join(&id).exists());
    drop(held);
    watching.answers(&id, "first\n");
    assert_eq!(origin(&shared, &id)["uid"], json!(GROUP_USER));
    shared.world.wait_until("the other drop is refused", || {
        refused_under_another_id(&shared, &id)
    });
}

/// A claim whose id has a task by now is finished only if that task was created from it.
#[test]
fn a_task_of_another_drop_does_not_finish_a_claim() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &["--input", "1"]);
    shared.drain();
    claim(&shared, OTHER_GROUP_USER, &id, "forged");
    shared.drain();
    assert!(refused_under_another_id(&shared, &id), "{}", shared.tree());
    assert_eq!(shared.run(GROUP_USER, &["result", &id]).stdout, "1\n");
    // The claim of the task's own drop is finished.
    let id = id_at(0, "0wn");
    let folder = claim(&shared, GROUP_USER, &id, "1");
    let keep = fs::read(folder.join(format!("{id}.json"))).unwrap();
    shared.drain();
    let file = origin(&shared, &id)["file"].clone();
    let folder = own_folder(&shared, &format!("staging/{id}.claim"));
    fs::write(folder.join(format!("{id}.json")), keep).unwrap();
    fs::write(folder.join(format!(".{}.{}", file[0], file[1])), "").unwrap();
    for name in names_in(&folder) {
        chown(folder.join(name), Some(OWNER), Some(GROUP)).unwrap();
    }
    shared.drain();
    assert!(!folder.exists() && !refused_under_another_id(&shared, &id));
}

#[test]
fn a_name_that_is_a_part_of_an_id_does_not_select_a_task() {
    let shared = Shared::new();
    let id = id_at(0, "abcdefgh");
    drop_request(&shared, GROUP_USER, &id, "mine");
    shared.drain();
    assert_eq!(
        shared.run(GROUP_USER, &["result", "abcdefgh"]).stdout,
        "mine\n"
    );
    let other = shared.submit(OTHER_GROUP_USER, &["--name", "abcdefgh"]);
    shared.drain();
    for verb in ["status", "result", "cancel"] {
        let message = shared.run(GROUP_USER, &[verb, "abcdefgh"]);
        assert_ne!(message.code, 0, "{verb}: {}", message.stdout);
        assert!(message.stderr.contains(&id) && message.stderr.contains(&other));
    }
    // Also not for a drop of that name, refused or waiting.
    let lonely = id_at(0, "hgfedcba");
    drop_request(&shared, GROUP_USER, &lonely, "mine");
    put(&shared, OTHER_GROUP_USER, "hgfedcba.json", "[]", 0o640);
    shared.drain();
    let message = shared.run(GROUP_USER, &["status", "hgfedcba"]);
    assert!(message.stderr.contains(&lonely), "{}", message.stderr);
    // The part of an id that lists show mostly has a digit before a letter, and such a short name never has.
    let message = shared.run(
        GROUP_USER,
        &["submit", "--recipe", "echo", "--name", "01m85x90"],
    );
    assert_ne!(message.code, 0);
}

/// The mode and the group of a file do not show all of its permissions.
#[test]
fn a_drop_with_an_access_list_or_without_group_access_is_private() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "drop_patience_sec", "0"])
        .succeeds();
    let request = "{\"recipe\": \"echo\", \"input\": \"hunter2\"}";
    for (ending, group, mode, list) in [
        ("a", GROUP, 0o600, Some("u:4999:r")),
        ("b", GROUP, 0o640, Some("u:4999:---")),
        ("c", GROUP, 0o604, None),
        ("d", 4998, 0o604, None),
        ("e", 4998, 0o640, None),
    ] {
        let id = id_at(0, ending);
        let file = shared.world.root().join(format!("owner/{ending}"));
        fs::write(&file, request).unwrap();
        chown(&file, Some(OWNER), Some(group)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        if let Some(list) = list {
            crate::mount::run("setfacl", &["-m", list, file.to_str().unwrap()]);
        }
        fs::rename(file, shared.spool().join(format!("incoming/{id}.json"))).unwrap();
        shared.drain();
        is_refused(&shared, &id, "the group cannot read it");
    }
    let seen = shared.shell(GROUP_USER, "grep -rs hunter2 spool/tasks");
    assert!(!seen.stdout.contains("hunter2"), "{}", seen.stdout);
}

/// A user may move a file of the owner into the box, with content that he chose.
#[test]
fn a_control_file_of_the_owner_in_the_box_is_not_followed() {
    let shared = Shared::new();
    shared.recipe("forever", "#!/bin/sh\nexec sleep 1000\n");
    let object = shared.json(GROUP_USER, &["submit", "--recipe", "forever"]);
    let id = object["task_id"].as_str().unwrap().to_owned();
    let _watching = shared.watcher();
    shared.world.wait_until("it runs", || {
        shared.json(GROUP_USER, &["status", &id])["status"] == "running"
    });
    let whole = format!("{{\"v\":2,\"task\":\"{id}\",\"do\":\"cancel\"}}");
    let file = put(&shared, OWNER, &format!("{id}.cancel"), &whole, 0o640);
    shared.world.wait_until("it is decided", || !file.exists());
    assert_eq!(
        shared.json(GROUP_USER, &["status", &id])["status"],
        "running"
    );
    shared.run(OWNER, &["cancel", &id]).succeeds();
}

/// The owner refuses a drop that waits in the box himself.
#[test]
fn the_owner_cancels_a_drop_that_waits_in_the_box() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.run(OWNER, &["cancel", &id]).succeeds();
    is_refused(&shared, &id, "owner cancelled it");
    shared.drain();
    assert!(!shared.spool().join("tasks").join(&id).exists());
}

/// Whoever owns the folder: it may contain somebody's only copy.
#[test]
fn a_folder_stays_in_the_box_and_in_rejected() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    let mut kept = Vec::new();
    for folder in [
        "incoming/project.json",
        &format!("incoming/{}.cancel", id_at(0, "x")),
    ] {
        let folder = own_folder(&shared, folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
        fs::write(folder.join("thesis"), "precious").unwrap();
        kept.push(folder.join("thesis"));
    }
    let folder = own_folder(
        &shared,
        &format!("rejected/{}-of-before.json", id_at(-60, "b")),
    );
    fs::write(folder.join("thesis"), "precious").unwrap();
    kept.push(folder.join("thesis"));
    let empty = own_folder(&shared, &format!("rejected/{}-empty.json", id_at(-60, "e")));
    put(&shared, GROUP_USER, "bad.json", "[]", 0o640);
    shared.drain();
    shared.world.wait_until("the refused drops are swept", || {
        shared.run(OWNER, &["sweep"]).succeeds();
        names_in(&shared.spool().join("rejected")).len() == 1
    });
    assert!(kept.iter().all(|file| file.exists()), "{}", shared.tree());
    assert!(!empty.exists());
}

/// A drop under the id of a removed task, or under a similar name, says nothing about that task.
#[test]
fn a_removed_id_is_not_shown_as_waiting_or_refused() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    shared.run(OWNER, &["clear"]).succeeds();
    let is_gone = || {
        let message = shared.run(GROUP_USER, &["status", &id]);
        message.ends_with(7);
        assert!(
            message.stderr.contains("no task is called"),
            "{}",
            message.stderr
        );
    };
    is_gone();
    put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{id}.json"),
        "{\"recipe\":",
        0o640,
    );
    is_gone();
    put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{id}.json"),
        "[]",
        0o640,
    );
    put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{}.json", id.replace('_', " ")),
        "[]",
        0o640,
    );
    shared.drain();
    assert!(refused_under_another_id(&shared, &id), "{}", shared.tree());
    is_gone();
    // The reason of a refused id is its own.
    let refused = id_at(0, "refsd");
    put(&shared, GROUP_USER, &format!("{refused}.json"), "[]", 0o640);
    shared.drain();
    let before = shared.run(GROUP_USER, &["status", &refused]).stderr;
    let like = format!("{}.json", refused.replace('_', " "));
    put(
        &shared,
        OTHER_GROUP_USER,
        &like,
        "{\"recipe\": \"nosuch\"}",
        0o640,
    );
    shared.drain();
    assert_eq!(shared.run(GROUP_USER, &["status", &refused]).stderr, before);
}

#[test]
fn a_refused_id_stays_taken_when_its_reason_is_gone() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    let id = id_at(0, "swept");
    put(&shared, GROUP_USER, &format!("{id}.json"), "[]", 0o640);
    shared.drain();
    shared.world.wait_until("its reason is swept", || {
        shared.run(OWNER, &["sweep"]).succeeds();
        names_in(&shared.spool().join("rejected")).is_empty()
    });
    drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
    shared.drain();
    assert!(!shared.spool().join("tasks").join(&id).exists());
    let message = shared.run(GROUP_USER, &["status", &id]);
    message.ends_with(7);
    assert!(
        message.stderr.contains("no task is called"),
        "{}",
        message.stderr
    );
}

/// Mounts in the box are ignored: they do not count against a limit and do not stop a removal.
#[test]
fn a_mount_in_the_box_is_ignored() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    let incoming = shared.spool().join("incoming");
    let mut mounted = vec![put(
        &shared,
        OTHER_GROUP_USER,
        &format!("{id}.json"),
        "",
        0o640,
    )];
    for n in 0..3 {
        let name = format!("{}.cancel", id_at(0, &n.to_string()));
        mounted.push(put(&shared, OTHER_GROUP_USER, &name, "", 0o640));
    }
    for file in &mounted {
        crate::mount::run(
            "mount",
            &["--bind", "/etc/hostname", file.to_str().unwrap()],
        );
    }
    shared.run(OWNER, &["clear"]).succeeds();
    let left = names_in(&shared.spool().join("tasks"));
    let watching = shared.watcher();
    let next = shared.submit(GROUP_USER, &["--input", "1"]);
    watching.answers(&next, "1\n");
    let log = watching.log();
    drop(watching);
    for file in &mounted {
        crate::mount::run("umount", &[file.to_str().unwrap()]);
    }
    assert!(left.is_empty() && incoming.exists(), "{left:?}");
    assert!(!log.contains("cannot"), "{log}");
}

#[test]
fn a_group_spool_whose_box_is_a_mount_of_its_own_is_refused() {
    let shared = Shared::new();
    let incoming = shared.spool().join("incoming");
    let path = incoming.to_str().unwrap();
    crate::mount::run("mount", &["--bind", path, path]);
    let message = [(OWNER, "list"), (GROUP_USER, "submit"), (OWNER, "watch")].map(|(uid, verb)| {
        let arguments: &[&str] = match verb {
            "submit" => &["submit", "--recipe", "echo"],
            verb => &[verb],
        };
        shared.run(uid, arguments)
    });
    crate::mount::run("umount", &[path]);
    for ran in message {
        assert_ne!(ran.code, 0, "{}", ran.stdout);
        assert!(ran.stderr.contains("mount of its own"), "{}", ran.stderr);
    }
}

/// A user who knows the inode of his file could choose the id that its refusal would get.
#[test]
fn a_refusal_gets_an_id_of_its_own() {
    let shared = Shared::new();
    let file = put(
        &shared,
        GROUP_USER,
        "x.json",
        "{\"recipe\": \"echo\"}",
        0o640,
    );
    let inode = fs::metadata(&file).unwrap().ino();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let changed = u64::try_from(now.unwrap().as_millis()).unwrap();
    let id = TaskId::from_parts(changed, inode.into()).to_string();
    own_folder(&shared, &format!("tasks/{id}"));
    // As left by a watcher that is killed as soon as it has claimed the file.
    let folder = own_folder(&shared, &format!("staging/{id}.claim"));
    let note = folder.join(format!(".{inode}.{changed}"));
    fs::write(&note, "").unwrap();
    chown(&note, Some(OWNER), Some(GROUP)).unwrap();
    fs::rename(file, folder.join(format!("{id}.json"))).unwrap();
    shared.drain();
    assert!(refused_under_another_id(&shared, &id), "{}", shared.tree());
}

/// A claim may record the inode of a file that was replaced before it was claimed. That file may be in
/// `rejected/` by now, under the id that is derived from its inode.
#[test]
fn a_claim_that_records_another_file_is_refused_under_a_free_id() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let changed = u64::try_from(now.unwrap().as_millis()).unwrap();
    let (inode, folder) = (7_u64, own_folder(&shared, &format!("staging/{id}.claim")));
    let derived = TaskId::from_parts(changed, inode.into()).to_string();
    for ending in ["json", "reason.json"] {
        let kept = shared
            .spool()
            .join(format!("rejected/{derived}-{id}.{ending}"));
        fs::write(&kept, "{}").unwrap();
        chown(&kept, Some(OWNER), Some(GROUP)).unwrap();
    }
    let note = folder.join(format!(".{inode}.{changed}"));
    fs::write(&note, "").unwrap();
    chown(&note, Some(OWNER), Some(GROUP)).unwrap();
    let file = put(&shared, GROUP_USER, "x.json", "[]", 0o640);
    fs::rename(file, folder.join(format!("{id}.json"))).unwrap();
    // Its name in the box is taken again.
    drop_request(&shared, OTHER_GROUP_USER, &id, "forged");
    shared.drain();
    assert!(!folder.exists(), "{}", shared.tree());
    let rejected = names_in(&shared.spool().join("rejected"));
    assert_eq!(rejected.len(), 6, "{rejected:?}");
}
