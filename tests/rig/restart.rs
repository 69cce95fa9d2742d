//! The watcher is restarted and upgraded again and again while tasks run. No task is affected.
//!
//! The program is a copy in the test's world. A rename replaces it with a different file while it runs. Every
//! running task waits for a line from this test. Between two restarts a short task shows that the watcher
//! works. Not covered: systemd, which is not on every machine.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::herd::log_to_file;
use crate::scale::{self, figure};
use crate::support::processes::is_alive;
use crate::support::{PROGRAM, Task, World};

#[derive(Clone, Copy, Debug)]
enum Way {
    Term,
    Kill,
    /// The program's file is replaced first, and the old watcher keeps running from the old file for a while.
    Upgrade,
}

struct Service<'w> {
    world: &'w World,
    program: PathBuf,
    watcher: Child,
}

impl<'w> Service<'w> {
    fn start(world: &'w World) -> Service<'w> {
        let program = world.root().join("bin/agentspool");
        std::fs::create_dir(world.root().join("bin")).unwrap();
        install(&program, 0);
        let watcher = watch(world, &program);
        Service {
            world,
            program,
            watcher,
        }
    }

    fn restart(&mut self, way: Way, version: usize) {
        if matches!(way, Way::Upgrade) {
            install(&self.program, version);
            serves(self.world);
        }
        let pid = Pid::from_child(&self.watcher);
        let signal = match way {
            Way::Term | Way::Upgrade => Signal::TERM,
            Way::Kill => Signal::KILL,
        };
        kill_process(pid, signal).unwrap();
        let status = self.watcher.wait().unwrap();
        assert_eq!(status.success(), signal == Signal::TERM, "{status}");
        self.watcher = watch(self.world, &self.program);
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

/// Installs the program as an upgrade does. The bytes appended to it make it a different file, and the kernel
/// ignores them.
fn install(program: &Path, version: usize) {
    let between = program.with_extension("new");
    std::fs::copy(PROGRAM, &between).unwrap();
    let mut file = std::fs::File::options()
        .append(true)
        .open(&between)
        .unwrap();
    write!(file, "version {version}").unwrap();
    drop(file);
    std::fs::rename(between, program).unwrap();
}

fn watch(world: &World, program: &Path) -> Child {
    let sealed = world.command(&["watch"]);
    let mut command = Command::new(program);
    command.args(sealed.get_args()).env_clear();
    for (name, value) in sealed.get_envs() {
        command.env(name, value.unwrap());
    }
    command.current_dir(world.root());
    let watcher = log_to_file(world, &mut command).spawn().unwrap();
    let pid = i32::try_from(watcher.id()).unwrap();
    world.wait_until("the watcher is shown as running", || {
        world.watcher_pids().contains(&pid)
    });
    watcher
}

fn serves(world: &World) {
    let task = world.submit(&["short"]);
    assert_eq!(world.result_of(&task)["status"], "completed");
}

fn world(tasks: usize) -> World {
    let world = World::new();
    world.set("autostart", "false");
    // One slot is for the short tasks.
    world.set("max_concurrent", &(tasks + 1).to_string());
    world.recipe("short", "#!/bin/sh\nexit 0\n");
    let root = world.root().display().to_string();
    let script = format!(
        "#!/bin/sh\nread -r code\necho \"$AGENTSPOOL_TASK_ID $$\" >>'{root}/started'\n\
         read -r word <'{root}/go'\nexit $code\n"
    );
    world.recipe("long", &script);
    let fifo = world.root().join("go");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    world
}

/// The process of each task.
fn started(world: &World) -> HashMap<String, i32> {
    let text = std::fs::read_to_string(world.root().join("started")).unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines
        .map(|(id, pid)| (id.to_owned(), pid.parse().unwrap()))
        .collect()
}

fn exit_code(n: usize) -> usize {
    n % 100
}

#[test]
fn restarts_do_not_affect_running_tasks() {
    let tasks = scale::pick(20, 200);
    let restarts = scale::pick(10, 100);
    let world = world(tasks);
    let mut service = Service::start(&world);
    let running: Vec<Task> = (0..tasks)
        .map(|n| world.submit(&["long", "--input", &exit_code(n).to_string()]))
        .collect();
    world.wait_for_lines(&world.root().join("started"), tasks);
    let processes = started(&world);
    for task in &running {
        world.processes_of(task, 1);
    }
    let before: Vec<_> = running.iter().map(|task| task.run_file(1)).collect();

    for n in 0..restarts {
        service.restart([Way::Term, Way::Kill, Way::Upgrade][n % 3], n + 1);
        serves(&world);
    }

    let mut affected = 0;
    for (task, run) in running.iter().zip(&before) {
        let pid = processes[&task.id];
        let same = is_alive(pid) && run["child"]["pid"] == pid && task.run_file(1) == *run;
        let status = world.json(&["status", &task.id]);
        affected += usize::from(!same || status["status"] != "running");
    }
    assert_eq!(affected, 0, "{}", world.describe());
    // Kept open to the end, for a task that has not read its line yet.
    let mut go = std::fs::File::options()
        .read(true)
        .write(true)
        .open(world.root().join("go"))
        .unwrap();
    go.write_all("go\n".repeat(tasks).as_bytes()).unwrap();
    for (n, task) in running.iter().enumerate() {
        let result = world.result_of(task);
        let code = exit_code(n);
        assert_eq!(result["exit_code"], code, "{result}");
        assert_eq!((task.attempts(), result["attempt"].as_u64()), (1, Some(1)));
    }
    assert_eq!(started(&world), processes);
    let lines = std::fs::read_to_string(world.root().join("started")).unwrap();
    assert_eq!(lines.lines().count(), tasks, "no task started twice");
    figure("restarts", restarts);
    figure("restarts: running tasks", tasks);
    figure("restarts: tasks affected", affected);
}
