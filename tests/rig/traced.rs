//! The real program under strace: the calls it makes, and a run in which one of them is killed or fails.
//!
//! Not the tests that use this (`kill/`, `errno.rs`). strace injects before the call, so the call itself is
//! not executed. Every run has a time limit far beyond what a busy machine needs: a program that hangs is a
//! failure and not a test that never ends.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Ran, World};

/// Calls that change files, locks or processes. strace ignores a name that this kernel does not have because
/// of its `?`.
pub const CHANGING: [&str; 36] = [
    "openat",
    "mkdirat",
    "mkdir",
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "flock",
    "rename",
    "renameat",
    "renameat2",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "fchownat",
    "utimensat",
    "clone",
    "clone3",
    "vfork",
    "setsid",
    "kill",
    "pidfd_send_signal",
    "wait4",
    "waitid",
    "inotify_add_watch",
];

/// Those of them that are repeated until a process has exited.
const UNTIL_TRUE: [&str; 4] = ["kill", "pidfd_send_signal", "wait4", "waitid"];

/// The longest time for a victim, in seconds: as long as any wait of these tests.
const LIMIT: &str = "60";
/// The exit code of `timeout` when the limit was reached.
const LIMIT_REACHED: i32 = 124;

/// A run of the program: its arguments and its input.
#[derive(Clone, Debug, Default)]
pub struct Victim {
    pub arguments: Vec<String>,
    pub stdin: String,
    /// Whether the processes it starts are traced as well. Each process counts its own calls.
    pub with_children: bool,
}

/// One boundary: before the n-th call of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub call: String,
    pub n: usize,
}

/// The program under strace with these options, for a test that starts it and continues. Not `-f`: the recipe
/// and other helpers are not the victim.
pub fn under_strace(world: &World, arguments: &[&str], options: &[String]) -> Command {
    let sealed = world.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-qq"]).args(options).arg("--");
    command.arg(sealed.get_program()).args(sealed.get_args());
    let set = sealed
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command
        .env_clear()
        .envs(set)
        .current_dir(world.root())
        .stdin(Stdio::null());
    command
}

impl Victim {
    pub fn of(arguments: &[&str]) -> Victim {
        Victim {
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            ..Victim::default()
        }
    }

    pub fn reading(mut self, stdin: impl Into<String>) -> Victim {
        self.stdin = stdin.into();
        self
    }

    pub fn with_children(mut self) -> Victim {
        self.with_children = true;
        self
    }

    /// Runs it once with these expressions for strace's `-e`.
    #[track_caller]
    pub fn run(&self, world: &World, log: Option<&PathBuf>, expressions: &[String]) -> Ran {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let sealed = world.command(&arguments);
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", LIMIT, "strace"]);
        // A single process is judged by its exit code. For several processes strace reports how each of them
        // ended.
        command.arg(if self.with_children { "-fq" } else { "-qq" });
        let nowhere = PathBuf::from("/dev/null");
        command.arg("-o").arg(log.unwrap_or(&nowhere));
        for expression in expressions {
            command.args(["-e", expression]);
        }
        command.arg("--").arg(sealed.get_program()).args(&arguments);
        command.env_clear().envs(
            sealed
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let input = world.root().join("stdin");
        std::fs::write(&input, &self.stdin).unwrap();
        command
            .current_dir(world.root())
            .stdin(Stdio::from(std::fs::File::open(input).unwrap()));
        let ran = Ran::of(&mut command);
        assert_ne!(ran.code, LIMIT_REACHED, "it hangs: {expressions:?}");
        ran
    }

    /// Kills it before this call. Returns whether it reached the call.
    #[track_caller]
    pub fn kill_at(&self, world: &World, point: &Point) -> Ran {
        let inject = format!("inject={}:signal=KILL:when={}", point.call, point.n);
        let log = killing_log(world);
        self.run(
            world,
            Some(&log),
            &[format!("trace={}", point.call), inject],
        )
    }

    /// The boundaries of one whole run among these calls, by call and number. An `openat` counts if `keeps`
    /// accepts its line.
    #[track_caller]
    pub fn points(&self, world: &World, calls: &[&str], keeps: fn(&str) -> bool) -> Vec<Point> {
        let log = world.root().join("strace.log");
        let names: Vec<String> = calls.iter().map(|call| format!("?{call}")).collect();
        self.run(world, Some(&log), &[format!("trace={}", names.join(","))])
            .succeeds();
        let text = std::fs::read_to_string(&log).unwrap();
        let mut counts = std::collections::HashMap::new();
        let mut asked = std::collections::HashSet::new();
        let mut points = Vec::new();
        for line in text.lines() {
            let (process, line) = if self.with_children {
                line.split_once(' ').unwrap()
            } else {
                ("", line)
            };
            let Some((call, rest)) = line.trim_start().split_once('(') else {
                continue;
            };
            if !calls.contains(&call) {
                continue;
            }
            let n: &mut usize = counts.entry((process, call)).or_default();
            *n += 1;
            // Repeated until it succeeds: the number of calls depends on the machine, and the boundary is the
            // same.
            let is_until = UNTIL_TRUE.contains(&call) || is_cgroup_control(call, rest);
            let is_again = is_until && !asked.insert(line.to_owned());
            if !is_again && (call != "openat" || keeps(rest)) {
                points.push(Point {
                    call: call.to_owned(),
                    n: *n,
                });
            }
        }
        points.sort();
        points.dedup();
        points
    }
}

/// Whether it writes a control file of a cgroup. That is repeated until the cgroup is empty.
fn is_cgroup_control(call: &str, rest: &str) -> bool {
    call == "write" && (rest.contains(", \"1\", 1)") || rest.contains(", \"0\", 1)"))
}

/// What strace reported in the last run with a kill.
fn killing_log(world: &World) -> PathBuf {
    world.root().join("killing.log")
}

/// Whether any process of the last traced victim was killed.
pub fn killed_any(world: &World) -> bool {
    let text = std::fs::read_to_string(killing_log(world)).unwrap_or_default();
    text.contains("+++ killed by SIGKILL")
}

/// An `openat` in the spool, not one of the loader and not a read of /proc.
pub fn is_in_the_spool(line: &str) -> bool {
    !["\"/proc", "\"/lib", "\"/usr", "\"/etc", "\"/dev", "\"/sys"]
        .iter()
        .any(|elsewhere| line.contains(elsewhere))
}

/// An `openat` that creates a file.
pub fn creates(line: &str) -> bool {
    line.contains("O_CREAT")
}

/// None of them, for a victim whose opens in /proc change the numbers from run to run.
pub fn none(_: &str) -> bool {
    false
}

/// Calls `work` for every item, on as many threads as there are processors, at least two.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(2) {
            scope.spawn(|| {
                while let Some(item) =
                    items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let result = work(item);
                    done.lock().unwrap().push(result);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// The outcome of a point: how far it was tried, and the violation if one was found.
pub fn violation(what: &str, check: impl FnOnce()) -> Option<String> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    let panic = caught.err()?;
    let message = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()))
        .unwrap_or_default();
    Some(format!("{what}: {message}"))
}
