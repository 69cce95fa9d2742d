//! Snapshots and copies of whole file systems: the same inodes and the same identity, on another device.
//!
//! Needs root. Invariant: tasks that run in the original are neither ended nor started again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::mount::{run, try_run};
use crate::support::processes::is_alive;
use crate::support::{Task, World, read_json};

/// An ext4 in a file that can be copied, mounted on a folder.
struct Disk {
    place: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Disk {
    fn new() -> Disk {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        let mut disk = Disk {
            place,
            mounted: Vec::new(),
        };
        disk.mount("image", "original", "loop");
        disk
    }

    fn mount(&mut self, image: &str, at: &str, options: &str) -> PathBuf {
        let at = self.place.path().join(at);
        std::fs::create_dir_all(&at).unwrap();
        let image = self.place.path().join(image);
        let (image, to) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mount", &["-o", options, image, to]);
        self.mounted.push(at.clone());
        at
    }

    fn original(&self) -> PathBuf {
        self.place.path().join("original")
    }

    /// The contents of the disk at this time, mounted next to it.
    fn snapshot(&mut self) -> PathBuf {
        let original = self.original();
        run("fsfreeze", &["-f", original.to_str().unwrap()]);
        let copied = std::fs::copy(
            self.place.path().join("image"),
            self.place.path().join("snapshot"),
        );
        run("fsfreeze", &["-u", original.to_str().unwrap()]);
        copied.unwrap();
        self.mount("snapshot", "other", "loop")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for at in self.mounted.drain(..).rev() {
            try_run("umount", &["-l", at.to_str().unwrap()]);
        }
    }
}

/// A running task whose helper has lost its environment. In the snapshot its runner looks ended to a process
/// that trusts the recorded numbers.
fn start_task(world: &World) -> (Task, i32) {
    world.run(&["init"]).succeeds();
    world.set("autostart", "false");
    world.set("rescan_sec", "0.3");
    world.recipe_folder(
        "long",
        "on_lost = \"requeue\"",
        "#!/bin/sh\necho x >>\"$AGENTSPOOL_DIR/../starts\"\nenv -i sleep 1000 &\ntouch ready\nwait\n",
    );
    let task = world.submit(&["long"]);
    world.start_watcher();
    world.wait_for_file(&task.work(1, "ready"));
    let (_, leader) = world.processes_of(&task, 1);
    (task, leader)
}

fn on(world: &World, spool: &Path, arguments: &[&str]) -> crate::support::Ran {
    let mut all = vec!["--spool", spool.to_str().unwrap()];
    all.extend(arguments);
    world.run(&all)
}

#[test]
fn a_snapshot_next_to_its_original_is_a_copy() {
    let mut disk = Disk::new();
    let world = World::at(&disk.original());
    let (task, leader) = start_task(&world);
    let snapshot = disk.snapshot().join("spool");
    let drained = on(&world, &snapshot, &["watch", "--drain"]);
    drained.succeeds();
    assert!(drained.stderr.contains("copy"), "{}", drained.stderr);
    assert!(is_alive(leader));
    let uuid = |spool: &Path| read_json(&spool.join("identity.json"))["uuid"].clone();
    assert_ne!(uuid(&snapshot), uuid(world.spool()));
    on(&world, &snapshot, &["resume"]).succeeds();
    on(&world, &snapshot, &["cancel", &task.id]).succeeds();
    assert!(is_alive(leader), "the original's");
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
}

/// Mounted in a later boot, while nothing is at the path that it names, the snapshot is taken for the
/// original.
#[test]
fn a_snapshot_with_the_same_identity_ends_nothing_of_its_original() {
    let mut disk = Disk::new();
    let world = World::at(&disk.original());
    let (task, leader) = start_task(&world);
    let snapshot = disk.snapshot().join("spool");
    let path = snapshot.join("identity.json");
    let mut identity: Value = read_json(&path);
    identity["boot"] = json!("00000000-0000-4000-8000-000000000000");
    identity["path"] = json!("/nowhere/spool");
    std::fs::write(&path, identity.to_string()).unwrap();
    on(&world, &snapshot, &["cancel", &task.id]).succeeds();
    let same = read_json(&path)["uuid"].clone();
    assert_eq!(same, read_json(&world.path("identity.json"))["uuid"]);
    let result = read_json(&snapshot.join("tasks").join(&task.id).join("result.json"));
    assert_eq!(result["status"], "cancelled");
    assert!(is_alive(leader), "the original's");
    let helper = Command::new("pgrep")
        .args(["-s", &leader.to_string(), "sleep"])
        .output()
        .unwrap();
    assert!(helper.status.success(), "its helper was ended");
    assert_eq!(world.json(&["status", &task.id])["status"], "running");
}

/// A loop device has another number after each mount, and so have btrfs and overlayfs.
#[test]
fn a_disk_that_is_mounted_again_has_the_same_spool() {
    let mut disk = Disk::new();
    let world = World::at(&disk.original());
    world.run(&["init"]).succeeds();
    let before = read_json(&world.path("identity.json"));
    run("umount", &[disk.original().to_str().unwrap()]);
    disk.mounted.clear();
    // Something else takes the number of the device. Other tests use and free numbers at the same time.
    for n in 0.. {
        let other = format!("other{n}");
        std::fs::copy(
            disk.place.path().join("image"),
            disk.place.path().join(&other),
        )
        .unwrap();
        disk.mount(&other, &format!("elsewhere{n}"), "loop");
        disk.mount("image", "original", "loop");
        let device = std::fs::metadata(disk.original()).unwrap().dev();
        if before["device"] != device {
            break;
        }
        run("umount", &[disk.original().to_str().unwrap()]);
        disk.mounted.pop();
    }
    world.run(&["list"]).succeeds();
    let after = read_json(&world.path("identity.json"));
    assert_ne!(after["device"], before["device"]);
    assert_eq!(after["uuid"], before["uuid"]);
    assert!(!world.path("paused").exists());
}

/// The root folders of two disks have the same inode, also after a boot.
#[test]
fn a_copy_on_its_own_disk_is_recognized_after_a_boot() {
    let disk = Disk::new();
    let other = Disk::new();
    let world = World::at(disk.place.path());
    let (original, copy) = (disk.original(), other.original());
    for root in [&original, &copy] {
        std::fs::remove_dir(root.join("lost+found")).unwrap();
    }
    on(&world, &original, &["init"]).succeeds();
    let recipe = original.join("recipes/ok");
    crate::support::write_executable(&recipe, "#!/bin/sh\necho fine\n");
    let none = ["--set", "autostart=false", "submit", "--recipe", "ok"];
    on(&world, &original, &none).succeeds();
    let from = format!("{}/.", original.display());
    run("cp", &["-a", &from, copy.to_str().unwrap()]);
    for root in [&original, &copy] {
        let path = root.join("identity.json");
        let mut identity: Value = read_json(&path);
        identity["boot"] = json!("00000000-0000-4000-8000-000000000000");
        std::fs::write(&path, identity.to_string()).unwrap();
    }
    on(&world, &copy, &["list"]).succeeds();
    on(&world, &original, &["list"]).succeeds();
    assert!(copy.join("paused").exists());
    assert!(!original.join("paused").exists());
}
