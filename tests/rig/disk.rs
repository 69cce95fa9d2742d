//! Disks that are full, out of inodes, or read-only.
//!
//! On a tmpfs and an ext4 of their own (root). Checked: a task that was not accepted leaves nothing, a task
//! that ran gets its correct result however full the disk is, and after space is freed the work continues
//! without help.

use std::fs;

use serde_json::{Value, json};

use crate::mount::{Mount, fill_bytes, fill_inodes};
use crate::support::{World, names_in};

const SIZE: u64 = 8 << 20;

/// Runs the test on each kind of disk, without a floor for free space.
fn on_each_disk(inodes: u64, test: impl Fn(&Mount, &World)) {
    for mount in [Mount::tmpfs(SIZE, inodes), Mount::ext4(SIZE, inodes)] {
        println!("on {}", mount.what());
        let world = world_on(&mount);
        world.set("min_free_bytes", "0");
        world.set("min_free_inodes", "0");
        test(&mount, &world);
    }
}

fn world_on(mount: &Mount) -> World {
    let world = World::at(&mount.path());
    world.run(&["init"]).succeeds();
    world.set("rescan_sec", "0.3");
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world
}

/// No task exists, and nothing that was becoming one.
#[track_caller]
fn nothing_half_done(world: &World, tasks: usize) {
    assert_eq!(world.tasks().len(), tasks, "{}", world.describe());
    assert!(
        names_in(&world.path("staging")).is_empty(),
        "{}",
        world.describe()
    );
    let open = names_in(&world.path("open"));
    let open = open.iter().filter(|name| !name.starts_with('.')).count();
    assert_eq!(open, tasks, "{}", world.describe());
}

#[track_caller]
fn refused(world: &World) {
    let ran = world.run(&["submit", "--recipe", "ok"]);
    ran.ends_with(8);
    assert_eq!(ran.stdout, "");
    assert!(
        ran.stderr.lines().next().unwrap().contains("not accepted"),
        "{}",
        ran.stderr
    );
    assert_eq!(world.json(&["submit", "--recipe", "ok"])["code"], 8);
}

