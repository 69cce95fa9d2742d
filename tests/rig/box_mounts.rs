//! A user of the group mounts a FUSE file system on their own file, wherever the spool has moved the file.
//!
//! Not other mounts in a spool (`mounts.rs`). Needs root and /dev/fuse. A process that accesses a FUSE mount
//! without a server waits forever. Checked: the program does not access it; the file under it is decided, and
//! is removed once the mount is gone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::drop_box::{id_at, is_refused, put};
use crate::group::{GROUP, GROUP_USER, OTHER_GROUP_USER, OWNER, Shared};
use crate::mount::try_run;
use crate::support::{PROGRAM, Ran, names_in};

/// A mount on a file that all users may enter and that has no server.
struct Fuse {
    at: PathBuf,
    holder: Child,
}

impl Fuse {
    fn on(shared: &Shared, at: &Path) -> Fuse {
        let at = at.canonicalize().unwrap();
        let options = "fd=3,rootmode=100000,user_id=64002,group_id=64002,allow_other";
        let script = "exec 3<>/dev/fuse; mount -i -t fuse -o \"$1\" none \"$0\" && exec sleep 1000";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).arg(&at).arg(options);
        let holder = command.stdin(Stdio::null()).spawn().unwrap();
        let fuse = Fuse { at, holder };
        shared.world.wait_until("it is mounted", || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            mounts.contains(fuse.at.to_str().unwrap())
        });
        fuse
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // This lets a process continue that waits for the mount.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // The mount moves with its file.
        let name = self.at.file_name().unwrap().to_str().unwrap();
        let at = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for at in at.filter(|at| at.ends_with(name)) {
            try_run("umount", &["-l", at]);
        }
    }
}

/// Runs as the owner, with a timeout: a command that accesses the mount does not end by itself.
fn run(shared: &Shared, arguments: &[&str]) -> Ran {
    let mut command = shared.as_user(OWNER, "timeout");
    Ran::of(command.args(["20", PROGRAM]).args(arguments))
}

/// A drop in its claim, as a killed watcher leaves it. `file` is the drop's path before.
fn claim(shared: &Shared, id: &str, file: Option<(u64, i64)>) -> PathBuf {
    let content = "{\"recipe\": \"echo\", \"input\": \"x\"}";
    let name = format!("{id}.json");
    let dropped = put(shared, GROUP_USER, &name, content, 0o640);
    let stat = fs::metadata(&dropped).unwrap();
    let here = (
        stat.ino(),
        stat.ctime() * 1000 + stat.ctime_nsec() / 1_000_000,
    );
    let (inode, changed_ms) = file.unwrap_or(here);
    let folder = shared.spool().join(format!("staging/{id}.claim"));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o710)).unwrap();
    let note = folder.join(format!(".{inode}.{changed_ms}"));
    fs::write(&note, "").unwrap();
    for path in [&folder, &note] {
        chown(path, Some(OWNER), Some(GROUP)).unwrap();
    }
    fs::rename(dropped, folder.join(&name)).unwrap();
    folder.join(name)
}

#[test]
fn a_mount_on_a_claimed_drop_does_not_delay_others() {
    let shared = Shared::new();
    let id = id_at(0, "m");
    let fuse = Fuse::on(&shared, &claim(&shared, &id, None));
    put(
        &shared,
        OTHER_GROUP_USER,
        "others.json",
        "{\"recipe\": \"echo\"}",
        0o640,
    );
    let watching = shared.watcher();
    watching.answers("others", "{}\n");
    is_refused(&shared, &id, "something was mounted on it");
    let cancelled = run(&shared, &["cancel", &id]);
    cancelled.ends_with(7);
    run(&shared, &["doctor"]);
    drop(fuse);
    shared.world.wait_until("the claim is gone", || {
        names_in(&shared.spool().join("staging")).is_empty()
    });
    is_refused(&shared, &id, "something was mounted on it");
}

#[test]
fn a_mount_on_the_claim_of_a_task_does_not_stop_the_task() {
    let shared = Shared::new();
    let id = shared.submit(GROUP_USER, &[]);
    shared.drain();
    let file = &crate::drop_box::origin(&shared, &id)["file"];
    let file = (file[0].as_u64().unwrap(), file[1].as_i64().unwrap());
    let fuse = Fuse::on(&shared, &claim(&shared, &id, Some(file)));
    run(&shared, &["watch", "--drain"]).succeeds();
    run(&shared, &["clear"]).succeeds();
    assert!(!shared.spool().join("tasks").join(&id).exists());
    let swept = run(&shared, &["sweep"]);
    swept.succeeds();
    assert!(
        swept.stderr.contains("it is a mount point"),
        "{}",
        swept.stderr
    );
    drop(fuse);
    let swept = run(&shared, &["sweep"]);
    swept.succeeds();
    assert_eq!(swept.stderr, "");
}

#[test]
fn a_mount_on_a_refused_file_stops_no_sweep() {
    let shared = Shared::new();
    shared
        .run(OWNER, &["config", "set", "rejected_keep_sec", "0"])
        .succeeds();
    put(&shared, GROUP_USER, "bad.json", "[1]", 0o640);
    shared.drain();
    let rejected = shared.spool().join("rejected");
    let kept = names_in(&rejected);
    let kept = kept.iter().find(|name| name.ends_with("-bad.json"));
    let fuse = Fuse::on(&shared, &rejected.join(kept.unwrap()));
    assert_ne!(run(&shared, &["doctor"]).code, 124);
    // The first pass only records the clocks.
    run(&shared, &["sweep"]).succeeds();
    let swept = run(&shared, &["sweep"]);
    swept.succeeds();
    assert!(
        swept.stderr.contains("it is a mount point"),
        "{}",
        swept.stderr
    );
    assert_eq!(names_in(&rejected).len(), 1);
    drop(fuse);
    run(&shared, &["sweep"]).succeeds();
    assert!(names_in(&rejected).is_empty());
}
