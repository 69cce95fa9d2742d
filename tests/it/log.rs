//! Our own log: it blocks no process when it is not read, and it stays short while a watcher runs.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use crate::support::terminal::pair;
use crate::support::{PROGRAM, World};

/// Writes until nothing more fits.
fn fill(fd: impl AsFd) {
    let before = rustix::fs::fcntl_getfl(&fd).unwrap();
    rustix::fs::fcntl_setfl(&fd, before | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&fd, b"this blocks later writes\n").is_ok() {}
    while rustix::io::write(&fd, b"\n").is_ok() {}
    rustix::fs::fcntl_setfl(&fd, before).unwrap();
}

fn watch(world: &World, stderr: OwnedFd) -> Child {
    let child = world
        .command(&["watch"])
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr))
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    world.wait_until("the watcher is seen", || {
        world.watcher_pids().contains(&pid)
    });
    child
}

/// The watcher and its runners do all their work although writes to their stderr block.
fn works(world: &World) {
    let late = world.submit(&["sleeps", "--timeout", "0.3"]);
    let doomed = world.submit(&["sleeps"]);
    let fine = world.submit(&["works"]);
    assert_eq!(world.result_of(&late)["error"]["kind"], "timeout");
    assert_eq!(world.result_of(&fine)["output"], "fine");
    world.wait_running(&doomed);
    world.run(&["cancel", &doomed.id]).succeeds();
    assert_eq!(doomed.result()["status"], "cancelled");
    // Removed by the watcher's own sweep, which logs each removal.
    world.set("cleanup_delay_sec", "0");
    world.wait_until("the task is swept", || !fine.path.exists());
    world
        .run(&["config", "unset", "cleanup_delay_sec"])
        .succeeds();
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("cancel_grace_sec", "0");
    world.set("sweep_every_sec", "1");
    world.recipe("works", "#!/bin/sh\necho fine\n");
    world.recipe("sleeps", "#!/bin/sh\nexec sleep 1000\n");
    world
}

