//! A spool that is a part of an image: it is in the lower layer of an overlayfs, and no folder of that layer
//! can be moved.
//!
//! Needs root. Invariant: a task that was finished in the image never runs again, wherever a removal of it is
//! interrupted.

use std::path::Path;

use crate::mount::{Mount, run, try_run};
use crate::support::{Task, World, names_in};

const NOTES_STARTS: &str = "#!/bin/sh\necho $AGENTSPOOL_ATTEMPT >>\"$AGENTSPOOL_DIR/../starts\"\n";

/// An image and a container of it. It is dropped before the image.
struct Container {
    /// Overlayfs takes no upper layer on an overlayfs, as below a container's own /tmp.
    _disk: Mount,
    world: Option<World>,
}

impl Container {
    /// `bake` fills the image.
    fn new(bake: impl FnOnce(&World)) -> Container {
        let disk = Mount::tmpfs(64 << 20, 100_000);
        let part = |name: &str| {
            let folder = disk.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (lower, upper, work) = (part("lower"), part("upper"), part("work"));
        let merged = part("merged");
        {
            let image = World::at(&lower);
            image.run(&["init"]).succeeds();
            image.set("autostart", "false");
            image.set("rescan_sec", "0.3");
            image.recipe("notes", NOTES_STARTS);
            bake(&image);
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let at = merged.to_str().unwrap();
        run("mount", &["-t", "overlay", "-o", &options, "overlay", at]);
        let world = World::at(&merged);
        // Its original is next to it, so it is a copy and starts paused.
        world.run(&["resume"]).succeeds();
        assert!(!world.path("paused").exists());
        Container {
            _disk: disk,
            world: Some(world),
        }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }
}

#[test]
fn an_overlay_in_memory_is_not_durable() {
    let container = Container::new(|_| {});
    let object = container.world().json(&["doctor"]);
    let mut checks = object["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == "file system");
    let message = check.unwrap()["message"].to_string();
    assert!(
        message.contains("overlayfs") && message.contains("its files are lost at a reboot"),
        "{message}"
    );
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(world) = self.world.take() {
            let at = world.root().to_owned();
            drop(world);
            try_run("umount", &["-l", at.to_str().unwrap()]);
        }
    }
}

/// Like a container's own disk after a restart, and the disk of a machine that boots from an overlay.
#[test]
fn a_spool_keeps_its_identity_when_its_overlay_is_mounted_again() {
    let lower = Mount::tmpfs(1 << 20, 1000);
    let disk = Mount::tmpfs(64 << 20, 100_000);
    let part = |name: &str| {
        let folder = disk.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let (upper, work, merged) = (part("upper"), part("work"), part("merged"));
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.path().display(),
        upper.display(),
        work.display()
    );
    let at = merged.to_str().unwrap();
    let mount = || run("mount", &["-t", "overlay", "-o", &options, "overlay", at]);
    mount();
    let world = World::at(&merged);
    world.run(&["init"]).succeeds();
    world.set("autostart", "false");
    world.recipe("notes", NOTES_STARTS);
    let task = world.submit(&["notes"]);
    // Another mount, so that the device numbers differ.
    run("umount", &[at]);
    let between = Mount::tmpfs(1 << 20, 1000);
    mount();
    world.run(&["watch", "--drain"]).succeeds();
    assert!(!world.path("paused").exists());
    assert_eq!(task.result()["status"], "completed");
    // A copy in its place, as from a backup, is another spool.
    let (spool, old) = (world.path(""), merged.join("old"));
    std::fs::rename(&spool, &old).unwrap();
    run(
        "cp",
        &["-a", old.to_str().unwrap(), spool.to_str().unwrap()],
    );
    run("umount", &[at]);
    mount();
    world.run(&["list"]).succeeds();
    assert!(world.path("paused").exists());
    drop(between);
    try_run("umount", &["-l", at]);
}

fn finished(world: &World) -> Task {
    let task = world.submit(&["notes"]);
    world.run(&["watch", "--drain"]).succeeds();
    assert!(task.has_result());
    task
}

/// Whether a rename of the folder is refused, as in a real image.
fn is_immovable(folder: &Path) -> bool {
    let to = folder.with_extension("moved");
    let moved = std::fs::rename(folder, &to);
    if moved.is_ok() {
        std::fs::rename(&to, folder).unwrap();
    }
    moved.is_err()
}

fn starts(world: &World) -> usize {
    let text = std::fs::read_to_string(world.root().join("starts"));
    text.unwrap_or_default().lines().count()
}

#[test]
fn a_finished_task_of_an_image_is_cleared_and_swept() {
    let container = Container::new(|image| {
        finished(image);
        finished(image);
    });
    let world = container.world();
    let tasks = world.tasks();
    assert!(is_immovable(&tasks[0].path), "this overlay moves folders");
    let cleared = world.json(&["clear"]);
    assert_eq!(cleared["cleared"], 2, "{cleared}");
    assert_eq!(names_in(&world.path("tasks")), Vec::<String>::new());
    assert_eq!(names_in(&world.path("trash")), Vec::<String>::new());

    let container = Container::new(|image| {
        finished(image);
    });
    let world = container.world();
    world.run(&["sweep"]).succeeds();
    let swept = world.json(&["sweep", "--set", "cleanup_delay_sec=0"]);
    assert_eq!(swept["errors"], serde_json::json!([]), "{swept}");
    assert_eq!(names_in(&world.path("tasks")), Vec::<String>::new());
    assert_eq!(starts(world), 1);
}

#[test]
fn a_task_whose_removal_was_interrupted_is_never_run() {
    // Everything else is removed first, then the lock, then the result: the state after each step.
    let steps: [&[&str]; 5] = [
        &["attempts"],
        &["attempts", "status.json", ".status.json.new"],
        &[
            "attempts",
            "status.json",
            ".status.json.new",
            "request.json",
        ],
        &[
            "attempts",
            "status.json",
            ".status.json.new",
            "request.json",
            "lock",
        ],
        &[
            "attempts",
            "status.json",
            ".status.json.new",
            "request.json",
            "lock",
            "result.json",
        ],
    ];
    for gone in steps {
        let container = Container::new(|image| {
            finished(image);
        });
        let world = container.world();
        let task = world.only_task();
        for name in gone {
            let path = task.path.join(name);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
        // The next boot compares index entries and tasks again.
        let _ = std::fs::remove_file(world.path("open/.boot"));
        world.run(&["watch", "--drain"]).succeeds();
        assert_eq!(starts(world), 1, "{gone:?}\n{}", world.describe());
        let shown = world.json(&["list"]);
        let count = shown["tasks"].as_array().unwrap().len();
        let is_empty_folder = gone.contains(&"result.json");
        assert_eq!(count, usize::from(!is_empty_folder), "{gone:?}: {shown}");
        if is_empty_folder {
            world.run(&["status", &task.id]).ends_with(7);
            world.run(&["sweep"]).succeeds();
            world
                .run(&["sweep", "--set", "cleanup_delay_sec=0"])
                .succeeds();
        } else {
            assert_eq!(world.json(&["status", &task.id])["status"], "completed");
            world.run(&["clear"]).succeeds();
        }
        assert!(!task.path.exists(), "{gone:?}\n{}", world.describe());
        assert_eq!(starts(world), 1);
    }
}

#[test]
fn clear_killed_at_any_unlink_leaves_a_finished_task() {
    let mut n = 1;
    loop {
        let container = Container::new(|image| {
            finished(image);
        });
        let world = container.world();
        let kill = format!("inject=unlinkat:signal=KILL:when={n}");
        let options = ["-o", "/dev/null", "-e", "trace=unlinkat", "-e"].map(str::to_owned);
        let killed =
            crate::traced::under_strace(world, &["clear"], &[&options[..], &[kill]].concat())
                .output()
                .unwrap();
        let _ = std::fs::remove_file(world.path("open/.boot"));
        world.run(&["watch", "--drain"]).succeeds();
        assert_eq!(starts(world), 1, "killed at {n}\n{}", world.describe());
        world.run(&["clear"]).succeeds();
        assert_eq!(names_in(&world.path("tasks")), Vec::<String>::new());
        if killed.status.success() {
            break;
        }
        n += 1;
    }
    assert!(n > 8, "only {n} calls were met");
}

#[test]
fn sessions_and_unfinished_files_of_an_image_are_removed() {
    let container = Container::new(|image| {
        let task = image.submit(&["notes", "--session-id", "chat"]);
        image.run(&["watch", "--drain"]).succeeds();
        std::fs::create_dir_all(image.path("sessions/chat/state/sub")).unwrap();
        let litter = image.path("staging/task_01hzzzzzzzzzzzzzzzzzzzzzzz");
        std::fs::create_dir_all(litter.join("attempts")).unwrap();
        std::fs::copy(task.path.join("lock"), litter.join("lock")).unwrap();
        let refused = image.path("rejected/task_01hzzzzzzzzzzzzzzzzzzzzzzz-x.json");
        std::fs::create_dir_all(refused).unwrap();
    });
    let world = container.world();
    world.run(&["sweep"]).succeeds();
    let all = [
        "sweep",
        "--set",
        "session_keep_sec=0",
        "--set",
        "rejected_keep_sec=0",
        "--set",
        "cleanup_delay_sec=0",
    ];
    let swept = world.json(&all);
    assert_eq!(swept["errors"], serde_json::json!([]), "{swept}");
    for folder in ["tasks", "staging", "sessions", "rejected", "trash"] {
        assert_eq!(
            names_in(&world.path(folder)),
            Vec::<String>::new(),
            "{folder}"
        );
    }
    // A new session of that name starts.
    world.submit(&["notes", "--session-id", "chat"]);
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(starts(world), 2);
}

#[test]
fn a_dropped_folder_of_an_image_keeps_no_other_drop_waiting() {
    let container = Container::new(|image| {
        std::fs::create_dir_all(image.path("incoming/folder.json")).unwrap();
    });
    let world = container.world();
    world.drop_in("good.json", "{\"recipe\": \"notes\"}");
    world.run(&["watch", "--drain"]).succeeds();
    assert_eq!(starts(world), 1, "{}", world.describe());
}

/// No folder of a lower layer can be moved up, and no path can be this long.
#[test]
fn a_deep_tree_of_an_image_is_removed() {
    let container = Container::new(|world| {
        let task = finished(world);
        let script =
            "import os\nfor i in range(2500):\n os.mkdir('d'); os.chdir('d')\nopen('f', 'w')\n";
        let made = std::process::Command::new("python3")
            .args(["-c", script])
            .current_dir(task.path.join("attempts/1/work"))
            .status();
        assert!(made.unwrap().success());
    });
    let world = container.world();
    world.run(&["clear"]).succeeds();
    assert!(names_in(&world.path("tasks")).is_empty());
    assert!(names_in(&world.path("trash")).is_empty());
}
