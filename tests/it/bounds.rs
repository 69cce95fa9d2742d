//! What a task writes stays under its limits, at any speed and with any change to its files.

#![expect(clippy::print_stdout, reason = "the figures that were measured")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::support::{Task, World};

const MIB: u64 = 1 << 20;

/// The largest disk usage of a file until the task ended, measured without a pause.
fn peak(task: &Task, path: &Path) -> u64 {
    let mut peak = 0;
    while !task.has_result() {
        let on_disk = std::fs::metadata(path).map_or(0, |file| file.blocks() * 512);
        peak = peak.max(on_disk);
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    peak
}

#[test]
fn a_log_takes_its_cap_and_64_mib_at_any_speed() {
    let world = World::new();
    world.set("log_cap_bytes", "1048576");
    // With more tests at once than processors the runner runs too late. Then at most a third of what is
    // written may be on disk.
    let is_crowded = std::env::var_os("RUST_TEST_THREADS").is_some();
    for (name, script, stream) in [
        (
            "zeros",
            "dd if=/dev/zero bs=1M count=3000 2>/dev/null",
            "stdout",
        ),
        (
            "lines",
            "yes a line of some length | head -c 2000000000 >&2",
            "stderr",
        ),
        // No output for longer than any check interval, then much at once, three times.
        (
            "bursts",
            "for n in 1 2 3; do sleep 0.7; dd if=/dev/zero bs=4M count=250 2>/dev/null; done",
            "stdout",
        ),
    ] {
        world.recipe(name, &format!("#!/bin/sh\n{script}\n"));
        // On a busy machine the runner may get no processor time for longer than its room lasts. This does
        // not happen three times.
        let is_kept = (0..3).any(|_| {
            let task = world.submit(&[name]);
            let path = task.path.join(format!("attempts/1/{stream}.log"));
            let peak = peak(&task, &path);
            println!("{name}: at most {} MiB of disk", peak / MIB);
            assert_eq!(world.result_of(&task)["status"], "completed");
            let left = std::fs::metadata(&path).unwrap();
            assert!(left.len() > 700 * MIB && left.blocks() * 512 <= MIB + 8192);
            peak <= if is_crowded { left.len() / 3 } else { 65 * MIB }
        });
        assert!(is_kept, "{name}");
    }
}

#[test]
fn a_progress_file_of_any_kind_takes_no_disk() {
    let world = World::new();
    // The status is read once the result exists, so each recipe must end by itself. The last report counts.
    for (name, script, progress) in [
        ("sparse", "truncate -s 1T $P", 0.0),
        (
            "sparse-line",
            "truncate -s 1T $P; echo '45 behind' >> $P",
            0.45,
        ),
        (
            "lines",
            "yes '12 still' | head -c 900000000 >> $P; echo '70 at last' >> $P",
            0.7,
        ),
        (
            "endless",
            "yes | tr -d '\\n' | head -c 300000000 >> $P; printf '\\n30 then\\n' >> $P",
            0.3,
        ),
        ("fifo", "mkfifo $P", 0.0),
        ("device", "ln -s /dev/zero $P", 0.0),
        ("folder", "mkdir $P", 0.0),
        ("again", "echo 90 >> $P; echo 20 > $P", 0.2),
    ] {
        let script = format!("#!/bin/sh\nP=$AGENTSPOOL_PROGRESS_FILE\n{script}\nexit 3\n");
        world.recipe(name, &script);
        // The second and third attempt are for a machine on which other processes delay the runner.
        let is_kept = (0..3).any(|_| {
            let task = world.submit(&[name]);
            let path = task.path.join("attempts/1/progress");
            let peak = peak(&task, &path);
            assert_eq!(world.result_of(&task)["exit_code"], 3, "{name}");
            world.wait_until("the status is final", || {
                task.status()["status"] == "failed"
            });
            assert_eq!(task.status()["progress"], progress, "{name}");
            println!("{name}: at most {} MiB of disk", peak / MIB);
            let left = std::fs::symlink_metadata(&path).unwrap().blocks() * 512;
            assert!(left <= 4 * MIB, "{name}: {left} bytes are left");
            peak <= 64 * MIB
        });
        assert!(is_kept, "{name}");
    }
}

#[test]
fn a_hard_linked_progress_file_keeps_its_content() {
    let world = World::new();
    let mine = world.root().join("mine");
    world.recipe(
        "r",
        &format!(
            "#!/bin/sh\nyes '12 mine' | head -c 20000000 > '{0}'\nln '{0}' $AGENTSPOOL_PROGRESS_FILE\nsleep 0.1\n",
            mine.display()
        ),
    );
    let task = world.submit(&["r"]);
    assert_eq!(world.result_of(&task)["status"], "completed");
    let content = std::fs::read(&mine).unwrap();
    assert_eq!(content.len(), 20_000_000);
    assert!(!content.contains(&0), "nothing was removed from it");
}

#[test]
fn a_line_now_and_then_wakes_the_runner_rarely() {
    let world = World::new();
    let go = world.root().join("go");
    world.recipe(
        "r",
        &format!(
            "#!/bin/sh\nuntil [ -e '{0}' ]; do sleep 0.01; done\nfor n in 1 2 3; do echo $n; sleep 1; done\ntouch done\nexec sleep 1000\n",
            go.display()
        ),
    );
    let task = world.submit(&["r"]);
    world.wait_running(&task);
    let (runner, _) = world.processes_of(&task, 1);
    let switches = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{runner}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = switches();
    std::fs::write(go, "").unwrap();
    world.wait_for_file(&task.work(1, "done"));
    let woken = switches() - before;
    println!("woken {woken} times in 3 s");
    assert!(woken <= 20, "woken {woken} times in 3 s by three lines");
    world.run(&["cancel", &task.id]).succeeds();
    assert_eq!(task.result()["status"], Value::from("cancelled"));
}
