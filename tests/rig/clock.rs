//! Clocks that jump by a year, and a machine and a runner that slept: no task is removed early, no task waits
//! forever, and timeouts are correct.
//!
//! The machine's clock is shared and is not changed. `clock.c` shifts the time that the real program and its
//! children see, at any point of their lives: the wall clock alone (somebody set it), or the wall clock and
//! the clock since boot together (time passed, or the machine slept). Not shifted: times of files, which come
//! from the kernel. After a jump they are all a year off, even for files that are newer than the jump. That
//! is harder than reality. Boots are tested in `tests/it/sweep.rs` and `recover.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::chance::Chance;
use crate::herd::{Herd, signal_process};
use crate::mount::run;
use crate::scale::{self, figure};
use crate::support::{Ran, World, names_in, read_json};

const YEAR: i64 = 365 * 86_400;
const HOUR: i64 = 3_600;

/// The clocks of every process that was started with this environment.
pub struct Clock {
    library: PathBuf,
    shifts: PathBuf,
}

impl Clock {
    pub fn new(world: &World) -> Clock {
        let clock = Clock {
            library: world.root().join("clock.so"),
            shifts: world.root().join("clock"),
        };
        clock.set(0, 0);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/clock.c");
        let library = clock.library.to_str().unwrap();
        run("cc", &["-shared", "-fPIC", "-O1", "-o", library, source]);
        clock
    }

    /// Shifts the wall clock, and the clock since boot, by this many seconds from the real ones.
    pub fn set(&self, wall: i64, boot: i64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.shifts)
            .unwrap();
        // One write: a process that sees one new value also sees the other.
        let bytes = [wall.to_ne_bytes(), boot.to_ne_bytes()].concat();
        file.write_all_at(&bytes, 0).unwrap();
    }

    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("RIG_CLOCK", &self.shifts)]
    }

    fn run(&self, world: &World, arguments: &[&str]) -> Ran {
        Ran::of(world.command(arguments).envs(self.environment()))
    }
}

/// How late this machine is now: on a busy machine a second takes longer than a second.
struct Lateness {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Lateness {
    fn start() -> Lateness {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let pause = Duration::from_millis(20);
        let thread = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                std::thread::sleep(pause);
                worst = worst.max(started.elapsed() - pause);
            }
            worst
        });
        Lateness { stop, thread }
    }

    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn world() -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.recipe("echo", "#!/bin/sh\ncat\n");
    world.recipe("endless", "#!/bin/sh\nexec sleep 1000\n");
    let again = "on_lost = \"requeue\"\nmax_attempts = 500";
    world.recipe_folder("again", again, "#!/bin/sh\nsleep 0.1\n");
    world
}