/// Reads the log while tasks run, until it has the count of dropped lines.
fn wait_for_the_count(world: &World, mut log: impl Read + Send + 'static) {
    let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let read = std::sync::Arc::clone(&text);
    std::thread::spawn(move || {
        let mut piece = [0u8; 4096];
        while let Ok(length @ 1..) = log.read(&mut piece) {
            read.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    });
    world.wait_until("the count of dropped lines is logged", || {
        let task = world.submit(&["works"]);
        world.result_of(&task);
        let text = text.lock().unwrap();
        String::from_utf8_lossy(&text).contains(" dropped_lines=")
    });
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_pipe_that_is_not_read_blocks_no_process() {
    let world = world();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    fill(&writer);
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    let child = watch(&world, writer.try_clone().unwrap());
    works(&world);
    assert_eq!(
        rustix::fs::fcntl_getfl(&writer).unwrap(),
        flags,
        "the flags that others share do not change"
    );
    drop(writer);
    wait_for_the_count(&world, File::from(reader));
    end(child);
}

#[test]
fn a_stopped_terminal_blocks_no_process() {
    let world = world();
    let (screen, terminal) = pair(80);
    // The effect of Ctrl-S.
    rustix::termios::tcflow(&terminal, rustix::termios::Action::OOff).unwrap();
    let child = watch(&world, terminal.try_clone().unwrap());
    works(&world);
    rustix::termios::tcflow(&terminal, rustix::termios::Action::OOn).unwrap();
    wait_for_the_count(&world, File::from(screen));
    end(child);
}

/// `watch &` in a shell, after `stty tostop`.
#[test]
fn a_terminal_that_stops_background_writers_stops_no_process() {
    let world = world();
    world.recipe("ignores", "#!/bin/sh\ngrep ^SigIgn /proc/self/status\n");
    let (_screen, terminal) = pair(80);
    let script = format!("stty tostop; set -m; '{PROGRAM}' watch & wait");
    let mut shell = std::process::Command::new("setsid")
        .args(["--ctty", "sh", "-c", &script])
        .env("AGENTSPOOL_DIR", world.spool())
        .stdin(Stdio::from(terminal.try_clone().unwrap()))
        .stdout(Stdio::from(terminal.try_clone().unwrap()))
        .stderr(Stdio::from(terminal))
        .spawn()
        .unwrap();
    works(&world);
    let task = world.submit(&["ignores"]);
    // The signal still stops the recipe, as any other program.
    let result = world.result_of(&task);
    let mask = result["output"].as_str().unwrap().rsplit('\t').next();
    let mask = u64::from_str_radix(mask.unwrap(), 16).unwrap();
    let terminal_output = rustix::process::Signal::TTOU.as_raw();
    assert_eq!(mask & (1 << (terminal_output - 1)), 0, "{mask:x}");
    let watcher = world.watcher_pids()[0];
    let watcher = rustix::process::Pid::from_raw(watcher).unwrap();
    rustix::process::kill_process(watcher, rustix::process::Signal::TERM).unwrap();
    shell.wait().unwrap();
}

#[test]
fn a_full_socket_blocks_no_process() {
    let world = world();
    let (ours, other) = UnixStream::pair().unwrap();
    fill(&other);
    let child = watch(&world, OwnedFd::from(other));
    works(&world);
    wait_for_the_count(&world, ours);
    end(child);
}

#[test]
fn a_fifo_without_a_reader_blocks_no_process() {
    let world = world();
    let path = world.root().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    // Opened for both, because a FIFO without a reader cannot be opened. The reading end is closed later.
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let writer = rustix::fs::open(&path, OFlags::WRONLY, Mode::empty()).unwrap();
    fill(&writer);
    let child = watch(&world, writer);
    works(&world);
    drop(both);
    works(&world);
    end(child);
}

#[test]
fn a_repeated_sweep_is_not_blocked_by_its_stdout() {
    let world = world();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    fill(&writer);
    let child = world
        .command(&["sweep", "--every", "1s"])
        .stdout(Stdio::from(writer.try_clone().unwrap()))
        .stderr(Stdio::from(writer))
        .spawn()
        .unwrap();
    world.set("cleanup_delay_sec", "0");
    for _ in 0..2 {
        let task = world.submit(&["works"]);
        world.run(&["watch", "--drain"]).succeeds();
        world.wait_until("it is swept", || !task.path.exists());
    }
    drop(reader);
    end(child);
}

#[test]
fn the_log_of_a_running_watcher_stays_short() {
    let world = World::new();
    world.recipe("works", "#!/bin/sh\n");
    let task = world.submit(&["works"]);
    world.result_of(&task);
    let log = world.path("watchers/log");
    let size = |name: &str| std::fs::metadata(world.path(name)).map_or(0, |file| file.len());
    // As a runner with much output would: line by line, at its end.
    let line = format!("{}\n", "x".repeat(199));
    let mut most = 0;
    for _ in 0..8 {
        let mut file = File::options().append(true).open(&log).unwrap();
        let before = size("watchers/log.1");
        for _ in 0..6000 {
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
        // A task wakes the watcher. While the log grows, the watcher checks it by itself.
        let task = world.submit(&["works"]);
        world.result_of(&task);
        world.wait_until("it is short again", || {
            most = most.max(size("watchers/log.1"));
            size("watchers/log") < 1 << 20 && (before > 0 || size("watchers/log.1") > 0)
        });
    }
    assert!(most <= (1 << 20) + 4096, "{most}");
    let old = std::fs::read_to_string(world.path("watchers/log.1")).unwrap();
    assert!(old.starts_with('x') && old.ends_with('\n'));
    // New lines are still written to the log, and not after a hole.
    let id = world.submit(&["works"]).id;
    world.wait_until("the task is logged", || {
        let text = std::fs::read(&log).unwrap();
        assert!(!text.contains(&0));
        let message = |text: &[u8]| String::from_utf8_lossy(text).contains(&id);
        message(&text) || message(&std::fs::read(world.path("watchers/log.1")).unwrap())
    });
    assert_eq!(world.json(&["status", &id])["condition"], Value::Null);
}
