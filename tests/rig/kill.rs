//! kill -9 in front of every system call that changes a file, then one recovery, then the truth.
//!
//! `strace` delivers the signal before the call is executed, so every boundary between two changes
//! is met. A first run without a kill counts the calls. Small on purpose: one victim at a time, one
//! recovery, which is not killed itself.

use std::path::PathBuf;
use std::process::Command;

use agentspool::task::TaskId;

use crate::scale;
use crate::support::invariants::{self, Known, Results};
use crate::support::{Ran, World, names_in};

/// What changes a file or a lock. `openat` counts where it creates.
const CHANGING: [&str; 18] = [
    "openat",
    "mkdirat",
    "write",
    "pwrite64",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "flock",
    "renameat",
    "renameat2",
    "symlinkat",
    "unlinkat",
    "fchmodat",
    "fchownat",
    "clone",
    "clone3",
    "vfork",
];

/// One boundary: in front of the n-th call of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    call: String,
    n: usize,
}

/// The victim: what is there before, and what is killed.
struct Scenario {
    /// Makes the world the victim acts in; gives the victim's arguments.
    prepare: fn(&World) -> Vec<String>,
    /// Whether the victim's output names a task that was accepted.
    acknowledges: bool,
    /// How many attempts a task may have made.
    most_attempts: usize,
    /// It looks through /proc, so that the number of its `openat` says nothing the next time.
    scans_processes: bool,
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    let ledger = world.root().join("ledger");
    let script = format!(
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT\" >> '{}'\ncat\n",
        ledger.display()
    );
    world.recipe("echo", &script);
    // Hints and tasks are compared once a boot: done here, so that no later watcher mends by that
    // what a kill left without its hint.
    world.run(&["watch", "--drain"]).succeeds();
    assert!(world.path("open/.boot").exists());
    world
}

fn traced(world: &World, arguments: &[String], strace: &[String]) -> Ran {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ran::of(&mut under_strace(world, &arguments, strace))
}

/// The program under strace. Not `-f`: the recipe and other helpers are not the victim.
pub fn under_strace(world: &World, arguments: &[&str], strace: &[String]) -> Command {
    let sealed = world.command(arguments);
    let mut command = Command::new("strace");
    command.args(["-qq"]).args(strace).arg("--");
    command.arg(sealed.get_program()).args(sealed.get_args());
    command.env_clear();
    for (name, value) in sealed.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
        .current_dir(world.root())
        .stdin(std::process::Stdio::null());
    command
}

/// Every boundary of one whole run.
fn points(scenario: &Scenario) -> Vec<Point> {
    let world = world();
    let arguments = (scenario.prepare)(&world);
    let log: PathBuf = world.root().join("strace.log");
    let set = format!("trace={}", CHANGING.join(","));
    let options = ["-o", log.to_str().unwrap(), "-e", &set].map(str::to_owned);
    traced(&world, &arguments, &options).succeeds();
    let text = std::fs::read_to_string(&log).unwrap();
    let mut counts = std::collections::HashMap::new();
    let mut points = Vec::new();
    for line in text.lines() {
        let Some((call, rest)) = line.split_once('(') else {
            continue;
        };
        let n: &mut usize = counts.entry(call.to_owned()).or_default();
        *n += 1;
        let creates = rest.contains("O_CREAT") && !scenario.scans_processes;
        if call != "openat" || creates {
            points.push(Point {
                call: call.to_owned(),
                n: *n,
            });
        }
    }
    points
}

fn kill_everywhere(scenario: &Scenario, least: usize) {
    let points = points(scenario);
    println!("{} points", points.len());
    assert!(points.len() >= least, "{points:?}");
    let mut killed = 0;
    // Timing moves which calls a run makes, so the whole meets every boundary more than once.
    let rounds = scale::pick(1, 3);
    for point in points.iter().cycle().take(points.len() * rounds) {
        println!("killed in front of {} {}", point.call, point.n);
        let world = world();
        let arguments = (scenario.prepare)(&world);
        let inject = format!("inject={}:signal=KILL:when={}", point.call, point.n);
        let set = format!("trace={}", point.call);
        let options = ["-o", "/dev/null", "-e", &set, "-e", &inject].map(str::to_owned);
        let ran = traced(&world, &arguments, &options);
        killed += usize::from(ran.code == 128 + 9);
        let acknowledged: Vec<String> = match scenario.acknowledges {
            true => ids_in(&ran.stdout),
            false => world.tasks().into_iter().map(|task| task.id).collect(),
        };
        recover_and_check(&world, scenario, &acknowledged);
    }
    scale::figure("kill points tried", killed);
    // Which calls a run makes is not the same every time, but nearly.
    assert!(
        killed * 10 >= points.len() * rounds * 9,
        "only {killed} were killed"
    );
}

/// The ids that were printed alone on a line.
fn ids_in(text: &str) -> Vec<String> {
    let is_id = |line: &&str| line.parse::<TaskId>().is_ok();
    text.lines().filter(is_id).map(str::to_owned).collect()
}