/// The log messages about the clock, in days from the real time.
fn reported_days(world: &World) -> i64 {
    let message = read_json(&world.path("sweep.json"))["wall"].clone();
    let seconds = |text: &str| {
        let output = Command::new("date").args(["-d", text, "+%s"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.trim().parse::<i64>().unwrap()
    };
    (seconds(message.as_str().unwrap()) - seconds("now")) / 86_400
}

#[test]
fn jumps_by_a_year_during_load() {
    let tasks = scale::pick(60, 2_000);
    let world = world();
    let clock = Clock::new(&world);
    world.set("sweep_every_sec", "1");
    world.drop_in("wrong.json", r#"{"recipe": "nobody"}"#);
    let mut herd = Herd::start_with(&world, 2, Chance::new("clock"), &clock.environment());
    let lateness = Lateness::start();
    for n in 0..tasks {
        let request = match n % 6 {
            0 => r#"{"recipe": "endless", "timeout_sec": 1}"#,
            1..3 => r#"{"recipe": "echo", "session_id": "chat"}"#,
            3..5 => r#"{"recipe": "again"}"#,
            _ => r#"{"recipe": "echo"}"#,
        };
        world.drop_in(&format!("drop-{n}.json"), request);
    }
    let mut chance = Chance::new("clock jumps");
    let (mut jumps, mut done) = (0, 0);
    let mut jump_at = Instant::now();
    while done < tasks {
        let before = done;
        world.wait_until(&format!("more than {before} of {tasks} are done"), || {
            if Instant::now() >= jump_at {
                let wall = chance.of(&[-YEAR, 0, YEAR]).unwrap();
                clock.set(wall, 0);
                jumps += 1;
                jump_at = Instant::now() + Duration::from_millis(400);
            }
            herd.kill_runners();
            let all = world.tasks();
            done = all.iter().filter(|task| task.has_result()).count();
            done > before
        });
    }
    let late = lateness.end();
    herd.stop();
    clock.set(YEAR, 0);
    clock.run(&world, &["sweep"]).succeeds();
    assert!(
        (360..370).contains(&reported_days(&world)),
        "the clock is not shifted"
    );

    // No task was cleared, whatever the clocks showed.
    assert_eq!(world.tasks().len(), tasks);
    assert_eq!(names_in(&world.path("rejected")).len(), 2);
    assert!(world.path("sessions/chat").exists());
    let mut timeouts = 0;
    for task in world.tasks() {
        let result = task.result();
        match task.request()["recipe"].as_str().unwrap() {
            "again" => assert_eq!(result["status"], "completed", "{result}"),
            // Its runner was killed, and the status shows that.
            _ if result["error"]["kind"] == "lost" => {}
            "endless" => {
                assert_eq!(result["error"]["kind"], "timeout", "{result}");
                assert_in_time(&result, 1.0..1.0, late);
                timeouts += 1;
            }
            _ => assert_eq!(result["status"], "completed", "{result}"),
        }
    }
    assert!(timeouts > 0);
    figure("clock: jumps by a year", jumps);
    figure("clock: tasks during them", tasks);
    figure("clock: runners killed during them", herd_kills(&world));
    figure("clock: timeouts correct to a second", timeouts);
    figure("clock: cleared early or stuck", 0);
}

/// Attempts that were lost and repeated, or not.
fn herd_kills(world: &World) -> usize {
    let tasks = world.tasks();
    let lost = tasks
        .iter()
        .filter(|task| task.result()["error"]["kind"] == "lost");
    lost.count() + tasks.iter().map(|task| task.attempts() - 1).sum::<usize>()
}

/// Never before the first time, and at most a second after the second, apart from the delay of the machine:
/// once to wake the runner, once to end the recipe, once to notice its end.
fn assert_in_time(result: &Value, due: std::ops::Range<f64>, late: Duration) {
    let took = result["duration_seconds"].as_f64().unwrap();
    let most = due.end + 1.0 + 3.0 * late.as_secs_f64();
    assert!((due.start..most).contains(&took), "{took} s, late {late:?}");
}

fn swept(world: &World, clock: &Clock) -> Vec<Value> {
    let swept = clock.run(world, &["sweep", "--json"]).json();
    swept["task_ids"].as_array().unwrap().clone()
}

/// After a jump an age starts again, and it ends on time by the clock that did not jump.
#[test]
fn an_age_starts_again_after_a_jump_and_ends() {
    for jump in [YEAR, -YEAR] {
        let world = world();
        let clock = Clock::new(&world);
        // A shorter time here would become a minute on a slow machine.
        let slack = 300;
        world.set("cleanup_delay_sec", &(2 * HOUR).to_string());
        let task = world.submit(&["echo"]);
        clock
            .run(&world, &["runner", "--once", &task.id])
            .succeeds();
        assert!(
            swept(&world, &clock).is_empty(),
            "the first pass only records"
        );
        clock.set(jump, 0);
        for passed in [0, HOUR, 2 * HOUR - slack] {
            clock.set(jump + passed, passed);
            assert!(swept(&world, &clock).is_empty(), "{passed} s after {jump}");
        }
        // Once more: a removal that one jump delayed is delayed again by the next jump.
        let passed = 2 * HOUR - slack;
        clock.set(passed, passed);
        assert!(swept(&world, &clock).is_empty());
        clock.set(passed + slack, passed + slack);
        assert!(swept(&world, &clock).is_empty());
        let passed = passed + 2 * HOUR + slack;
        clock.set(passed, passed);
        assert_eq!(swept(&world, &clock), [task.id.as_str()]);
    }
}

/// Wall clock and boot clock continue in a sleep, the clock of the timeouts does not.
#[test]
fn a_sleep_of_the_machine_counts_for_ages_and_not_for_timeouts() {
    let world = world();
    let clock = Clock::new(&world);
    let fifo = world.root().join("go");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    let script = format!(
        "#!/bin/sh\ntouch ready\nread -r code <'{}'\nexit $code\n",
        fifo.display()
    );
    world.recipe("waits", &script);
    let old = world.submit(&["echo"]);
    clock.run(&world, &["runner", "--once", &old.id]).succeeds();
    assert!(swept(&world, &clock).is_empty());

    let task = world.submit(&["waits", "--timeout", "600"]);
    let mut command = world.command(&["runner", "--once", &task.id]);
    let mut runner = command.envs(clock.environment()).spawn().unwrap();
    world.wait_for_file(&task.work(1, "ready"));
    clock.set(8 * HOUR, 8 * HOUR);
    assert_eq!(swept(&world, &clock), [old.id.as_str()]);
    std::fs::write(&fifo, "7\n").unwrap();
    assert!(runner.wait().unwrap().success());
    let result = task.result();
    assert_eq!(result["exit_code"], 7, "{result}");
    let took = result["duration_seconds"].as_f64().unwrap();
    assert!(took < 600.0, "{took}");
}

/// Another boot clock, as in a container with a time namespace of its own.
#[test]
fn a_sweep_in_another_time_namespace_clears_nothing() {
    let world = world();
    world.set("cleanup_delay_sec", "0");
    let task = world.submit(&["echo"]);
    world.run(&["runner", "--once", &task.id]).succeeds();
    world.run(&["sweep"]).succeeds();
    let sealed = world.command(&["sweep"]);
    let mut other = Command::new("unshare");
    other
        .args(["--time", "--boottime", "1000000", "--fork"])
        .arg(sealed.get_program())
        .args(sealed.get_args())
        .env("AGENTSPOOL_DIR", world.spool());
    Ran::of(&mut other).succeeds();
    assert!(task.path.exists());
    // Back here the clocks disagree once more, and then they agree.
    world.run(&["sweep"]).succeeds();
    assert!(task.path.exists());
    world.run(&["sweep"]).succeeds();
    assert!(!task.path.exists());
}

/// The runner is stopped until after the deadline of one task, but not of another.
#[test]
fn a_stopped_runner_is_late_and_reports_the_correct_end() {
    let asleep = Duration::from_secs(scale::pick(3, 60));
    let world = world();
    world.recipe("short", "#!/bin/sh\ntouch ready\nsleep 1\nexit 5\n");
    world.recipe("endless", "#!/bin/sh\ntouch ready\nexec sleep 1000\n");
    let within = (asleep.as_secs() + 5).to_string();
    let tasks = [
        // It ended before its deadline, so its own end is recorded although the deadline has passed by now.
        world.submit(&["short", "--timeout", "2"]),
        world.submit(&["endless", "--timeout", "2"]),
        world.submit(&["endless", "--timeout", &within]),
    ];
    let lateness = Lateness::start();
    let started = Instant::now();
    let mut runners = Vec::new();
    for task in &tasks {
        let mut runner = world
            .command(&["runner", "--once", &task.id])
            .spawn()
            .unwrap();
        let pid = i32::try_from(runner.id()).unwrap();
        world.wait_for_file(&task.work(1, "ready"));
        let (_, child) = world.processes_of(task, 1);
        assert!(child > 0 && runner.try_wait().unwrap().is_none());
        assert!(signal_process(pid, Signal::STOP));
        runners.push((runner, pid));
    }
    // This is the sleep that the test is about.
    std::thread::sleep(asleep);
    let woken = Instant::now();
    for (_, pid) in &runners {
        assert!(signal_process(*pid, Signal::CONT));
    }
    for (runner, _) in &mut runners {
        assert!(runner.wait().unwrap().success());
    }
    let late = lateness.end();
    let [short, over, in_time] = tasks.map(|task| task.result());
    assert_eq!(short["exit_code"], 5, "{short}");
    assert_eq!(over["error"]["kind"], "timeout", "{over}");
    // It was due before any process woke, so it ends as soon as its runner runs.
    assert_in_time(&over, 2.0..(woken - started).as_secs_f64(), late);
    assert_eq!(in_time["error"]["kind"], "timeout", "{in_time}");
    let within: f64 = within.parse().unwrap();
    assert_in_time(&in_time, within..within, late);
    figure("clock: runner stopped, seconds", asleep.as_secs());
}
