//! A sealed world for one test: its own spool, HOME and environment, and the real binary in it.
//!
//! Tests wait for facts and never for time ([`World::wait_until`]). If a test fails, the spool's tree and the
//! watcher's log are printed; with `KEEP_SPOOL=1` the folder is kept. At the end of the world all processes
//! that the test started are killed.
#![allow(dead_code, reason = "each test binary uses a part of this")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests"
)]

pub mod fuzzed;
pub mod invariants;
pub mod marker;
pub mod terminal;

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod processes;

/// The program: the one that cargo built, or the one named when the tests were built.
pub const PROGRAM: &str = match option_env!("TEST_PROGRAM") {
    Some(named) => named,
    None => env!("CARGO_BIN_EXE_agentspool"),
};
/// The limit of every wait: far longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A spool and everything around it.
pub struct World {
    folder: Option<tempfile::TempDir>,
    root: PathBuf,
    spool: PathBuf,
    watchers: std::sync::Mutex<Vec<Child>>,
}

/// The exit code and the output of a command.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

/// A command that runs while the test continues.
pub struct Started {
    child: Child,
    what: String,
}

/// A task's folder, read as any other program would read it.
pub struct Task {
    pub path: PathBuf,
    pub id: String,
}

impl World {
    /// An empty spool without recipes. Its watchers rescan often, so that a change that only a rescan finds
    /// does not make a test slow. All other settings are the defaults.
    pub fn new() -> World {
        let world = World::without_spool();
        world.run(&["init"]).succeeds();
        world.set("rescan_sec", "0.3");
        world
    }

    /// The repository's own ready spool, copied.
    pub fn with_samples() -> World {
        let world = World::without_spool();
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/spool");
        copy_tracked(Path::new(from), &world.spool);
        world
    }

    /// A world with a path for a spool, but without the spool.
    pub fn without_spool() -> World {
        let folder = tempfile::Builder::new()
            .prefix("agentspool-test-")
            .tempdir()
            .unwrap();
        World::in_folder(folder.path().to_owned(), Some(folder))
    }

    /// A world in a folder that the caller removes, for example a mount.
    pub fn at(root: &Path) -> World {
        World::in_folder(root.to_owned(), None)
    }

    fn in_folder(root: PathBuf, folder: Option<tempfile::TempDir>) -> World {
        let root = root.canonicalize().unwrap();
        std::fs::create_dir_all(root.join("home")).unwrap();
        let spool = root.join("spool");
        World {
            folder,
            root,
            spool,
            watchers: std::sync::Mutex::default(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn spool(&self) -> &Path {
        &self.spool
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.spool.join(relative)
    }

    /// The program with a sealed environment, on this world's spool.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .env("HOME", self.root.join("home"))
            .env("AGENTSPOOL_DIR", &self.spool)
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Starts a command and does not wait for its end.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Started {
            child: command.spawn().unwrap(),
            what: format!("{command:?}"),
        }
    }

    /// Like `run`, with these bytes on stdin.
    pub fn run_with_stdin(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_owned();
        let writer = std::thread::spawn(move || pipe.write_all(&stdin));
        let output = child.wait_with_output().unwrap();
        // A command that refuses its input need not have read all of it.
        let _ = writer.join().unwrap();
        Ran::from_output(output, &format!("{command:?}"))
    }

    /// The JSON object that a command prints with `--json`. The exit code is not checked.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        self.run(&all).json()
    }

    /// Writes a setting into spool.json.
    pub fn set(&self, key: &str, value: &str) {
        self.run(&["config", "set", key, value]).succeeds();
    }

    /// Submits a task and returns it. Starts a watcher, as for users, unless `autostart` is off.
    pub fn submit(&self, arguments: &[&str]) -> Task {
        let mut all = vec!["submit", "--recipe"];
        all.extend(arguments);
        let object = self.json(&all);
        assert_eq!(object["ok"], true, "{object}");
        self.task(object["task_id"].as_str().unwrap())
    }

    pub fn task(&self, id: &str) -> Task {
        Task {
            path: self.path("tasks").join(id),
            id: id.to_owned(),
        }
    }

    /// All tasks, oldest first.
    pub fn tasks(&self) -> Vec<Task> {
        let mut ids = names_in(&self.path("tasks"));
        ids.sort();
        ids.iter().map(|id| self.task(id)).collect()
    }

    pub fn only_task(&self) -> Task {
        let mut tasks = self.tasks();
        assert_eq!(tasks.len(), 1, "{}", self.describe());
        tasks.remove(0)
    }

    /// A recipe of one executable file. `script` includes the `#!` line.
    pub fn recipe(&self, name: &str, script: &str) {
        write_executable(&self.path("recipes").join(name), script);
    }

    /// A recipe folder: `toml` is its recipe.toml without `command`, which runs `script`.
    pub fn recipe_folder(&self, name: &str, toml: &str, script: &str) {
        let folder = self.path("recipes").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = format!("command = [\"./run.sh\"]\n{toml}\n");
        std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
        write_executable(&folder.join("run.sh"), script);
    }

    /// Puts a file into the drop box as a careful program does: with a rename.
    pub fn drop_in(&self, name: &str, content: &str) {
        let between = self.path("incoming").join(format!(".{name}.tmp"));
        std::fs::write(&between, content).unwrap();
        std::fs::rename(between, self.path("incoming").join(name)).unwrap();
    }

    /// Starts a watcher that belongs to the test and waits until its file is there. Returns its pid.
    pub fn start_watcher(&self) -> u32 {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.join("watch.log"))
            .unwrap();
        let child = self
            .command(&["watch"])
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let pid = child.id();
        self.watchers.lock().unwrap().push(child);
        self.wait_until("the watcher is seen", || {
            self.watcher_pids().contains(&i32::try_from(pid).unwrap())
        });
        pid
    }

