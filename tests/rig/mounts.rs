//! A removal never leaves its tree: mounts, links, and folders that move during the removal.
//!
//! Needs root. Invariant of every test: files outside the tree are unchanged afterwards.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::mount::{Mount, run, try_run};
use crate::support::{Ran, Task, World, names_in};
use crate::traced::under_strace;

/// Removes the mounts, whatever happens.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    fn bind(&mut self, from: &Path, at: &Path) {
        run(
            "mount",
            &["--bind", from.to_str().unwrap(), at.to_str().unwrap()],
        );
        self.0.push(at.canonicalize().unwrap());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for at in self.0.drain(..).rev() {
            try_run("umount", &["-l", at.to_str().unwrap()]);
        }
    }
}

/// A finished task in a world without watchers.
fn finished() -> (World, Task) {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    let task = world.submit(&["ok"]);
    world.run(&["watch", "--drain"]).succeeds();
    (world, task)
}

/// Files that must not be removed.
fn precious(world: &World) -> PathBuf {
    let folder = world.root().join("precious");
    std::fs::create_dir_all(folder.join("inner")).unwrap();
    for file in ["a", "b", "inner/c"] {
        std::fs::write(folder.join(file), "precious").unwrap();
    }
    folder
}

#[track_caller]
fn is_whole(folder: &Path) {
    for file in ["a", "b", "inner/c"] {
        let path = folder.join(file);
        assert!(path.exists(), "{} is gone", path.display());
    }
}

/// Removes everything in one of the two ways, and returns what was printed.
fn remove_all(world: &World, verb: &str) -> Ran {
    let mut arguments = vec![verb];
    if verb == "sweep" {
        arguments.extend(["--set", "cleanup_delay_sec=0"]);
        // The first pass only records the clocks.
        world.run(&["sweep"]);
    }
    world.run(&arguments)
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(name);
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// An empty mount on a finished task's folder looks like the remains of a removal, but is not.
#[test]
fn an_empty_mount_on_a_task_stops_no_other_task_and_loses_no_file() {
    for verb in ["sweep", "clear"] {
        let (world, task) = finished();
        let other = world.submit(&["ok"]);
        world.run(&["watch", "--drain"]).succeeds();
        let outside = world.root().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("lock"), "").unwrap();
        let mut mounted = Mounted(Vec::new());
        mounted.bind(&outside, &task.path);
        let ran = remove_all(&world, verb);
        let printed = format!("{}{}", ran.stdout, ran.stderr);
        assert!(printed.contains("mount point"), "{verb}: {printed}");
        assert!(!other.path.exists(), "{verb}: {printed}");
        assert!(outside.join("lock").exists(), "{verb}");
        drop(mounted);
        remove_all(&world, verb);
        assert!(!task.path.exists(), "{verb}");
    }
}

/// A backup is read where nothing can be written.
#[test]
fn a_spool_on_a_read_only_mount_can_be_read() {
    let (world, task) = finished();
    let image = Mount::tmpfs(16 << 20, 1000);
    let copy = image.path().join("spool");
    run(
        "cp",
        &[
            "-a",
            world.spool().to_str().unwrap(),
            copy.to_str().unwrap(),
        ],
    );
    image.remount("ro");
    for arguments in [&["list"][..], &["status", &task.id], &["result", &task.id]] {
        let mut all = vec!["--spool", copy.to_str().unwrap()];
        all.extend(arguments);
        world.run(&all).succeeds();
    }
}

