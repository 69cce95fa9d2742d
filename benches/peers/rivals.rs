//! The peers, each with a queue of its own in a folder: how a task is given to them, how fast they are.
//!
//! They run as their manuals describe, five tasks at once if they can, with the output kept as they keep it
//! by default. None of them can survive a power cut, so that is not measured. What they cannot do is stated
//! with the figure (nq runs one task at a time; HyperQueue's wheel has no command line). Invariant: a rival
//! that is dropped leaves no process behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::image::place;
use crate::world::{Process, stamp_program, time, wait_until};

/// Where `benches/prepare` put the tools that are not Debian packages.
pub fn tools() -> PathBuf {
    place().with_file_name("bench-tools")
}

/// A peer that has a command line.
pub trait Rival {
    fn name(&self) -> &'static str;

    /// The command that gives it a task.
    fn submission(&self, task: &[&str]) -> Command;

    /// Waits until all its tasks are done.
    fn finish(&self);

    /// Tasks of `true` a second, from the first submission to the last end.
    fn rate(&self, count: usize) -> f64 {
        let begun = Instant::now();
        for _ in 0..count {
            time(&mut self.submission(&["/bin/true"]));
        }
        self.finish();
        count as f64 / begun.elapsed().as_secs_f64()
    }
}

fn sealed(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// task-spooler, `tsp`.
pub struct TaskSpooler {
    folder: PathBuf,
}

impl TaskSpooler {
    pub fn start(folder: PathBuf) -> TaskSpooler {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let rival = TaskSpooler { folder };
        time(rival.tsp().args(["-S", "5"]));
        rival
    }

    fn tsp(&self) -> Command {
        let mut command = sealed("tsp");
        command
            .env("TS_SOCKET", self.folder.join("socket"))
            .env("TMPDIR", &self.folder);
        command
    }
}

impl Rival for TaskSpooler {
    fn name(&self) -> &'static str {
        "task-spooler"
    }

    fn submission(&self, task: &[&str]) -> Command {
        let mut command = self.tsp();
        command.args(task);
        command
    }

    fn finish(&self) {
        // A task that needs all five slots comes after all others.
        time(self.tsp().args(["-N", "5", "/bin/true"]));
        time(self.tsp().arg("-w"));
    }
}

impl Drop for TaskSpooler {
    fn drop(&mut self) {
        let _ = self.tsp().arg("-K").status();
    }
}

/// nq: one task after the other.
pub struct Nq {
    folder: PathBuf,
}

impl Nq {
    pub fn start(folder: PathBuf) -> Nq {
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        Nq { folder }
    }
}

impl Rival for Nq {
    fn name(&self) -> &'static str {
        "nq"
    }

    fn submission(&self, task: &[&str]) -> Command {
        let mut command = sealed("nq");
        command.env("NQDIR", &self.folder).args(task);
        command
    }

    fn finish(&self) {
        time(&mut self.submission(&["-w"]));
    }
}

impl Drop for Nq {
    fn drop(&mut self) {
        let _ = self.submission(&["-w"]).status();
    }
}

/// pueue and its daemon.
pub struct Pueue {
    folder: PathBuf,
    _daemon: Process,
}

impl Pueue {
    pub fn start(folder: PathBuf) -> Pueue {
        for part in ["data", "run"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder can be made");
        }
        let settings = format!(
            "client: {{}}\ndaemon: {{}}\nshared:\n  pueue_directory: {0}/data\n  runtime_directory: {0}/run\n  use_unix_socket: true\n",
            folder.display()
        );
        std::fs::write(folder.join("pueue.yml"), settings).expect("settings can be written");
        let mut daemon = Pueue::program(&folder, "pueued");
        let rival = Pueue {
            _daemon: Process::start(&mut daemon),
            folder,
        };
        wait_until("pueued answers", || {
            let asked = rival.pueue(&["status"]).status();
            asked.is_ok_and(|status| status.success())
        });
        time(&mut rival.pueue(&["parallel", "5"]));
        rival
    }

    fn program(folder: &Path, name: &str) -> Command {
        let mut command = sealed(tools().join("bin").join(name));
        command.arg("-c").arg(folder.join("pueue.yml"));
        command
    }

    fn pueue(&self, arguments: &[&str]) -> Command {
        let mut command = Pueue::program(&self.folder, "pueue");
        command.args(arguments);
        command
    }

    /// No task is started until the queue is released.
    pub fn pause(&self) {
        time(&mut self.pueue(&["pause"]));
    }

    /// When the last task ended, by its own record: its `wait` checks only every two seconds.
    fn last_end(&self) -> jiff::Timestamp {
        let mut asked = self.pueue(&["status", "--json"]);
        let output = asked.stdout(Stdio::piped()).output();
        let output = output.expect("pueue can be started");
        let status: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("pueue prints JSON");
        let tasks = status["tasks"].as_object().expect("tasks of pueue");
        let ends = tasks.values().map(|task| {
            let end = task["status"]["Done"]["end"].as_str();
            end.and_then(|end| end.parse().ok()).expect("an end")
        });
        ends.max().expect("a task")
    }
}

impl Rival for Pueue {
    fn name(&self) -> &'static str {
        "pueue"
    }

    fn submission(&self, task: &[&str]) -> Command {
        let mut command = self.pueue(&["add", "--"]);
        command.args(task);
        command
    }

    fn finish(&self) {
        time(&mut self.pueue(&["wait", "--all"]));
    }

    /// Queued beforehand, as for agentspool.
    fn rate(&self, count: usize) -> f64 {
        self.pause();
        for _ in 0..count {
            time(&mut self.submission(&["/bin/true"]));
        }
        let begun = jiff::Timestamp::now();
        time(&mut self.pueue(&["start"]));
        self.finish();
        let took = self.last_end().duration_since(begun);
        count as f64 / took.as_secs_f64()
    }
}

/// HyperQueue by its Python package: tasks a second from the submission of all to the last end.
pub fn hyperqueue_rate(folder: &Path, count: usize, mode: &str) -> f64 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/hq.py");
    let output = Command::new("python3")
        .env("PYTHONPATH", tools().join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .arg(stamp_program())
        .arg(folder)
        .args([&count.to_string(), mode])
        .output()
        .expect("python3 can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    let message = text
        .lines()
        .last()
        .and_then(|line| line.parse::<f64>().ok());
    let took = message.unwrap_or_else(|| panic!("HyperQueue: {output:?}"));
    count as f64 / took
}