    /// Kills a watcher that this world started, and reaps it.
    pub fn kill_watcher(&self, pid: u32) {
        let mut watchers = self.watchers.lock().unwrap();
        let child = watchers.iter_mut().find(|child| child.id() == pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The pids in the watcher files, of running and of killed watchers.
    pub fn watcher_pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for name in names_in(&self.path("watchers")) {
            if name.ends_with(".json") && !name.starts_with('.') {
                let text = std::fs::read_to_string(self.path("watchers").join(name));
                let value = text
                    .ok()
                    .and_then(|text| serde_json::from_str::<Value>(&text).ok());
                pids.extend(value.and_then(|value| Some(value["pid"].as_i64()? as i32)));
            }
        }
        pids
    }

    /// Every process of this world: watchers, runners, sweeps and the processes of recipes.
    pub fn processes(&self) -> Vec<(i32, String)> {
        processes_mentioning(self.root.to_str().unwrap())
    }

    /// Waits for a fact. After the limit it fails with the tree of the spool.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut fact: impl FnMut() -> bool) {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !fact() {
            assert!(
                started.elapsed() < PATIENCE,
                "waited {PATIENCE:?} without success until {what}\n{}",
                self.describe()
            );
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Waits until a task has a result and returns it.
    #[track_caller]
    pub fn result_of(&self, task: &Task) -> Value {
        self.wait_until(&format!("{} has a result", task.id), || {
            task.path.join("result.json").exists()
        });
        task.result()
    }

    /// Waits until a task's attempt runs: the status is `running`, and the process was started.
    #[track_caller]
    pub fn wait_running(&self, task: &Task) {
        self.wait_until(&format!("{} runs", task.id), || {
            let status = self.json(&["status", &task.id]);
            let run = format!("attempts/{}/run.json", status["attempt"]);
            status["status"] == "running" && task.path.join(run).exists()
        });
    }

    /// Waits until a file exists and has at least this many lines. Returns its text.
    #[track_caller]
    pub fn wait_for_lines(&self, path: &Path, lines: usize) -> String {
        let mut text = String::new();
        self.wait_until(&format!("{} has {lines} lines", path.display()), || {
            text = std::fs::read_to_string(path).unwrap_or_default();
            text.lines().count() >= lines
        });
        text
    }

    /// The tree of the spool and the logs of its watchers.
    pub fn describe(&self) -> String {
        let mut text = format!("spool {}:\n", self.spool.display());
        tree(&self.spool, &self.spool, &mut text);
        for log in [self.path("watchers/log"), self.root.join("watch.log")] {
            if let Ok(content) = std::fs::read_to_string(&log) {
                let _ = write!(text, "--- {}\n{content}", log.display());
            }
        }
        for (pid, command) in self.processes() {
            let _ = writeln!(text, "process {pid}: {command}");
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
        // Watchers first, so that they start nothing again; then their runners and tasks.
        for _ in 0..3 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for (pid, _) in left {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for child in self.watchers.get_mut().unwrap() {
            let _ = child.wait();
        }
        if std::env::var_os("KEEP_SPOOL").is_some()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("kept: {}", folder.keep().display());
        }
    }
}

impl Task {
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    pub fn request(&self) -> Value {
        read_json(&self.path.join("request.json"))
    }

    pub fn status(&self) -> Value {
        read_json(&self.path.join("status.json"))
    }

    pub fn result(&self) -> Value {
        read_json(&self.path.join("result.json"))
    }

    pub fn has_result(&self) -> bool {
        self.path.join("result.json").exists()
    }

    /// The number of attempts that were started.
    pub fn attempts(&self) -> usize {
        let names = names_in(&self.path.join("attempts"));
        names
            .iter()
            .filter(|name| name.parse::<u32>().is_ok())
            .count()
    }

    /// Processes that have this task's id in their environment.
    pub fn processes(&self) -> Vec<i32> {
        let entry = format!("AGENTSPOOL_TASK_ID={}", self.id);
        all_pids()
            .into_iter()
            .filter(|pid| environ(*pid).split('\0').any(|v| v == entry))
            .collect()
    }
}

impl Started {
    /// Sends the signal of Ctrl-C.
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Whether the process catches Ctrl-C by now instead of being ended by it.
    pub fn catches_interrupts(&self) -> bool {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let bits = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        let bit = 1 << (rustix::process::Signal::INT.as_raw() - 1);
        bits.is_some_and(|bits| bits & bit != 0)
    }

    pub fn end(self) -> Ran {
        Ran::from_output(self.child.wait_with_output().unwrap(), &self.what)
    }
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        let what = format!("{command:?}");
        Ran::from_output(command.output().unwrap(), &what)
    }

    fn from_output(output: Output, what: &str) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let code = output
            .status
            .code()
            .unwrap_or_else(|| 128 + output.status.signal().unwrap());
        Ran {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            what: what.to_owned(),
        }
    }