/// Mounts in four places of a task, then removes the task.
fn leaves_mounts(verb: &str) {
    let (world, task) = finished();
    let outside = precious(&world);
    let mut mounted = Mounted(Vec::new());
    let work = task.path.join("attempts/1/work");
    let deep = work.join("d/".repeat(140));
    for folder in ["same", "other/inner", "rest"] {
        std::fs::create_dir_all(work.join(folder)).unwrap();
        std::fs::write(work.join(folder).join("file"), "goes").unwrap();
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(work.join("single"), "").unwrap();
    mounted.bind(&outside, &work.join("same"));
    mounted.bind(&outside.join("a"), &work.join("single"));
    mounted.bind(&outside, &deep);
    let tmpfs = Mount::tmpfs(1 << 20, 100);
    std::fs::write(tmpfs.path().join("kept"), "kept").unwrap();
    mounted.bind(&tmpfs.path(), &work.join("other/inner"));
    // Mounted files use no disk space of the task.
    let ran = remove_all(&world, verb);
    assert!(ran.stderr.contains("mount point"), "{}", ran.stderr);
    assert!(ran.stderr.contains("umount"), "{}", ran.stderr);
    assert!(!task.path.exists(), "{}", world.describe());
    is_whole(&outside);
    assert!(tmpfs.path().join("kept").exists());
    let left: Vec<PathBuf> = below(&world.path("trash"));
    assert!(
        !left.iter().any(|path| path.ends_with("rest/file")),
        "the rest is removed: {left:?}"
    );
    assert!(
        !left.iter().any(|path| path.ends_with("result.json")),
        "{left:?}"
    );
    // Once they are unmounted, the next pass removes what was left. The mounts moved with the folder; the
    // kernel's list knows where they are.
    unmount_below(&world.path("trash"));
    world.run(&["sweep"]).succeeds();
    assert_eq!(names_in(&world.path("trash")), Vec::<String>::new());
    is_whole(&outside);
}

fn unmount_below(folder: &Path) {
    let folder = folder.canonicalize().unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut at: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| Path::new(at).starts_with(&folder))
        .collect();
    at.reverse();
    for at in at {
        run("umount", &["-l", at]);
    }
}

#[test]
fn clear_keeps_files_mounted_in_a_task() {
    leaves_mounts("clear");
    // For programs the JSON answer has the same information.
    let (world, task) = finished();
    let outside = precious(&world);
    let mut mounted = Mounted(Vec::new());
    let place = task.path.join("attempts/1/work");
    mounted.bind(&outside, &place);
    let cleared = world.json(&["clear"]);
    assert_eq!(cleared["ok"], true, "{cleared}");
    assert_eq!(cleared["cleared"], 1, "{cleared}");
    let left = cleared["left"][0].as_str().unwrap();
    assert!(
        left.contains("trash/") && left.contains("attempts/1/work"),
        "{cleared}"
    );
    unmount_below(&world.path("trash"));
    is_whole(&outside);
}

#[test]
fn a_sweep_keeps_files_mounted_in_a_task() {
    leaves_mounts("sweep");
}

