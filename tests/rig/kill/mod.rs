//! kill -9 before every system call that changes a file, a lock or a process, then one recovery, then the
//! checks.
//!
//! This file tries a point. The victims are in `scenarios.rs`, the killed recovery is in `recovery.rs`.
//! `strace` delivers the signal before the call is executed, so every boundary between two changes is
//! covered. A first run without a kill counts the calls. Violations are collected, so that one run reports
//! all of them.

mod recovery;
mod scenarios;
mod stage;

pub use stage::copy;

use std::path::Path;

use agentspool::task::TaskId;

use crate::scale;
use crate::support::invariants::{self, Known, Results};
use crate::support::{Ran, World, names_in};
use crate::traced::{self, CHANGING, Point, Victim};

/// The victim: the state before, the command that is killed, and what must be true afterwards.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Creates the world of the victim and returns the victim.
    prepare: fn(&World) -> Victim,
    /// Starts the processes that must run next to the victim, again in each world.
    start_with: fn(&World),
    /// The victim removes tasks, so existing tasks may be missing afterwards.
    removes: bool,
    /// A process next to the victim ends only when the victim's work is done: it is done again before
    /// anything else.
    again: bool,
    /// The number of attempts that a task may use.
    most_attempts: usize,
    /// It reads /proc, so the number of an `openat` differs from run to run.
    scans_processes: bool,
    /// Other checks after recovery.
    afterwards: fn(&World),
}

/// Most victims: no process next to them, and every recipe starts at most once.
const PLAIN: Scenario = Scenario {
    name: "",
    prepare: |_| Victim::default(),
    start_with: |_| {},
    removes: false,
    again: false,
    most_attempts: 1,
    scans_processes: false,
    afterwards: |_| {},
};

/// A prepared world, the victim in it, and the point of the kill.
struct Campaign {
    scenario: Scenario,
    template: World,
    victim: Victim,
    points: Vec<Point>,
}

impl Campaign {
    fn new(scenario: Scenario) -> Campaign {
        let template = stage::world();
        let victim = (scenario.prepare)(&template);
        let mut campaign = Campaign {
            scenario,
            template,
            victim,
            points: Vec::new(),
        };
        // Opens that create nothing are boundaries too, but between the same states: only at full scale.
        let keeps = match (scenario.scans_processes, scale::is_full()) {
            (true, _) => traced::none,
            (false, true) => traced::is_in_the_spool,
            (false, false) => traced::creates,
        };
        let world = campaign.world();
        campaign.points = campaign.victim.points(&world, &CHANGING, keeps);
        campaign
    }

    /// A world as it is before the victim runs.
    fn world(&self) -> World {
        let world = stage::copy(self.template.root());
        (self.scenario.start_with)(&world);
        world
    }

    /// The tasks that the world contained before.
    fn promised(&self) -> Vec<String> {
        match self.scenario.removes {
            true => Vec::new(),
            false => ids(&self.template),
        }
    }

    /// Kills the victim at one point, recovers, checks. Returns whether the point was reached.
    fn try_point(&self, point: &Point) -> bool {
        let world = self.world();
        let ran = self.victim.kill_at(&world, point);
        let acknowledged = self.acknowledged(&ran);
        invariants::assert_no_false_running(&world);
        if self.scenario.again {
            let arguments: Vec<&str> = self.victim.arguments.iter().map(String::as_str).collect();
            world.run(&arguments).succeeds();
        }
        recover_and_check(&world, &self.scenario, &acknowledged);
        was_killed(&world, &ran)
    }

    fn acknowledged(&self, ran: &Ran) -> Vec<String> {
        let mut acknowledged = self.promised();
        if !self.scenario.removes {
            acknowledged.extend(ids_in(&ran.stdout));
        }
        acknowledged
    }
}

/// Whether the victim was killed, or, if it is traced with its children, any of them.
fn was_killed(world: &World, ran: &Ran) -> bool {
    ran.code == 128 + 9 || traced::killed_any(world)
}

fn ids(world: &World) -> Vec<String> {
    world.tasks().into_iter().map(|task| task.id).collect()
}

/// The ids that were printed alone on a line.
fn ids_in(text: &str) -> Vec<String> {
    let is_id = |line: &&str| line.parse::<TaskId>().is_ok();
    text.lines().filter(is_id).map(str::to_owned).collect()
}

/// This many of them, evenly spread.
fn some<T: Clone>(all: &[T], wanted: usize) -> Vec<T> {
    let wanted = wanted.min(all.len());
    (0..wanted)
        .map(|i| all[(2 * i + 1) * all.len() / (2 * wanted)].clone())
        .collect()
}

/// Points of one scenario on every change. Full scale tries all points.
const AT_MOST: usize = 24;

/// Tries every point of a scenario, or some of them; at full scale more than once, because the calls of a run
/// depend on timing.
fn kill_everywhere(scenario: Scenario, least: usize) {
    let tried = try_points(scenario, least);
    let killed = tried.iter().filter(|(killed, _)| *killed).count();
    let has_violation = tried.iter().any(|(_, violation)| violation.is_some());
    // On a busy machine a counted run repeats calls while a process is slow to end, and later runs do not reach those
    // points. Then the calls are counted once more.
    let tried = match killed * 2 < tried.len() && !has_violation {
        true => try_points(scenario, least),
        false => tried,
    };
    let points = tried.len();
    report("kill points tried", scenario.name, tried, points);
}