#[test]
fn below_the_floor_no_task_is_accepted_and_the_error_names_the_floor() {
    let mount = Mount::tmpfs(SIZE, 500);
    let world = world_on(&mount);
    for (mends, floor) in [("min_free_bytes", "16777216"), ("min_free_inodes", "1000")] {
        let ran = world.run(&["submit", "--recipe", "ok"]);
        ran.ends_with(8);
        for word in [floor, mends, "free"] {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        nothing_half_done(&world, 0);
        world.set(mends, "0");
    }
    world.submit(&["ok"]);
    nothing_half_done(&world, 1);
}

/// The amount of data that a pipe delivers is not known before.
#[test]
fn an_attachment_from_a_pipe_keeps_the_floor() {
    let mount = Mount::tmpfs(SIZE, 500);
    let world = world_on(&mount);
    world.set("min_free_inodes", "0");
    world.set("min_free_bytes", "4194304");
    let attach = ["submit", "--recipe", "ok", "--attach", "/dev/stdin"];
    let ran = world.run_with_stdin(&attach, &vec![b'x'; 6 << 20]);
    ran.ends_with(8);
    assert!(ran.stderr.contains("min_free_bytes"), "{}", ran.stderr);
    nothing_half_done(&world, 0);
    world
        .run_with_stdin(&attach, &vec![b'x'; 2 << 20])
        .succeeds();
    nothing_half_done(&world, 1);
}

/// A disk without a free block still has space for an empty file. `pause` must report what it really did.
#[test]
fn a_full_disk_can_be_paused() {
    on_each_disk(1000, |_, world| {
        let ballast = fill_bytes(world.root());
        let ran = world.run(&["pause"]);
        assert_eq!(
            ran.code == 0,
            world.path("paused").exists(),
            "{}",
            ran.stderr
        );
        ran.succeeds();
        world.run(&["resume"]).succeeds();
        assert!(!world.path("paused").exists());
        fs::remove_file(&ballast).unwrap();
    });
}

#[test]
fn a_full_disk_accepts_nothing_until_there_is_room() {
    on_each_disk(1000, |_, world| {
        let ballast = fill_bytes(world.root());
        refused(world);
        nothing_half_done(world, 0);
        // With a little more space each time it fails one step later, and again leaves nothing.
        let mut size = fs::metadata(&ballast).unwrap().len();
        let file = fs::File::options().write(true).open(&ballast).unwrap();
        let accepted = loop {
            size = size.checked_sub(1024).unwrap();
            file.set_len(size).unwrap();
            file.sync_all().unwrap();
            let object = world.json(&["submit", "--recipe", "ok"]);
            if object["ok"] == true {
                break world.task(object["task_id"].as_str().unwrap());
            }
            assert_eq!(object["code"], 8, "{object}");
            nothing_half_done(world, 0);
        };
        nothing_half_done(world, 1);
        drop(file);
        fs::remove_file(&ballast).unwrap();
        // ext4 returns freed blocks only with its next commit, so the first try may be too early.
        world.wait_until("a watcher finds space", || {
            world.run(&["watch", "--drain"]).code == 0
        });
        assert_eq!(accepted.result()["output"], "fine");
    });
}

#[test]
fn without_inodes_nothing_is_accepted_and_nothing_is_started() {
    on_each_disk(400, |_, world| {
        let mut files = fill_inodes(world.root());
        refused(world);
        nothing_half_done(world, 0);
        let accepted = loop {
            fs::remove_file(files.pop().unwrap()).unwrap();
            let object = world.json(&["submit", "--recipe", "ok"]);
            if object["ok"] == true {
                break world.task(object["task_id"].as_str().unwrap());
            }
            assert_eq!(object["code"], 8, "{object}");
            nothing_half_done(world, 0);
        };
        // The same for the start: one step further each time, and no start without success.
        files.extend(fill_inodes(world.path("recipes").as_path()));
        let mut failed = 0;
        while world.run(&["runner", "--once", &accepted.id]).code != 0 {
            failed += 1;
            assert!(!accepted.has_result());
            assert_eq!(accepted.attempts(), 0, "{}", world.describe());
            assert_eq!(world.json(&["status", &accepted.id])["status"], "pending");
            fs::remove_file(files.pop().unwrap()).unwrap();
        }
        assert!(failed > 2, "it never failed, so nothing was tested");
        let result = accepted.result();
        assert_eq!(
            (&result["output"], &result["attempt"]),
            (&json!("fine"), &json!(1))
        );
    });
}

#[test]
fn a_task_that_fills_the_disk_gets_its_correct_result() {
    on_each_disk(1000, |mount, world| {
        world.set("max_concurrent", "1");
        // Much output first, so that it no longer fits into the result.
        let script = "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' 'a'\n\
             cat /dev/zero > big 2>/dev/null\nsync\ncat /dev/zero >> big 2>/dev/null\n\
             cat > /dev/null\nexit 7\n";
        world.recipe("glutton", script);
        let watcher = world.start_watcher();
        let glutton = world.submit(&["glutton"]);
        world.wait_running(&glutton);
        // Accepted while there may or may not be space. A task that is accepted will run.
        let next = world.json(&["submit", "--recipe", "ok"]);
        let result = world.result_of(&glutton);
        assert_eq!(result["exit_code"], 7, "{} {result}", mount.what());
        assert_eq!(result["error"]["kind"], "exit");
        assert_eq!(result["output_truncated"], true);
        assert_eq!(result["output"], Value::Null);
        assert_eq!(result["output_file"], "attempts/1/stdout.log");
        assert_eq!(glutton.read("attempts/1/stdout.log").len(), 300_000);
        assert_eq!(world.json(&["status", &glutton.id])["status"], "failed");
        assert_eq!(world.json(&["wait", &glutton.id])["code"], 3);
        // The part of the preallocated file that the result did not need is free again.
        let ballast = fill_bytes(world.root());
        refused(world);

        // Space is free: the same watcher continues.
        fs::remove_file(ballast).unwrap();
        fs::remove_file(glutton.path.join("attempts/1/work/big")).unwrap();
        world.wait_until("the disk takes tasks again", || {
            world.json(&["submit", "--recipe", "ok"])["ok"] == true
        });
        if next["ok"] == true {
            let next = world.task(next["task_id"].as_str().unwrap());
            assert_eq!(world.result_of(&next)["output"], "fine");
            assert_eq!(next.result()["attempt"], 1);
        }
        for task in world.tasks() {
            world.result_of(&task);
        }
        assert!(
            world
                .watcher_pids()
                .contains(&i32::try_from(watcher).unwrap())
        );
        assert_eq!(glutton.result(), result);
    });
}

/// Its log is in the spool, so on a full disk it cannot even log the problem.
#[test]
fn an_autostarted_watcher_outlives_a_full_disk() {
    on_each_disk(1000, |_, world| {
        world.set("autostart", "true");
        let first = world.submit(&["ok"]);
        world.result_of(&first);
        let watchers = world.watcher_pids();
        // One task that waits for a slot, and then for space.
        let gate = world.root().join("gate");
        let script = format!(
            "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.05; done\n",
            gate.display()
        );
        world.recipe("gate", &script);
        world.set("max_concurrent", "1");
        let gated = world.submit(&["gate"]);
        world.wait_running(&gated);
        let waiting = world.submit(&["ok"]);
        let log = world.path("watchers/log");
        let ballast = fill_bytes(world.root());
        // To the last byte of the log's own last block.
        while fs::File::options()
            .append(true)
            .open(&log)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"\n"))
            .is_ok()
        {}
        fs::rename(&ballast, &gate).unwrap();
        assert_eq!(world.result_of(&gated)["status"], "completed");
        fs::remove_file(&gate).unwrap();
        let result = world.result_of(&waiting);
        assert_eq!(
            (&result["output"], &result["attempt"]),
            (&json!("fine"), &json!(1))
        );
        assert_eq!(world.watcher_pids(), watchers);
    });
}