    #[track_caller]
    pub fn succeeds(&self) -> &Ran {
        self.ends_with(0)
    }

    #[track_caller]
    pub fn ends_with(&self, code: i32) -> &Ran {
        assert_eq!(
            self.code, code,
            "{}\nstdout: {}\nstderr: {}",
            self.what, self.stdout, self.stderr
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "no JSON ({error}): {}\nstdout: {}\nstderr: {}",
                self.what, self.stdout, self.stderr
            )
        })
    }
}

pub fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}: {text}", path.display()))
}

pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    listing
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

pub fn write_executable(path: &Path, script: &str) {
    // Written at another path and moved: a concurrent fork could hold a file open for writing that is about
    // to be executed (ETXTBSY).
    let between = path.with_extension("new");
    std::fs::write(&between, script).unwrap();
    std::fs::set_permissions(&between, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(between, path).unwrap();
}

/// Copies the files of the repository's spool that git tracks. The rest may belong to a running spool.
fn copy_tracked(from: &Path, to: &Path) {
    const TRACKED: [&str; 6] = [
        "README.md",
        "spool.json",
        "recipes",
        "schema",
        "examples",
        ".gitignore",
    ];
    std::fs::create_dir_all(to).unwrap();
    for name in TRACKED {
        copy(&from.join(name), &to.join(name));
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for name in names_in(from) {
            copy(&from.join(&name), &to.join(&name));
        }
    } else if from.exists() {
        std::fs::copy(from, to).unwrap();
    }
}

fn tree(root: &Path, folder: &Path, text: &mut String) {
    let mut names = names_in(folder);
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let relative = path.strip_prefix(root).unwrap().display().to_string();
        let metadata = std::fs::symlink_metadata(&path);
        match metadata {
            Ok(metadata) if metadata.is_dir() => {
                let _ = writeln!(text, "  {relative}/");
                if relative != "recipes" && relative != "schema" {
                    tree(root, &path, text);
                }
            }
            Ok(metadata) => {
                let _ = writeln!(text, "  {relative} ({} bytes)", metadata.len());
                if name.ends_with(".json") && metadata.len() < 2000 {
                    let content = std::fs::read_to_string(&path).unwrap_or_default();
                    let _ = writeln!(text, "      {}", content.replace('\n', "\n      "));
                }
            }
            Err(error) => {
                let _ = writeln!(text, "  {relative}: {error}");
            }
        }
    }
}

pub fn all_pids() -> Vec<i32> {
    names_in(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

fn environ(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Running processes whose arguments or environment mention a path of this world.
fn processes_mentioning(path: &str) -> Vec<(i32, String)> {
    let me = std::process::id() as i32;
    let mut found = Vec::new();
    for pid in all_pids() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'));
        if pid == me || is_zombie {
            continue;
        }
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(path) || environ(pid).contains(path) {
            found.push((pid, command));
        }
    }
    found
}
