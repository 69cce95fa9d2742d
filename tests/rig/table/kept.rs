//! A failed start whose child cannot be reaped, because a process that traces the runner keeps it.
//!
//! Not a start that hangs by itself (`table.rs`). Checked: the start is reported, the task can be cancelled,
//! and nothing is started after that.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Cell, End, Place, Sight, wait_for};
use crate::support::{Task, write_executable};

struct Start {
    cell: Cell,
    task: Task,
    runner: Child,
    keeper: Child,
}

/// A runner that is traced before it does anything.
fn start(place: &Place, recipe: &str, keeps: &str, has_cgroup: bool) -> Start {
    let cell = Cell {
        kind: "plain",
        end: End::Cancel,
        is_root: true,
        sight: Sight::Normal,
        has_cgroup,
    };
    let arguments = ["submit", "--recipe", recipe, "-q"];
    let submitted = place.command(cell, &arguments).output().unwrap();
    let id = String::from_utf8(submitted.stdout).unwrap();
    let id = id.trim().to_owned();
    let path = place.spool.join("tasks").join(&id);
    let task = Task { path, id };
    let made = place.command(cell, &["runner", "--once", &task.id]);
    let mut command = Command::new(made.get_program());
    for argument in made.get_args() {
        let argument = argument.to_str().unwrap();
        command.arg(argument.replace("exec \"$@\"", "echo >&2; read go; exec \"$@\""));
    }
    command.env_clear();
    let set = made
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .envs(set)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    command.stderr(File::create(place.log(&task.id)).unwrap());
    let mut runner = command.spawn().unwrap();
    let is_there = || !std::fs::read(place.log(&task.id)).unwrap().is_empty();
    wait_for(cell, "the runner's shell runs", is_there).unwrap();
    let ready = PathBuf::from(format!("{}.{keeps}", place.held(&task.id).display()));
    let keeper = Command::new(&place.kinds)
        .args(["keep-children", &runner.id().to_string()])
        .arg(&ready)
        .spawn()
        .unwrap();
    wait_for(cell, "it is traced", || ready.exists()).unwrap();
    runner.stdin.take().unwrap().write_all(b"\n").unwrap();
    Start {
        cell,
        task,
        runner,
        keeper,
    }
}

#[test]
fn a_failed_start_that_cannot_be_reaped_is_reported_and_can_be_cancelled() {
    let place = Place::new(true);
    let began = place.world.root().join("began");
    let recipes = place.spool.join("recipes");
    write_executable(&recipes.join("gone"), "#!/bin/sh\n");
    // The kernel does not execute a file that is open for writing.
    let _being_written = File::options()
        .append(true)
        .open(recipes.join("gone"))
        .unwrap();
    let begins = format!("#!/bin/sh\ntrap '' TERM\necho >{}\n", began.display());
    write_executable(&recipes.join("begins"), &begins);
    let starts = [
        start(&place, "gone", "dead", false),
        start(&place, "begins", "born", true),
        start(&place, "gone", "dead", false),
    ];
    for (number, start) in starts.iter().enumerate() {
        let has_started = || start.task.path.join("attempts/1/work").exists();
        wait_for(start.cell, "the attempt started", has_started).unwrap();
        if number < 2 {
            std::fs::write(start.task.path.join("cancel"), "").unwrap();
        } else {
            kill_process(Pid::from_child(&start.runner), Signal::TERM).unwrap();
        }
    }
    for (number, mut start) in starts.into_iter().enumerate() {
        let task = &start.task;
        let log = || std::fs::read_to_string(place.log(&task.id)).unwrap();
        let is_reported = || log().contains("stuck: the start of its recipe");
        wait_for(start.cell, "it is reported", is_reported).unwrap();
        assert!(!task.has_result());
        start.keeper.kill().unwrap();
        start.keeper.wait().unwrap();
        start.runner.wait().unwrap();
        if number < 2 {
            assert_eq!(task.result()["status"], "cancelled", "{}", log());
        } else {
            // The next attempt may start, and does not hang.
            assert!(!task.has_result() && task.status()["condition"].is_null());
        }
        assert!(!began.exists(), "{}", log());
    }
}