#[test]
fn a_read_only_spool_can_be_read() {
    on_each_disk(1000, |mount, world| {
        let task = world.submit(&["ok"]);
        world.run(&["runner", "--once", &task.id]).succeeds();
        let pending = world.submit(&["ok", "--name", "later"]);
        mount.remount("ro");
        refused(world);
        let message = world.run(&["submit", "--recipe", "ok"]).stderr;
        assert!(message.contains("Read-only file system"), "{message}");
        assert_eq!(world.json(&["list"])["total"], 2);
        assert_eq!(world.json(&["status", &task.id])["status"], "completed");
        assert_eq!(world.json(&["status", "later"])["status"], "pending");
        let result = world.run(&["result", &task.id]);
        result.succeeds();
        assert_eq!(result.stdout, "fine\n");
        world.run(&["logs", &task.id]).succeeds();
        world.run(&["wait", &task.id]).succeeds();
        world.run(&["cancel", &pending.id]).ends_with(8);
        world.run(&["sweep"]).ends_with(8);
        world.run(&["sweep", "--dry-run"]).succeeds();
        mount.remount("rw");
        world.run(&["watch", "--drain"]).succeeds();
        assert_eq!(pending.result()["status"], "completed");
    });
}

/// As on a file system that cannot punch holes.
#[test]
fn a_log_that_cannot_be_cut_stays_whole_and_this_is_logged_once() {
    let world = World::new();
    world.set("autostart", "false");
    world.set("log_cap_bytes", "1048576");
    world.set("max_concurrent", "1");
    let script = "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\nsleep 0.1\necho last\n";
    world.recipe("talks", script);
    let tasks: Vec<_> = (0..3).map(|_| world.submit(&["talks"])).collect();
    let ran = crate::support::Ran::of(
        std::process::Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fallocate"])
            .args(["-e", "inject=fallocate:error=EOPNOTSUPP"])
            .args([crate::support::PROGRAM, "watch", "--drain"])
            .env("AGENTSPOOL_DIR", world.spool()),
    );
    ran.succeeds();
    assert_eq!(ran.stderr.matches("cannot punch holes").count(), 1);
    for task in tasks {
        assert_eq!(task.result()["status"], "completed");
        let log = fs::metadata(task.path.join("attempts/1/stdout.log")).unwrap();
        assert_eq!(log.len(), 3_000_005);
        assert_eq!(task.status()["log_bytes_dropped"], Value::Null);
    }
}

