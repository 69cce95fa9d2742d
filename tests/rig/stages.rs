//! A disk that becomes full at each stage of a task's life, in blocks or in inodes.
//!
//! On a tmpfs and on an ext4 (root), always with a task that started before and still runs. Checked at every
//! stage: the running task records its real end while the disk is still full, nothing is left half done,
//! nothing runs twice, and after space is freed the same watcher continues. `disk.rs` goes step by step up to
//! the one byte or inode that is enough.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::mount::{Mount, fill_bytes, fill_inodes};
use crate::scale;
use crate::support::{Task, World, names_in};

const SIZE: u64 = 8 << 20;
const INODES: u64 = 600;

/// The resource that runs out.
#[derive(Clone, Copy, Debug)]
enum Lack {
    Blocks,
    Inodes,
}

/// A spool with a watcher and a task that runs until it may end.
struct Stage<'a> {
    mount: &'a Mount,
    world: World,
    lack: Lack,
    /// Outside the full disk: the gate, and the record of starts.
    outside: tempfile::TempDir,
    running: Task,
    watcher: u32,
}

/// Fills all free space.
struct Full {
    files: Vec<PathBuf>,
    root: PathBuf,
}

impl Full {
    fn of(root: &Path, lack: Lack) -> Full {
        let files = match lack {
            Lack::Blocks => vec![fill_bytes(root)],
            Lack::Inodes => fill_inodes(root),
        };
        Full {
            files,
            root: root.to_owned(),
        }
    }

    fn end(self) {
        for file in self.files {
            fs::remove_file(file).unwrap();
        }
        // ext4 returns freed blocks with its next commit.
        rustix::fs::syncfs(File::open(self.root).unwrap()).unwrap();
    }
}

impl Stage<'_> {
    fn new(mount: &Mount, lack: Lack) -> Stage<'_> {
        let outside = tempfile::tempdir().unwrap();
        let world = World::at(&mount.path());
        world.run(&["init"]).succeeds();
        for (key, value) in [
            ("rescan_sec", "0.2"),
            ("autostart", "false"),
            ("min_free_bytes", "0"),
            ("min_free_inodes", "0"),
            ("max_concurrent", "1"),
        ] {
            world.set(key, value);
        }
        let message = format!(
            "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT\" >> '{}'\n",
            outside.path().join("starts").display()
        );
        let gate = outside.path().join("gate");
        let wait = format!("while [ ! -e '{}' ]; do sleep 0.02; done", gate.display());
        world.recipe("ok", &format!("{message}echo fine\n"));
        world.recipe("gated", &format!("{message}{wait}\nexit 7\n"));
        let glut = "head -c 16000000 /dev/zero 2>/dev/null | cat 2>/dev/null";
        world.recipe("glutton", &format!("{message}{wait}\n{glut}\nexit 7\n"));
        let watcher = world.start_watcher();
        let running = world.submit(&["gated"]);
        world.wait_running(&running);
        Stage {
            mount,
            world,
            lack,
            outside,
            running,
            watcher,
        }
    }

    fn fill(&self) -> Full {
        Full::of(self.world.root(), self.lack)
    }

    fn open_gate(&self) {
        fs::write(self.outside.path().join("gate"), "").unwrap();
    }

    fn starts(&self, task: &Task) -> usize {
        let starts = fs::read_to_string(self.outside.path().join("starts")).unwrap_or_default();
        starts
            .lines()
            .filter(|line| line.starts_with(&task.id))
            .count()
    }

    /// A task that ran gets its correct result, however full the disk is.
    fn ends_truly(&self, task: &Task) {
        let result = self.world.result_of(task);
        let message = || format!("{:?} on {}: {result}", self.lack, self.mount.what());
        assert_eq!(result["exit_code"], 7, "{}", message());
        assert_eq!(result["error"]["kind"], "exit", "{}", message());
        assert_eq!(result["attempt"], 1, "{}", message());
        assert_eq!(self.starts(task), 1, "{}", message());
    }

    fn completes(&self, task: &Task) {
        let result = self.world.result_of(task);
        assert_eq!(
            (&result["status"], &result["output"], &result["attempt"]),
            (&json!("completed"), &json!("fine"), &json!(1)),
            "{}",
            self.world.describe()
        );
        assert_eq!(self.starts(task), 1, "{}", self.world.describe());
    }

    /// Space is free again: the same watcher continues, and nothing is left of the full disk.
    fn continues(&self) {
        let next = self.world.submit(&["ok"]);
        self.completes(&next);
        for task in self.world.tasks() {
            self.world.result_of(&task);
        }
        let watchers = self.world.watcher_pids();
        assert_eq!(watchers, [i32::try_from(self.watcher).unwrap()]);
        self.world.wait_until("every index entry is removed", || {
            let open = names_in(&self.world.path("open"));
            open.iter().all(|name| name.starts_with('.'))
        });
        for folder in ["staging", "incoming"] {
            let left = names_in(&self.world.path(folder));
            assert!(
                left.is_empty(),
                "{folder}/ has {left:?}\n{}",
                self.world.describe()
            );
        }
    }
}