fn recover_and_check(world: &World, scenario: &Scenario, acknowledged: &[String]) {
    let results = Results::of(world);
    world.run(&["watch", "--drain"]).succeeds();
    let known = Known {
        acknowledged,
        is_drained: true,
        most_attempts: scenario.most_attempts,
    };
    // The pool's runners go when their pipe closes.
    world.wait_until("the runners are gone", || world.processes().is_empty());
    invariants::check(world, known);
    results.still_stand(world);
    let results = Results::of(world);
    invariants::sweeps_clean(world);
    world.run(&["watch", "--drain"]).succeeds();
    world.wait_until("the runners are gone", || world.processes().is_empty());
    invariants::check(world, known);
    results.still_stand(world);
    let left: Vec<String> = names_in(&world.path("open"));
    assert!(left.iter().all(|name| name.starts_with('.')), "{left:?}");
    assert!(names_in(&world.path("incoming")).is_empty());
    no_run_twice(world, scenario.most_attempts);
}

/// The recipe's own record: no attempt ran twice, no task more often than it may.
fn no_run_twice(world: &World, most: usize) {
    let text = std::fs::read_to_string(world.root().join("ledger")).unwrap_or_default();
    let mut lines: Vec<&str> = text.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "{text}");
    for task in world.tasks() {
        let runs = lines
            .iter()
            .filter(|line| line.starts_with(&task.id))
            .count();
        assert!(runs <= most, "{text}");
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn submit() {
    let scenario = Scenario {
        prepare: |_| {
            words(&[
                "submit",
                "--recipe",
                "echo",
                "--name",
                "n",
                "--session-id",
                "s",
                "--quiet",
            ])
        },
        acknowledges: true,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 20);
}

#[test]
fn runner() {
    let scenario = Scenario {
        prepare: |world| {
            let task = world.submit(&["echo", "--session-id", "s", "--input", "1"]);
            words(&["runner", "--once", &task.id])
        },
        acknowledges: false,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 40);
}

#[test]
fn admission() {
    let scenario = Scenario {
        prepare: |world| {
            world.drop_in("dropped.json", r#"{"recipe": "echo", "session_id": "s"}"#);
            words(&["watch", "--drain"])
        },
        acknowledges: false,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 30);
}

/// A task whose runner was killed while the recipe ran; the recipe ends only when it is killed, or
/// at once on a later attempt.
fn orphaned(world: &World, on_lost: &str) -> Vec<String> {
    let script = format!(
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID $AGENTSPOOL_ATTEMPT\" >> '{}'\n\
         [ \"$AGENTSPOOL_ATTEMPT\" != 1 ] && exit 0\nsetsid sleep 1000 &\nexec sleep 1000\n",
        world.root().join("ledger").display()
    );
    let manifest = format!("on_lost = \"{on_lost}\"");
    world.recipe_folder("hang", &manifest, &script);
    let task = world.submit(&["hang"]);
    let mut runner = world
        .command(&["runner", "--once", &task.id])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    world.wait_for_lines(&world.root().join("ledger"), 1);
    world.wait_until("the escaped process is there", || {
        world
            .processes()
            .iter()
            .filter(|(_, c)| c.contains("sleep"))
            .count()
            == 2
    });
    runner.kill().unwrap();
    runner.wait().unwrap();
    words(&["runner", "--once", &task.id])
}

#[test]
fn recovery_that_fails_the_task() {
    let scenario = Scenario {
        prepare: |world| orphaned(world, "fail"),
        acknowledges: false,
        most_attempts: 1,
        scans_processes: true,
    };
    kill_everywhere(&scenario, 8);
}

#[test]
fn recovery_that_tries_again() {
    let scenario = Scenario {
        prepare: |world| orphaned(world, "requeue"),
        acknowledges: false,
        // The attempt that the victim itself begins is lost with it.
        most_attempts: 3,
        scans_processes: true,
    };
    kill_everywhere(&scenario, 20);
}

#[test]
fn refusal() {
    let scenario = Scenario {
        prepare: |world| {
            world.drop_in("wrong.json", r#"{"recipe": "nobody"}"#);
            words(&["watch", "--drain"])
        },
        acknowledges: false,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 10);
}

#[test]
fn sweep() {
    let scenario = Scenario {
        prepare: |world| {
            world.set("cleanup_delay_sec", "0");
            let task = world.submit(&["echo", "--name", "n", "--session-id", "s"]);
            world.run(&["runner", "--once", &task.id]).succeeds();
            world.run(&["sweep"]).succeeds();
            words(&["sweep"])
        },
        acknowledges: true,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 8);
}

#[test]
fn cancel() {
    let scenario = Scenario {
        prepare: |world| {
            world.submit(&["echo", "--name", "n", "--session-id", "s"]);
            words(&["cancel", "n"])
        },
        acknowledges: false,
        most_attempts: 1,
        scans_processes: false,
    };
    kill_everywhere(&scenario, 8);
}
