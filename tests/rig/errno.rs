//! Every error that a file call can return, at every place where the call is made.
//!
//! Not a disk that is really full or read-only (`disk.rs`): here one call fails and the next one does not, or
//! all of them fail from some time on. Checked: a command exits with 0 exactly if its task exists, no
//! accepted task is lost, nothing panics, no process spins while the disk refuses, and work continues by
//! itself afterwards.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::scale;
use crate::support::invariants::{self, Known};
use crate::support::processes::ticks;
use crate::support::{Ran, World, names_in};
use crate::traced::{self, Point, Victim};

const ROOM: [&str; 4] = ["ENOSPC", "EDQUOT", "EIO", "EROFS"];
const FILES: [&str; 7] = [
    "ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "EINTR",
];

/// The temporary errors that each call can return.
const ERRORS: [(&str, &[&str]); 22] = [
    ("openat", &FILES),
    ("mkdirat", &ROOM),
    ("write", &["ENOSPC", "EDQUOT", "EIO", "EINTR"]),
    ("pwrite64", &["ENOSPC", "EDQUOT", "EIO", "EINTR"]),
    ("ftruncate", &["EIO", "EROFS", "EINTR"]),
    ("fallocate", &["ENOSPC", "EDQUOT", "EIO", "EROFS", "EINTR"]),
    ("fsync", &["ENOSPC", "EDQUOT", "EIO", "EROFS", "EINTR"]),
    ("flock", &["EAGAIN", "EINTR"]),
    ("renameat", &ROOM),
    ("renameat2", &ROOM),
    ("symlinkat", &ROOM),
    ("unlinkat", &["EIO", "EROFS", "ENOSPC", "EDQUOT"]),
    ("getdents64", &["EIO"]),
    ("newfstatat", &["EIO"]),
    ("readlinkat", &["EIO"]),
    ("fstatfs", &["EIO", "EINTR"]),
    ("clone", &["EAGAIN"]),
    ("clone3", &["EAGAIN"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("pidfd_open", &["EMFILE", "ENFILE"]),
    ("inotify_init1", &["EMFILE", "ENFILE"]),
    ("inotify_add_watch", &["ENOSPC"]),
];

/// The process that gets the errors, and what must be true of it.
struct Scenario {
    name: &'static str,
    prepare: fn(&World) -> Victim,
    /// What must be true between the failure and the next process.
    at_once: fn(&World, &Ran),
    /// What must be true when everything was done.
    in_the_end: fn(&World),
    /// Whether the tasks may be gone then.
    removes: bool,
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe(
        "say",
        "#!/bin/sh\necho \"$AGENTSPOOL_TASK_ID\" >> \"$AGENTSPOOL_TASK_DIR/../../../ledger\"\necho said\n",
    );
    world.run(&["watch", "--drain"]).succeeds();
    world.run(&["sweep"]).succeeds();
    world
}

/// Exit code 0 if and only if the task exists. An error leaves nothing, or reports that what it left was
/// accepted. If every write fails after the id, nothing can be printed, and only the exit code is left.
fn check_submission(world: &World, ran: &Ran) {
    let tasks = world.tasks();
    let there = tasks.first().map(|task| task.id.clone());
    if ran.code == 0 {
        assert_eq!(
            Some(ran.stdout.trim_end()),
            there.as_deref(),
            "{}",
            ran.stderr
        );
    } else if let Some(id) = there {
        let message = format!("{}{}", ran.stdout, ran.stderr);
        let is_mute = message.is_empty() && ran.code == 1;
        assert!(
            is_mute || message.contains(&id),
            "{id} exists, but the command printed: {message}"
        );
    } else {
        assert_eq!(ran.stdout, "");
    }
}

fn check_ran_once(world: &World) {
    let ledger = std::fs::read_to_string(world.root().join("ledger")).unwrap_or_default();
    for task in world.tasks() {
        let result = task.result();
        assert_eq!(result["status"], "completed", "{result}");
        let is_named = result["output_file"] == "attempts/1/stdout.log";
        assert!(result["output"] == "said" || is_named, "{result}");
        let starts = ledger.lines().filter(|line| *line == task.id).count();
        assert_eq!(starts, 1, "{ledger}");
    }
}

const SUBMIT: Scenario = Scenario {
    name: "submit",
    prepare: |_| {
        Victim::of(&[
            "submit",
            "--recipe",
            "say",
            "--name",
            "n",
            "--session-id",
            "s",
            "--quiet",
        ])
    },
    at_once: check_submission,
    in_the_end: check_ran_once,
    removes: false,
};

const ADMIT: Scenario = Scenario {
    name: "admit",
    prepare: |world| {
        world.drop_in("dropped.json", r#"{"recipe": "say", "session_id": "s"}"#);
        Victim::of(&["watch", "--drain"])
    },
    at_once: |_, _| {},
    in_the_end: |world| {
        assert_eq!(world.tasks().len(), 1, "{}", world.describe());
        check_ran_once(world);
    },
    removes: false,
};

const RUNNER: Scenario = Scenario {
    name: "runner",
    prepare: |world| {
        let task = world.submit(&["say", "--session-id", "s"]);
        Victim::of(&["runner"]).reading(format!("run {}\n", task.id))
    },
    at_once: |_, _| {},
    in_the_end: check_ran_once,
    removes: false,
};

const CANCEL: Scenario = Scenario {
    name: "cancel",
    prepare: |world| {
        world.submit(&["say", "--name", "n", "--session-id", "s"]);
        Victim::of(&["cancel", "n"])
    },
    at_once: |world, ran| {
        let ended = world.only_task().has_result();
        assert!(
            ran.code != 0 || ended,
            "exit code 0, but the task is not cancelled"
        );
    },
    in_the_end: |world| {
        let task = world.only_task();
        let expected = match task.path.join("cancel").exists() {
            true => "cancelled",
            false => "completed",
        };
        assert_eq!(task.result()["status"], expected);
    },
    removes: false,
};

const SWEEP: Scenario = Scenario {
    name: "sweep",
    prepare: |world| {
        for age in ["cleanup_delay_sec", "rejected_keep_sec", "session_keep_sec"] {
            world.set(age, "0");
        }
        world.drop_in("wrong.json", r#"{"recipe": "nobody"}"#);
        world.submit(&["say", "--name", "n", "--session-id", "s"]);
        world.run(&["watch", "--drain"]).succeeds();
        world.submit(&["say"]);
        Victim::of(&["sweep"])
    },
    at_once: |_, _| {},
    in_the_end: |world| {
        assert!(world.tasks().len() <= 2);
        check_ran_once(world);
    },
    removes: true,
};

/// The unit in which the kernel reports times to programs, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// One call that fails once, or from then on.
#[derive(Clone, Debug)]
struct Failure {
    point: Point,
    errno: &'static str,
    lasts: bool,
}

impl Failure {
    fn expressions(&self) -> [String; 2] {
        let Point { call, n } = &self.point;
        let lasts = if self.lasts { "+" } else { "" };
        [
            format!("trace={call}"),
            format!("inject={call}:error={}:when={n}{lasts}", self.errno),
        ]
    }
}

/// Each (call, errno) pair of a victim at some of its calls; at all of them at full scale.
fn failures(points: &[Point]) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (call, errnos) in ERRORS {
        let mut here: Vec<&Point> = points.iter().filter(|point| point.call == call).collect();
        // The second thread belongs to notify, which expects that it can be created. Whether there is space
        // for it was tested just before.
        here.retain(|point| (&*point.call, point.n) != ("clone3", 2));
        for (i, errno) in errnos.iter().enumerate() {
            // One place for each pair, another place for the next pair: together they cover most places.
            let one = here.get(here.len() * (i + 1) / (errnos.len() + 1));
            let places = scale::pick(one.into_iter().collect(), here.iter().collect::<Vec<_>>());
            for point in places {
                // EINTR, or a lock of another process, without end is not a temporary error.
                let can_last = scale::is_full() && *errno != "EINTR" && call != "flock";
                for lasts in [false, true] {
                    if lasts && !can_last {
                        continue;
                    }
                    failures.push(Failure {
                        point: (*point).clone(),
                        errno,
                        lasts,
                    });
                }
            }
        }
    }
    failures
}

fn try_failure(template: &World, victim: &Victim, scenario: &Scenario, failure: &Failure) {
    let world = crate::kill::copy(template.root());
    let ran = victim.run(&world, None, &failure.expressions());
    let message = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        !message.contains("panicked") && ran.code != 101,
        "{message}"
    );
    assert!(ran.code < 128, "it was killed by a signal: {message}");
    world.wait_until("its runners have exited", || world.processes().is_empty());
    let acknowledged: Vec<String> = match scenario.removes {
        true => Vec::new(),
        false => template.tasks().into_iter().map(|task| task.id).collect(),
    };
    (scenario.at_once)(&world, &ran);
    world.run(&["watch", "--drain"]).succeeds();
    world.wait_until("the runners have exited", || world.processes().is_empty());
    let known = Known {
        acknowledged: &acknowledged,
        is_drained: true,
        most_attempts: 1,
        status_may_lag: true,
    };
    invariants::check(&world, known);
    (scenario.in_the_end)(&world);
    invariants::assert_clean_after_sweep(&world);
}

fn fail_everywhere(scenario: &Scenario) {
    let template = world();
    let victim = (scenario.prepare)(&template);
    let mut calls: Vec<&str> = ERRORS.iter().map(|(call, _)| *call).collect();
    // A listening process writes to an eventfd, which never fails in the kernel, and notify relies on that.
    // The other writes of these two are also made by `submit` and `runner`.
    calls.retain(|call| *call != "write" || !["admit", "cancel"].contains(&scenario.name));
    let world = crate::kill::copy(template.root());
    let points = victim.points(&world, &calls, traced::is_in_the_spool);
    let mut failures = failures(&points);
    if scenario.name == "runner" || scenario.name == "admit" {
        // A process that continues as long as it must is not ended here: see below for those.
        failures.retain(|failure| !failure.lasts);
    }
    let violations: Vec<String> = traced::in_parallel(&failures, |failure| {
        let what = format!("{}: {failure:?}", scenario.name);
        traced::violation(&what, || try_failure(&template, &victim, scenario, failure))
    })
    .into_iter()
    .flatten()
    .collect();
    let mut pairs: Vec<(&str, &str)> = failures
        .iter()
        .map(|failure| (&*failure.point.call, failure.errno))
        .collect();
    pairs.dedup();
    scale::figure(
        &format!("(call, errno) pairs tried: {}", scenario.name),
        pairs.len(),
    );
    scale::figure(
        &format!("errors injected: {}", scenario.name),
        failures.len(),
    );
    scale::figure(
        &format!("violations: errors: {}", scenario.name),
        violations.len(),
    );
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    assert!(pairs.len() >= 10, "{pairs:?}");
}

#[test]
fn submit() {
    fail_everywhere(&SUBMIT);
}

#[test]
fn admit() {
    fail_everywhere(&ADMIT);
}

#[test]
fn runner() {
    fail_everywhere(&RUNNER);
}

#[test]
fn cancel() {
    fail_everywhere(&CANCEL);
}

#[test]
fn sweep() {
    fail_everywhere(&SWEEP);
}

/// Attaches strace to a running process: from now on every such call of it fails, until this is dropped.
struct Failing {
    strace: std::process::Child,
}

impl Failing {
    fn attach(world: &World, pid: u32, call: &str, errno: &str) -> Failing {
        let strace = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error={errno}:when=1+")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let failing = Failing { strace };
        world.wait_until("strace is attached", || is_traced(pid));
        failing
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // Detaches from the process, which continues unchanged.
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.strace.wait();
    }
}

fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

/// During some second it uses less than a twentieth of a processor. A process that spins never does, and one
/// that just got work needs a moment.
fn becomes_idle(world: &World, pid: i32) {
    let mut window = (Instant::now(), ticks(pid));
    world.wait_until("it is idle while the calls fail", || {
        let (since, before) = window;
        if since.elapsed() < Duration::from_secs(1) {
            return false;
        }
        let used = (ticks(pid) - before) as f64 / TICKS_PER_SECOND;
        let is_at_rest = used < since.elapsed().as_secs_f64() / 20.0;
        window = (Instant::now(), ticks(pid));
        is_at_rest
    });
}

/// The pairs that a process which continues meets for a while.
fn lasting(calls: &[&str]) -> Vec<(&'static str, &'static str)> {
    let all: Vec<(&str, &str)> = ERRORS
        .iter()
        .filter(|(call, _)| calls.contains(call))
        .flat_map(|(call, errnos)| errnos.iter().map(|errno| (*call, *errno)))
        // A kernel does not interrupt calls without end.
        .filter(|(_, errno)| *errno != "EINTR")
        .collect();
    let step = scale::pick(4, 1);
    all.into_iter().step_by(step).collect()
}

fn fail_for_a_while(
    name: &str,
    pairs: &[(&'static str, &'static str)],
    try_pair: fn(&World, &str, &str),
) {
    let violations: Vec<String> = traced::in_parallel(pairs, |(call, errno)| {
        let what = format!("{name}: {call} returns {errno} for a while");
        traced::violation(&what, || {
            let world = world();
            try_pair(&world, call, errno);
        })
    })
    .into_iter()
    .flatten()
    .collect();
    scale::figure(&format!("(call, errno) pairs held: {name}"), pairs.len());
    scale::figure(
        &format!("violations: errors held: {name}"),
        violations.len(),
    );
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
}

#[test]
fn a_watcher_is_idle_while_its_disk_refuses_and_continues_afterwards() {
    let calls = [
        "openat",
        "mkdirat",
        "fsync",
        "flock",
        "renameat",
        "renameat2",
        "symlinkat",
        "unlinkat",
        "getdents64",
        "newfstatat",
        "fstatfs",
        "clone",
        "clone3",
        "pipe2",
    ];
    fail_for_a_while("watcher", &lasting(&calls), |world, call, errno| {
        let pid = world.start_watcher();
        // A watcher that cannot even start reports that and exits. This one has started.
        world.wait_until("it has started", || has_started(world));
        let failing = Failing::attach(world, pid, call, errno);
        world.drop_in("dropped.json", r#"{"recipe": "say"}"#);
        let submitted = world.submit(&["say"]);
        becomes_idle(world, pid.cast_signed());
        drop(failing);
        world.wait_until("both are finished", || {
            let tasks = world.tasks();
            tasks.len() == 2 && tasks.iter().all(crate::support::Task::has_result)
        });
        assert!(submitted.has_result());
        assert!(world.watcher_pids().contains(&pid.cast_signed()), "it left");
        world.kill_watcher(pid);
        world.wait_until("its runners have exited", || world.processes().is_empty());
        check_ran_once(world);
        no_panic_in(&world.root().join("watch.log"));
    });
}

#[test]
fn a_runner_keeps_its_result_while_the_disk_refuses() {
    let calls = [
        "openat",
        "write",
        "pwrite64",
        "ftruncate",
        "fsync",
        "renameat",
        "renameat2",
        "unlinkat",
        "newfstatat",
    ];
    fail_for_a_while("runner", &lasting(&calls), |world, call, errno| {
        let gate = world.root().join("gate");
        let script = format!(
            "#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.05; done\necho said\nexit 7\n",
            gate.display()
        );
        world.recipe("gate", &script);
        let task = world.submit(&["gate"]);
        let log = std::fs::File::create(world.root().join("runner.log")).unwrap();
        let mut runner = world
            .command(&["runner", "--once", &task.id])
            .stderr(log)
            .spawn()
            .unwrap();
        world.wait_running(&task);
        let failing = Failing::attach(world, runner.id(), call, errno);
        std::fs::write(gate, "").unwrap();
        let pid = runner.id().cast_signed();
        let is_over = || runner_is_over(pid);
        world.wait_until("the recipe is over", || {
            is_over()
                || !world
                    .processes()
                    .iter()
                    .any(|(_, c)| c.contains("recipes/gate"))
        });
        if !is_over() {
            becomes_idle(world, pid);
        }
        drop(failing);
        assert!(runner.wait().unwrap().success());
        let result = task.result();
        assert_eq!(
            (&result["status"], &result["exit_code"]),
            (&json!("failed"), &json!(7))
        );
        assert_eq!(result["error"]["kind"], "exit");
        let is_named = result["output_file"] == "attempts/1/stdout.log";
        assert!(result["output"] == "said" || is_named, "{result}");
        no_panic_in(&world.root().join("runner.log"));
        assert!(names_in(&world.path("staging")).is_empty());
    });
}

/// Whether the watcher logs that it watches.
fn has_started(world: &World) -> bool {
    let log = std::fs::read_to_string(world.root().join("watch.log"));
    log.is_ok_and(|log| log.contains("watching"))
}

/// A zombie never runs again.
fn runner_is_over(pid: i32) -> bool {
    !crate::support::processes::is_alive(pid)
}

fn no_panic_in(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains("panicked"), "{text}");
}

/// The checks can fail: a rename that only reports success is detected.
#[test]
fn a_call_that_falsely_reports_success_is_detected() {
    let template = world();
    let task = template.submit(&["say"]);
    let world = crate::kill::copy(template.root());
    let victim = Victim::of(&["cancel", &task.id, "--quiet"]);
    // The result is never moved to its place.
    let lie = ["trace=renameat2", "inject=renameat2:retval=0"].map(str::to_owned);
    let ran = victim.run(&world, None, &lie);
    let seen = traced::violation("cancel", || (CANCEL.at_once)(&world, &ran));
    assert!(ran.code == 0 && seen.is_some(), "{}", ran.stderr);
}