/// A watcher that is killed at the end of the test in any case.
struct Watching(std::process::Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The file system is frozen for as long as this value exists.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn freeze(mount: &Mount) -> Frozen {
        let done = std::process::Command::new("fsfreeze")
            .arg("-f")
            .arg(mount.path())
            .status();
        assert!(done.unwrap().success());
        Frozen(mount.path())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::process::Command::new("fsfreeze")
            .arg("-u")
            .arg(&self.0)
            .status();
    }
}

/// As when the log of a service is on a network disk that is gone.
#[test]
fn a_log_on_a_disk_that_hangs_stops_no_task() {
    let mount = Mount::ext4(SIZE, 100);
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("ok", "#!/bin/sh\necho fine\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    let log = mount.path().join("log");
    let mut command = world.command(&["watch"]);
    command.stderr(fs::File::create(&log).unwrap());
    let _watcher = Watching(command.spawn().unwrap());
    world.wait_until("the watcher is shown as running", || {
        !world.watcher_pids().is_empty()
    });
    let frozen = Frozen::freeze(&mount);
    let late = world.submit(&["sleeps", "--timeout", "0.3"]);
    let doomed = world.submit(&["sleeps"]);
    let fine = world.submit(&["ok"]);
    assert_eq!(world.result_of(&fine)["output"], "fine");
    assert_eq!(world.result_of(&late)["error"]["kind"], "timeout");
    world.wait_running(&doomed);
    world.run(&["cancel", &doomed.id]).succeeds();
    drop(frozen);
    // Lines that were kept in memory are written now.
    world.wait_until("it is logged", || {
        let message = fs::read_to_string(&log).unwrap();
        let ended = format!("completed task={}", fine.id);
        message.contains(&ended)
    });
}

/// On btrfs a rename needs space. Then neither the task nor a folder deep in it can be moved first. (The
/// first two renames try the claim of a killed watcher, which does not exist here.)
#[test]
fn a_deep_task_is_cleared_when_no_space_is_left_for_a_rename() {
    let world = World::new();
    world.recipe(
        "deep",
        "#!/bin/sh\ni=0; while [ $i -lt 250 ]; do mkdir d; cd d; : >f; i=$((i+1)); done\n",
    );
    let task = world.submit(&["deep"]);
    world.result_of(&task);
    world.wait_until("it is finalized", || {
        !world.path("open").join(&task.id).exists()
    });
    let clear = world.command(&["clear"]);
    let mut traced = std::process::Command::new("strace");
    traced
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(["-e", "inject=renameat2:error=ENOSPC:when=3+"])
        .arg(clear.get_program())
        .args(clear.get_args())
        .env_clear();
    for (name, value) in clear.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    crate::support::Ran::of(&mut traced).succeeds();
    assert!(world.tasks().is_empty(), "{}", world.describe());
}

/// XFS frees inodes late, so the files that are removed first leave no inode for the file that keeps the id.
#[test]
fn keeping_the_id_of_a_cleared_task_takes_no_inode() {
    let shared = crate::group::Shared::new();
    let id = shared.submit(crate::group::OWNER, &[]);
    shared.drain();
    let lock = shared.spool().join("tasks").join(&id).join("lock");
    let inode =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let lock = inode(&lock);
    shared.run(crate::group::OWNER, &["clear"]).succeeds();
    let kept = shared.spool().join(format!("trash/{id}.removed"));
    assert_eq!(inode(&kept), lock);
}