fn before_submit(stage: &Stage<'_>) {
    let full = stage.fill();
    let ran = stage.world.run(&["submit", "--recipe", "ok"]);
    ran.ends_with(8);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("not accepted"), "{}", ran.stderr);
    assert_eq!(stage.world.tasks().len(), 1);
    assert!(names_in(&stage.world.path("staging")).is_empty());
    stage.open_gate();
    stage.ends_truly(&stage.running);
    full.end();
}

/// The next task is claimed on the full disk: it waits, and is not started without success.
fn after_the_claim(stage: &Stage<'_>) {
    let next = stage.world.submit(&["ok"]);
    let full = stage.fill();
    stage.open_gate();
    stage.ends_truly(&stage.running);
    full.end();
    stage.completes(&next);
}

fn while_running(stage: &Stage<'_>) {
    stage.world.set("max_concurrent", "2");
    let glutton = stage.world.submit(&["glutton"]);
    stage.world.wait_running(&glutton);
    let full = stage.fill();
    stage.open_gate();
    stage.ends_truly(&glutton);
    stage.ends_truly(&stage.running);
    // Its output uses the space as well.
    fs::write(glutton.path.join("attempts/1/stdout.log"), "").unwrap();
    full.end();
}

/// The recipe has ended, but its runner has not noticed yet.
fn at_the_finish(stage: &Stage<'_>) {
    let (runner, child) = stage.world.processes_of(&stage.running, 1);
    stage.world.signal(runner, Signal::STOP);
    stage.open_gate();
    stage.world.wait_until("the recipe has ended", || {
        !crate::support::processes::is_alive(child)
    });
    let full = stage.fill();
    stage.world.signal(runner, Signal::CONT);
    stage.ends_truly(&stage.running);
    full.end();
}

fn at_the_cancellation(stage: &Stage<'_>) {
    let pending = stage.world.submit(&["ok"]);
    let full = stage.fill();
    let message = stage.world.json(&["cancel", &stage.running.id]);
    assert_eq!(message["ok"], true, "{:?}: {message}", stage.lack);
    assert_eq!(message["status"], "cancelled", "{message}");
    assert_eq!(stage.running.result()["status"], "cancelled");
    assert!(stage.running.processes().is_empty());
    // For a waiting task there may be no space to record its end. Then the command reports that.
    let message = stage.world.run(&["cancel", &pending.id]);
    if message.code != 0 {
        message.ends_with(8);
        assert!(
            message.stderr.contains("was requested"),
            "{}",
            message.stderr
        );
        assert!(pending.path.join("cancel").exists());
    }
    full.end();
    if stage.starts(&pending) == 0 {
        assert_eq!(stage.world.result_of(&pending)["status"], "cancelled");
    } else {
        // It was started between the two commands.
        stage.completes(&pending);
    }
}

/// Tasks that are due are removed although, and because, the disk is full.
fn at_the_sweep(stage: &Stage<'_>) {
    stage.world.set("cleanup_delay_sec", "0");
    stage.world.set("max_concurrent", "2");
    let due = stage.world.submit(&["ok"]);
    stage.completes(&due);
    // Ages count only from the second pass, when the clocks agree.
    stage.world.run(&["sweep"]).succeeds();
    let full = stage.fill();
    stage.world.run(&["sweep"]);
    stage
        .world
        .wait_until("everything due is removed", || !due.path.exists());
    stage.open_gate();
    stage.ends_truly(&stage.running);
    stage.world.set("cleanup_delay_sec", "3600");
    full.end();
    stage.world.run(&["sweep"]).succeeds();
}

