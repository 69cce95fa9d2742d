//! A spool on a fresh file system, and the program that is measured on it.
//!
//! The environment is isolated, no command starts a watcher by itself, and all other settings are the
//! defaults. Not a test: an error ends the run with the output of the program.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cleanup;
use crate::image::{Image, Mounted, Size, place};

/// The program that is measured: the one `BENCH_PROGRAM` names (`just bench` names what `just release`
/// made, and cargo would build over), else what cargo built with this.
pub fn program() -> std::ffi::OsString {
    std::env::var_os("BENCH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_agentspool").into())
}

/// The setting of this name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Process,
    Power,
}

impl Durability {
    pub const BOTH: [Durability; 2] = [Durability::Process, Durability::Power];

    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Process => "process",
            Durability::Power => "power",
        }
    }
}

/// A spool in a folder.
pub struct Spool {
    path: PathBuf,
}

impl Spool {
    /// A new one, with the recipes `true`, `stamp` and `sleep`.
    pub fn make(path: PathBuf, durability: Durability) -> Spool {
        let spool = Spool { path };
        spool.run(&["init"]);
        spool.set("autostart", "false");
        spool.set("durability", durability.as_str());
        spool.recipe("true", r#"["/bin/true"]"#);
        spool.recipe("sleep", r#"["/bin/sleep", "1000"]"#);
        spool.recipe("stamp", r#"["./stamp"]"#);
        let to = spool.path.join("recipes/stamp/stamp");
        std::fs::copy(stamp_program(), to).expect("a recipe can be written");
        spool
    }

    /// A spool that exists already.
    pub fn at(path: PathBuf) -> Spool {
        Spool { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn recipe(&self, name: &str, command: &str) {
        let folder = self.path.join("recipes").join(name);
        std::fs::create_dir_all(&folder).expect("a recipe can be written");
        let written = std::fs::write(folder.join("recipe.toml"), format!("command = {command}\n"));
        written.expect("a recipe can be written");
    }

    pub fn set(&self, name: &str, value: &str) {
        self.run(&["config", "set", name, value]);
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments);
        self.seal(&mut command);
        command
    }

    fn seal(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/")
            .env("AGENTSPOOL_DIR", &self.path)
            .stdin(Stdio::null());
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        let output = output.expect("the program can be started");
        assert!(
            output.status.success(),
            "agentspool {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// How long the program runs with these arguments, from before its start to after its end.
    pub fn time(&self, arguments: &[&str]) -> Duration {
        let mut command = self.command(arguments);
        time(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Requests for this number of tasks of a recipe, each hundredth with a name.
    pub fn requests(&self, recipe: &str, count: usize) -> PathBuf {
        let path = self.path.with_extension("jsonl");
        let mut text = String::new();
        for n in 0..count {
            let name = match n % 100 {
                0 => format!(r#", "name": "{recipe}-{n}""#),
                _ => String::new(),
            };
            text.push_str(&format!("{{\"recipe\": \"{recipe}\"{name}}}\n"));
        }
        std::fs::write(&path, text).expect("requests can be written");
        path
    }

    /// Submits them all, and returns how long that took, and their ids.
    pub fn submit_batch(&self, recipe: &str, count: usize) -> (Duration, Vec<String>) {
        let requests = self.requests(recipe, count);
        let requests = requests.to_str().expect("a path in UTF-8");
        let begun = Instant::now();
        let output = self.run(&["submit", "--batch", requests]);
        let took = begun.elapsed();
        let ids: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        assert_eq!(ids.len(), count, "ids of a batch");
        (took, ids)
    }

    /// Runs all waiting tasks, and returns how long that took.
    pub fn drain(&self) -> Duration {
        self.time(&["watch", "--drain"])
    }

    /// A watcher that runs until the guard is dropped.
    pub fn watcher(&self) -> Process {
        let before = self.watchers();
        let watcher = self.start_watcher();
        wait_until("a watcher is running", || self.watchers() > before);
        watcher
    }

    /// The same, but it may not be running yet.
    pub fn start_watcher(&self) -> Process {
        let mut command = self.command(&["watch"]);
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn watchers(&self) -> usize {
        let names = std::fs::read_dir(self.path.join("watchers"));
        let files = names.into_iter().flatten().flatten();
        files
            .filter(|file| file.file_name().to_string_lossy().ends_with(".json"))
            .count()
    }

    pub fn task(&self, id: &str) -> PathBuf {
        self.path.join("tasks").join(id)
    }

    /// How many syncs the program and all processes that it starts make.
    pub fn syncs(&self, arguments: &[&str]) -> usize {
        let calls = self.traced(arguments);
        calls.lines().filter(|line| is_sync(line)).count()
    }

    /// The same, up to the start of the recipe `stamp`.
    pub fn syncs_before_start(&self, arguments: &[&str]) -> usize {
        let calls = self.traced(arguments);
        let is_start = |line: &&str| line.contains("execve(") && line.contains("/stamp\"");
        let before = calls.lines().take_while(|line| !is_start(line));
        before.filter(|line| is_sync(line)).count()
    }

    fn traced(&self, arguments: &[&str]) -> String {
        let log = self.path.with_extension("strace");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-s", "300", "-o"])
            .arg(&log)
            .args(["-e", "trace=fsync,fdatasync,syncfs,execve", "--"])
            .arg(program())
            .args(arguments);
        self.seal(&mut command);
        let output = command.output().expect("strace can be started");
        assert!(output.status.success(), "strace: {output:?}");
        std::fs::read_to_string(&log).expect("strace wrote its log")
    }
}

fn is_sync(line: &str) -> bool {
    let names = ["fsync(", "fdatasync(", "syncfs("];
    !line.contains("resumed>") && names.iter().any(|name| line.contains(name))
}

/// A spool and its file system.
pub struct World {
    pub spool: Spool,
    pub mounted: Mounted,
    pub image: Image,
}

impl World {
    pub fn of_size(name: &str, size: Size, durability: Durability) -> World {
        let image = Image::fresh(name, size);
        let mounted = image.mount();
        let spool = Spool::make(mounted.path().join("spool"), durability);
        World {
            spool,
            mounted,
            image,
        }
    }

    /// The spool in an image that has one.
    pub fn of(image: Image) -> World {
        let mounted = image.mount();
        let spool = Spool::at(mounted.path().join("spool"));
        World {
            spool,
            mounted,
            image,
        }
    }

    /// Unmounted and mounted again, so that the kernel has none of its files cached.
    pub fn remounted(self) -> World {
        self.mounted.unmount();
        World::of(self.image)
    }

    /// Only its image, unmounted.
    pub fn into_image(self) -> Image {
        self.mounted.unmount();
        self.image
    }
}

/// A running process, ended by TERM and waited for when the guard is dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let what = format!("{command:?}");
        let child = command.spawn();
        let child = child.unwrap_or_else(|error| panic!("failed to start {what}: {error}"));
        cleanup::note_process(child.id());
        Process(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            cleanup::end(self.0.id().cast_signed(), Signal::TERM);
            let _ = self.0.wait();
        }
        cleanup::forget_process(self.0.id());
    }
}

/// How long a program runs. It must succeed.
pub fn time(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.status();
    let took = begun.elapsed();
    let status = status.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// Waits until something is true, without measuring it.
pub fn wait_until(what: &str, mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "waited in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The program of the recipe `stamp`, built once a run.
pub fn stamp_program() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/stamp.c");
        let program = place().join("stamp");
        crate::image::run(
            Command::new("cc")
                .args(["-static", "-O1", source, "-o"])
                .arg(&program),
        );
        program
    };
    BUILT.get_or_init(build).clone()
}

/// CLOCK_MONOTONIC in nanoseconds, as the recipe `stamp` prints it.
pub fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