fn try_points(scenario: Scenario, least: usize) -> Vec<(bool, Option<String>)> {
    let campaign = Campaign::new(scenario);
    let found = campaign.points.len();
    assert!(found >= least, "only {found}: {:?}", campaign.points);
    let points = scale::pick(
        some(&campaign.points, AT_MOST),
        [&campaign.points[..], &campaign.points[..]].concat(),
    );
    traced::in_parallel(&points, |point| {
        let mut killed = false;
        let what = format!("{} killed before {point:?}", scenario.name);
        let violation = traced::violation(&what, || killed = campaign.try_point(point));
        (killed, violation)
    })
}

/// Prints the figures, and fails with all violations.
fn report(figure: &str, name: &str, tried: Vec<(bool, Option<String>)>, points: usize) {
    let killed = tried.iter().filter(|(killed, _)| *killed).count();
    let violations: Vec<String> = tried.into_iter().filter_map(|(_, found)| found).collect();
    scale::figure(&format!("{figure}: {name}"), killed);
    scale::figure(&format!("violations: {figure}: {name}"), violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    // The calls of a run differ a little each time, most of all with child processes.
    assert!(
        killed * 2 >= points,
        "only {killed} of {points} were killed"
    );
}

/// The next processes after a crash: a watcher that runs the open tasks, and a sweep.
fn recover_and_check(world: &World, scenario: &Scenario, acknowledged: &[String]) {
    let results = Results::of(world);
    drain(world);
    let known = Known {
        acknowledged,
        is_drained: true,
        most_attempts: scenario.most_attempts,
        ..Known::default()
    };
    invariants::check(world, known);
    results.assert_unchanged(world);
    check_starts(world, scenario.most_attempts);
    (scenario.afterwards)(world);
    let results = Results::of(world);
    invariants::assert_clean_after_sweep(world);
    if !scenario.removes {
        invariants::check(world, known);
    }
    results.assert_unchanged(world);
    let left: Vec<String> = names_in(&world.path("open"));
    assert!(left.iter().all(|name| name.starts_with('.')), "{left:?}");
    assert!(names_in(&world.path("incoming")).is_empty());
}

/// Every open task is run, and no process is left. Processes next to the victim end first.
fn drain(world: &World) {
    world.run(&["watch", "--drain"]).succeeds();
    world.wait_until("the runners have exited", || world.processes().is_empty());
    // A runner that outlived the victim may have put a task back just now.
    if names_in(&world.path("open"))
        .iter()
        .any(|name| !name.starts_with('.'))
    {
        world.run(&["watch", "--drain"]).succeeds();
        world.wait_until("the runners have exited", || world.processes().is_empty());
    }
}

/// The recipe's own record (I4): no attempt ran twice, none in parallel with another attempt of its task, no
/// task ran more often than it may, no attempt without its start record.
fn check_starts(world: &World, most: usize) {
    let text = std::fs::read_to_string(world.root().join("ledger")).unwrap_or_default();
    assert!(!text.contains("overlap"), "{text}");
    let mut lines: Vec<&str> = text.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "{text}");
    for task in world.tasks() {
        let starts: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix(&*task.id))
            .map(str::trim)
            .collect();
        assert!(starts.len() <= most, "{text}");
        for attempt in &starts {
            let record = task.path.join("attempts").join(attempt);
            assert!(record.is_dir(), "{} is missing", record.display());
        }
        let completed = task.has_result() && task.result()["status"] == "completed";
        assert!(!completed || !starts.is_empty(), "{} never ran", task.id);
    }
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// The checks can fail: they detect what a program that breaks a rule would leave.
#[test]
fn the_checks_detect_each_violation() {
    let template = stage::world();
    let victim = Victim::of(&["submit", "--recipe", "echo", "--session-id", "s", "--quiet"]);
    let ran = victim.run(&template, None, &[]);
    let acknowledged = ids_in(ran.succeeds().stdout.as_str());
    let id = acknowledged[0].clone();
    type Damage = (&'static str, fn(&World, &str));
    let damages: [Damage; 8] = [
        ("a lost task", |world, id| {
            std::fs::remove_dir_all(world.path("tasks").join(id)).unwrap();
        }),
        ("a lost index entry", |world, id| {
            remove(&world.path("open").join(id))
        }),
        ("a torn request", |world, id| {
            std::fs::write(world.path("tasks").join(id).join("request.json"), "{").unwrap();
        }),
        ("no lock", |world, id| {
            remove(&world.path("tasks").join(id).join("lock"))
        }),
        ("a lost place in the session", |world, id| {
            remove(&world.path("sessions/s/queue").join(id));
        }),
        ("a result of another task", |world, id| {
            let text = "{\"task_id\": \"task_0\", \"status\": \"completed\", \"ok\": true}";
            std::fs::write(world.path("tasks").join(id).join("result.json"), text).unwrap();
        }),
        ("a start without a record", |world, id| {
            std::fs::write(world.root().join("ledger"), format!("{id} 1\n")).unwrap();
        }),
        ("an overlap", |world, id| {
            std::fs::write(world.root().join("ledger"), format!("overlap {id}\n")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let world = stage::copy(template.root());
        let known = Known {
            acknowledged: &acknowledged,
            ..Known::default()
        };
        let check = || {
            invariants::check(&world, known);
            check_starts(&world, 1);
        };
        assert_eq!(traced::violation("before", check), None);
        damage(&world, &id);
        assert!(
            traced::violation(what, check).is_some(),
            "{what} is not detected"
        );
    }
}