fn at_the_admission(stage: &Stage<'_>) {
    let watcher = i32::try_from(stage.watcher).unwrap();
    stage.world.signal(watcher, Signal::STOP);
    stage.world.drop_in(
        "dropped.json",
        r#"{"recipe": "ok", "metadata": {"drop": 1}}"#,
    );
    let full = stage.fill();
    stage.world.signal(watcher, Signal::CONT);
    stage.open_gate();
    stage.ends_truly(&stage.running);
    full.end();
    stage
        .world
        .wait_until("the drop is a task", || stage.world.tasks().len() == 2);
    stage.completes(&stage.world.tasks()[1]);
    assert!(names_in(&stage.world.path("rejected")).is_empty());
}

fn at_the_recovery(stage: &Stage<'_>) {
    let (runner, child) = stage.world.processes_of(&stage.running, 1);
    let full = stage.fill();
    stage.world.signal(runner, Signal::KILL);
    stage.world.wait_until("nothing of it is left", || {
        !crate::support::processes::is_alive(child)
    });
    full.end();
    let result = stage.world.result_of(&stage.running);
    assert_eq!(result["error"]["kind"], "lost", "{result}");
    assert_eq!(result["exit_code"], Value::Null);
    assert_eq!(stage.starts(&stage.running), 1);
}

/// A stage of a task's life: its name and its actions.
type NamedStage = (&'static str, fn(&Stage<'_>));

const STAGES: [NamedStage; 8] = [
    ("before submit", before_submit),
    ("after the claim", after_the_claim),
    ("while running", while_running),
    ("at the finish", at_the_finish),
    ("at the cancellation", at_the_cancellation),
    ("at the sweep", at_the_sweep),
    ("at the admission", at_the_admission),
    ("at the recovery", at_the_recovery),
];

fn at_each_stage(make: fn() -> Mount, lack: Lack) {
    let rounds = scale::pick(1, 7);
    let mut what = String::new();
    for _ in 0..rounds {
        for (name, act) in STAGES {
            let mount = make();
            mount.what().clone_into(&mut what);
            println!("{what}, out of {lack:?}: {name}");
            let stage = Stage::new(&mount, lack);
            act(&stage);
            stage.continues();
        }
    }
    let name = format!("full disk: stages of a task run on {what} out of {lack:?}");
    scale::figure(&name, rounds * STAGES.len());
}

#[test]
fn tmpfs_out_of_blocks() {
    at_each_stage(|| Mount::tmpfs(SIZE, INODES), Lack::Blocks);
}

#[test]
fn tmpfs_out_of_inodes() {
    at_each_stage(|| Mount::tmpfs(SIZE, INODES), Lack::Inodes);
}

#[test]
fn ext4_out_of_blocks() {
    at_each_stage(|| Mount::ext4(SIZE, INODES), Lack::Blocks);
}

#[test]
fn ext4_out_of_inodes() {
    at_each_stage(|| Mount::ext4(SIZE, INODES), Lack::Inodes);
}

/// A session's tasks wait until index entries and tasks were compared once in this boot. The comparison must
/// be recorded, and here the last inode is used up just then.
#[test]
fn a_boot_on_a_full_disk_stops_no_session_forever() {
    let mount = Mount::tmpfs(SIZE, INODES);
    let world = World::at(&mount.path());
    world.run(&["init"]).succeeds();
    for (key, value) in [
        ("rescan_sec", "0.2"),
        ("autostart", "false"),
        ("min_free_inodes", "0"),
        ("min_free_bytes", "0"),
    ] {
        world.set(key, value);
    }
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    let tasks = [(); 2].map(|()| world.submit(&["ok", "--session-id", "chat"]));
    // The world keeps the watcher's log on the same disk.
    fs::write(world.root().join("watch.log"), "").unwrap();
    let mut full = Full::of(world.root(), Lack::Inodes);
    // One is left for the watcher file.
    fs::remove_file(full.files.pop().unwrap()).unwrap();
    world.start_watcher();
    world.wait_until("it failed to record the boot", || {
        let log = fs::read_to_string(world.root().join("watch.log")).unwrap();
        log.contains(".boot")
    });
    assert!(!world.path("open/.boot").exists());
    full.end();
    for task in &tasks {
        assert_eq!(world.result_of(task)["output"], "fine");
    }
}

/// A file system with a running task on it cannot be made read-only: its logs are open.
#[test]
fn the_kernel_keeps_a_busy_spool_writable() {
    for mount in [Mount::tmpfs(SIZE, INODES), Mount::ext4(SIZE, INODES)] {
        let stage = Stage::new(&mount, Lack::Blocks);
        assert!(!mount.try_remount("ro"), "{}", mount.what());
        stage.open_gate();
        stage.ends_truly(&stage.running);
        stage.continues();
    }
}
