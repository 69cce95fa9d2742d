//! kill -9 in front of every system call that changes a file, a lock or a process, then one
//! recovery, then the truth.
//!
//! Here is how a point is tried; what is killed stands in `scenarios.rs`, the recovery that is
//! killed itself in `recovery.rs`. `strace` delivers the signal before the call is executed, so
//! every boundary between two changes is met. A first run without a kill counts the calls. Every
//! violation is collected, so that one run tells all of them.

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

/// The victim: what is there before, what is killed, and what must be true afterwards.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Makes the world the victim acts in; gives the victim.
    prepare: fn(&World) -> Victim,
    /// Starts what must live beside the victim, in each world anew.
    start_beside: fn(&World),
    /// The victim removes tasks, so the ones that were there may be gone.
    removes: bool,
    /// Somebody lives beside it who ends only if it is done: it is done again before anything else.
    again: bool,
    /// How many attempts a task may make.
    most_attempts: usize,
    /// It looks through /proc, so that the number of its `openat` says nothing the next time.
    scans_processes: bool,
    /// What else must be true after recovery.
    afterwards: fn(&World),
}

/// Most victims: nothing lives beside them, every recipe starts at most once.
const PLAIN: Scenario = Scenario {
    name: "",
    prepare: |_| Victim::default(),
    start_beside: |_| {},
    removes: false,
    again: false,
    most_attempts: 1,
    scans_processes: false,
    afterwards: |_| {},
};

/// A prepared world, what is killed in it, and where.
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
        // Opens that make nothing are boundaries too, but the same ones: only at full scale.
        let keeps = match (scenario.scans_processes, scale::is_full()) {
            (true, _) => traced::none,
            (false, true) => traced::is_in_the_spool,
            (false, false) => traced::creates,
        };
        let world = campaign.world();
        campaign.points = campaign.victim.points(&world, &CHANGING, keeps);
        campaign
    }

    /// A world as it is before the victim acts.
    fn world(&self) -> World {
        let world = stage::copy(self.template.root());
        (self.scenario.start_beside)(&world);
        world
    }

    /// What the world promised before: its tasks.
    fn promised(&self) -> Vec<String> {
        match self.scenario.removes {
            true => Vec::new(),
            false => ids(&self.template),
        }
    }

    /// Kills the victim at one point, recovers, checks; whether the point was reached.
    fn try_point(&self, point: &Point) -> bool {
        let world = self.world();
        let ran = self.victim.kill_at(&world, point);
        let acknowledged = self.acknowledged(&ran);
        invariants::says_no_false_running(&world);
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

/// Whether the victim was killed, or of one that is traced with its children any of them.
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

/// So many of them, evenly spread.
fn some<T: Clone>(all: &[T], wanted: usize) -> Vec<T> {
    let wanted = wanted.min(all.len());
    (0..wanted)
        .map(|i| all[(2 * i + 1) * all.len() / (2 * wanted)].clone())
        .collect()
}

/// Points of one scenario on every change; the whole has them all.
const AT_MOST: usize = 24;

/// Tries every point of a scenario, or some of them; at full scale more than once, because timing moves which calls
/// a run makes.
fn kill_everywhere(scenario: Scenario, least: usize) {
    let campaign = Campaign::new(scenario);
    let found = campaign.points.len();
    assert!(found >= least, "only {found}: {:?}", campaign.points);
    let points = scale::pick(
        some(&campaign.points, AT_MOST),
        [&campaign.points[..], &campaign.points[..]].concat(),
    );
    let tried = traced::in_parallel(&points, |point| {
        let mut killed = false;
        let what = format!("{} killed in front of {point:?}", scenario.name);
        let violation = traced::violation(&what, || killed = campaign.try_point(point));
        (killed, violation)
    });
    report("kill points tried", scenario.name, tried, points.len());
}

/// Says the figures and fails with all that was found.
fn report(figure: &str, name: &str, tried: Vec<(bool, Option<String>)>, points: usize) {
    let killed = tried.iter().filter(|(killed, _)| *killed).count();
    let violations: Vec<String> = tried.into_iter().filter_map(|(_, found)| found).collect();
    scale::figure(&format!("{figure}: {name}"), killed);
    scale::figure(&format!("violations: {figure}: {name}"), violations.len());
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    // Which calls a run makes is not the same every time, and least of all with its children, but
    // nearly.
    assert!(
        killed * 2 >= points,
        "only {killed} of {points} were killed"
    );
}

/// What whoever comes next does: a watcher that runs what is open, and a sweep.
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
    results.still_stand(world);
    no_start_too_many(world, scenario.most_attempts);
    (scenario.afterwards)(world);
    let results = Results::of(world);
    invariants::sweeps_clean(world);
    if !scenario.removes {
        invariants::check(world, known);
    }
    results.still_stand(world);
    let left: Vec<String> = names_in(&world.path("open"));
    assert!(left.iter().all(|name| name.starts_with('.')), "{left:?}");
    assert!(names_in(&world.path("incoming")).is_empty());
}

/// Everything that is open is run, and nobody is left. Who lived beside the victim ends first.
fn drain(world: &World) {
    world.run(&["watch", "--drain"]).succeeds();
    world.wait_until("the runners are gone", || world.processes().is_empty());
    // A runner that outlived the victim may have put a task back just now.
    if names_in(&world.path("open"))
        .iter()
        .any(|name| !name.starts_with('.'))
    {
        world.run(&["watch", "--drain"]).succeeds();
        world.wait_until("the runners are gone", || world.processes().is_empty());
    }
}

/// The recipe's own record (I4): no attempt ran twice, none beside another of its task, no task
/// more often than it may, none without its start record.
fn no_start_too_many(world: &World, most: usize) {
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

/// The harness can fail: what a program that breaks a rule would leave is seen by the checks.
#[test]
fn the_checks_see_what_they_are_for() {
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
        ("a lost hint", |world, id| {
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
        let look = || {
            invariants::check(&world, known);
            no_start_too_many(&world, 1);
        };
        assert_eq!(traced::violation("before", look), None);
        damage(&world, &id);
        assert!(
            traced::violation(what, look).is_some(),
            "{what} is not seen"
        );
    }
}