#[test]
fn other_tasks_are_removed_although_one_is_a_mount_point() {
    let (world, task) = finished();
    let other = world.submit(&["ok"]);
    world.run(&["watch", "--drain"]).succeeds();
    let outside = precious(&world);
    let content = world.root().join("content");
    run(
        "cp",
        &["-a", task.path.to_str().unwrap(), content.to_str().unwrap()],
    );
    std::fs::write(content.join("kept"), "").unwrap();
    let mut mounted = Mounted(Vec::new());
    mounted.bind(&content, &task.path);
    let ran = world.run(&["clear"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains(&task.id) && ran.stderr.contains("mount point"),
        "{}",
        ran.stderr
    );
    assert!(content.join("kept").exists() && content.join("result.json").exists());
    assert!(!other.path.exists());
    is_whole(&outside);
}

#[test]
fn removing_sessions_drops_and_unfinished_files_enters_no_mount() {
    let world = World::new();
    world.set("autostart", "false");
    let outside = precious(&world);
    let mut mounted = Mounted(Vec::new());
    let rejected = world.path("rejected/task_01hzzzzzzzzzzzzzzzzzzzzzzz-x.json");
    let places = [
        world.path("sessions/old/state/cache"),
        world.path("trash/deep.0000000000000000"),
        rejected.join("inner"),
        world.path("trash/session.0000000000000000/x"),
    ];
    for place in &places {
        std::fs::create_dir_all(place).unwrap();
        mounted.bind(&outside, place);
        symlink(&outside, place.with_file_name("link")).unwrap();
    }
    world.run(&["sweep"]);
    let swept = world.json(&[
        "sweep",
        "--set",
        "rejected_keep_sec=0",
        "--set",
        "session_keep_sec=0",
    ]);
    is_whole(&outside);
    let left = swept["mounted"].as_array().unwrap();
    assert!(left.len() >= 3, "{swept}");
    for one in left {
        assert!(one.as_str().unwrap().contains("mount point"), "{swept}");
    }
    assert_eq!(swept["ok"], true, "{swept}");
    unmount_below(world.spool());
    mounted.0.clear();
    world.run(&["sweep"]).succeeds();
    // No file of ours has this name.
    assert_eq!(names_in(&world.path("trash")), ["link"]);
    is_whole(&outside);
}

/// Stands for a container whose filter does not know the call.
#[test]
fn no_mount_is_entered_without_openat2() {
    for errno in ["ENOSYS", "EPERM"] {
        let (world, task) = finished();
        let outside = precious(&world);
        let mut mounted = Mounted(Vec::new());
        let place = task.path.join("attempts/1/work/same");
        std::fs::create_dir_all(&place).unwrap();
        mounted.bind(&outside, &place);
        let options = ["-o", "/dev/null", "-e", "trace=openat2", "-e"].map(str::to_owned);
        let inject = format!("inject=openat2:error={errno}");
        let options = [&options[..], &[inject]].concat();
        let output = under_strace(&world, &["clear"], &options).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(printed.contains("mount point"), "{printed}");
        assert!(!task.path.exists());
        is_whole(&outside);
        let left = below(&world.path("trash"));
        assert!(
            !left.iter().any(|path| path.ends_with("run.json")),
            "{left:?}"
        );
        unmount_below(&world.path("trash"));
    }
}

/// A folder is moved out of the tree while its files are removed slowly.
#[test]
fn a_folder_that_is_moved_out_during_a_removal_keeps_its_files() {
    for levels in ["", "/x/y"] {
        let (world, task) = finished();
        let folder = task.path.join("attempts/1/work/moving");
        let inner = PathBuf::from(format!("{}{levels}", folder.display()));
        std::fs::create_dir_all(&inner).unwrap();
        for n in 0..200 {
            std::fs::write(inner.join(n.to_string()), "").unwrap();
        }
        let options = ["-o", "/dev/null", "-e", "trace=unlinkat", "-e"].map(str::to_owned);
        let slowly = "inject=unlinkat:delay_enter=20000".to_owned();
        let mut clear = under_strace(&world, &["clear"], &[&options[..], &[slowly]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut count = 200;
        let mut there = PathBuf::new();
        world.wait_until("its files are removed", || {
            let Some(grave) = names_in(&world.path("trash")).into_iter().next() else {
                return false;
            };
            there = world
                .path("trash")
                .join(grave)
                .join("attempts/1/work/moving");
            count = names_in(&PathBuf::from(format!("{}{levels}", there.display()))).len();
            (1..195).contains(&count)
        });
        let moved = world.root().join("moved");
        std::fs::rename(&there, &moved).unwrap();
        let kept = names_in(&PathBuf::from(format!("{}{levels}", moved.display()))).len();
        clear.wait().unwrap();
        let at_last = names_in(&PathBuf::from(format!("{}{levels}", moved.display()))).len();
        // One call may be in progress when it is moved.
        assert!(at_last + 1 >= kept, "{at_last} of {kept} files are left");
        assert!(kept > 1);
    }
}

/// A mount has no size and no age.
#[test]
fn mounted_files_do_not_count_toward_a_limit() {
    let (world, task) = finished();
    let big = Mount::tmpfs(64 << 20, 100);
    std::fs::write(big.path().join("big"), vec![1u8; 32 << 20]).unwrap();
    let place = task.path.join("attempts/1/work/big");
    std::fs::create_dir_all(&place).unwrap();
    let same = world.root().join("same");
    std::fs::create_dir(&same).unwrap();
    std::fs::write(same.join("big"), vec![1u8; 8 << 20]).unwrap();
    let other = task.path.join("attempts/1/work/same");
    std::fs::create_dir_all(&other).unwrap();
    let mut mounted = Mounted(Vec::new());
    mounted.bind(&big.path(), &place);
    mounted.bind(&same, &other);
    world.run(&["sweep"]).succeeds();
    let kept = ["sweep", "--set", "max_finished_bytes=4000000"];
    world.run(&kept).succeeds();
    assert!(task.path.exists(), "{}", world.describe());
}

/// A user mounts his own disk over a folder of the spool.
#[test]
fn files_mounted_over_a_folder_of_the_spool_are_kept() {
    for folder in ["trash", "staging", "sessions", "rejected", "tasks", "names"] {
        let (world, _task) = finished();
        for key in ["cleanup_delay_sec", "session_keep_sec", "rejected_keep_sec"] {
            world.set(key, "0");
        }
        world.run(&["sweep"]).succeeds();
        let disk = precious(&world);
        for file in [
            "task_01m8e1crc33a1ketcm09rcsjdx-letter",
            "mail/state/x",
            "empty",
        ] {
            std::fs::create_dir_all(disk.join(file)).unwrap();
        }
        symlink("nowhere", disk.join(".link.new")).unwrap();
        let old = ["-h", "-d", "2020-01-01", disk.to_str().unwrap()];
        run("touch", &old);
        let before = below(&disk);
        let mut mounted = Mounted(Vec::new());
        mounted.bind(&disk, &world.path(folder));
        let swept = world.run(&["sweep"]);
        // For tasks this is logged once there is one to remove.
        assert!(
            folder == "tasks" || swept.stderr.contains("is a mount point"),
            "{folder}: {}",
            swept.stderr
        );
        world.run(&["clear"]);
        assert_eq!(below(&disk), before, "{folder}");
    }
}

/// An entry in the trash that no removal put there belongs to somebody else.
#[test]
fn only_our_own_entries_in_the_trash_are_removed() {
    let (world, _task) = finished();
    for name in ["letters", "session.x", "deep.0123456789abcdef"] {
        std::fs::create_dir(world.path("trash").join(name)).unwrap();
    }
    world.run(&["sweep"]).succeeds();
    assert_eq!(names_in(&world.path("trash")), ["letters", "session.x"]);
}

/// A file that is mounted over one of ours is not cut, and no hole is punched into it.
#[test]
fn a_file_that_is_mounted_in_an_attempt_stays_whole() {
    let world = World::new();
    let file = world.root().join("precious");
    let at = file.to_str().unwrap();
    world.recipe(
        "foreign",
        &format!(
            "#!/bin/sh\ncd \"$AGENTSPOOL_TASK_DIR\"; touch attempts/1/foreign-result\n\
             mount --bind {at} attempts/1/foreign-result; echo '{{}}' >result.json\n"
        ),
    );
    world.recipe(
        "progress",
        &format!(
            "#!/bin/sh\ntouch $AGENTSPOOL_PROGRESS_FILE\nmount --bind {at} $AGENTSPOOL_PROGRESS_FILE\n"
        ),
    );
    let text = "a line\n".repeat(1_500_000);
    for recipe in ["foreign", "progress"] {
        std::fs::write(&file, &text).unwrap();
        let task = world.submit(&[recipe]);
        // The recipe itself writes a result, which is there until the runner puts its own in its place.
        world.wait_until("the task has completed", || {
            task.read("status.json").contains("\"completed\"")
        });
        assert_eq!(world.result_of(&task)["status"], "completed", "{recipe}");
        unmount_below(&task.path);
        assert!(std::fs::read_to_string(&file).unwrap() == text, "{recipe}");
    }
}

/// If a task is removed in place, files next to it are not removed: a folder that is moved from it to another
/// task, at the same depth, keeps its files.
#[test]
fn a_folder_that_is_moved_next_to_a_removal_in_place_keeps_its_files() {
    let (world, task) = finished();
    world.recipe(
        "gate",
        "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.02; done\n",
    );
    let other = world.submit(&["gate"]);
    world.start_watcher();
    world.wait_for_file(&other.path.join("attempts/1/run.json"));
    let folder = task.path.join("attempts/1/work/moving");
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..200 {
        std::fs::write(folder.join(n.to_string()), "").unwrap();
    }
    let disk = world.root().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut mounted = Mounted(Vec::new());
    mounted.bind(&disk, &world.path("trash"));
    let options = ["-o", "/dev/null", "-e", "trace=unlinkat", "-e"].map(str::to_owned);
    let slowly = "inject=unlinkat:delay_enter=20000".to_owned();
    let mut clear = under_strace(&world, &["clear"], &[&options[..], &[slowly]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.wait_until("its files are removed", || {
        (1..195).contains(&names_in(&folder).len())
    });
    let moved = other.work(1, "moving");
    std::fs::rename(&folder, &moved).unwrap();
    let kept = names_in(&moved).len();
    clear.wait().unwrap();
    let at_last = names_in(&moved).len();
    assert!(at_last + 1 >= kept, "{at_last} of {kept} files are left");
    std::fs::write(other.work(1, "go"), "").unwrap();
    world.result_of(&other);
}
