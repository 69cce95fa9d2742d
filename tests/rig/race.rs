//! Several watchers on one spool, while watchers and runners are killed all the time.
//!
//! Every task keeps a ledger of its own with `race.sh`, which knows nothing of the program's locks. Checked
//! at the end: exactly one result for each task, correct if it could be known; no attempt started twice or in
//! parallel with another attempt of its task; never more tasks at once than the limits allow; every session
//! in the order of submission.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::herd::Herd;
use crate::scale::{self, figure};
use crate::support::invariants::{self, Known, Results};
use crate::support::{World, names_in};

const LIMIT: usize = 4;
const NARROW: usize = 2;
const SESSIONS: usize = 5;
/// More than any task needs, so that a task that is killed several times still ends.
const ATTEMPTS: usize = 500;
/// If no result appears for this long, the spool is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A spool that runs this many tasks at once. Its tasks check `LIMIT` and `NARROW`.
fn world(limit: usize, narrow: usize) -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("max_concurrent", &limit.to_string());
    // The recipe's helper keeps the output open. If the runner waited for it, a kill would always hit the task.
    world.set("leftover_wait_sec", "0");
    for folder in ["own", "places"] {
        std::fs::create_dir(world.root().join(folder)).unwrap();
    }
    let script = include_str!("race.sh")
        .replace("@ROOT@", world.root().to_str().unwrap())
        .replace("@LIMIT@", &LIMIT.to_string())
        .replace("@NARROW@", &NARROW.to_string());
    let requeue = format!("on_lost = \"requeue\"\nmax_attempts = {ATTEMPTS}");
    for (recipe, manifest) in [
        ("once", String::new()),
        ("again", requeue.clone()),
        ("narrow", format!("{requeue}\nmax_concurrent = {narrow}")),
        ("talk", requeue),
    ] {
        let script = script.replace("${1:-}", recipe);
        world.recipe_folder(recipe, &manifest, &script);
    }
    world
}

/// What was submitted.
#[derive(Default)]
struct Submitted {
    /// Names of drops.
    drops: Vec<String>,
    /// Tasks whose id was printed, in order, by session.
    talks: BTreeMap<String, Vec<String>>,
}

impl Submitted {
    fn submit(&mut self, world: &World, n: usize) {
        let session = format!("talk-{}", n % SESSIONS);
        let recipe = match n % 10 {
            0..3 => "once",
            3..6 => "again",
            6..8 => "narrow",
            // The order of drops depends on the process that takes them, so tasks of a session are submitted
            // directly.
            _ => {
                let submitted = ["submit", "--recipe", "talk", "-q", "--session-id", &session];
                let ran = world.run(&submitted);
                ran.succeeds();
                let id = ran.stdout.trim().to_owned();
                self.talks.entry(session).or_default().push(id);
                return;
            }
        };
        let name = format!("drop-{n}");
        world.drop_in(
            &format!("{name}.json"),
            &format!(r#"{{"recipe": "{recipe}"}}"#),
        );
        self.drops.push(name);
    }

    fn acknowledged(&self) -> Vec<String> {
        self.talks.values().flatten().cloned().collect()
    }
}

fn open_tasks(world: &World) -> usize {
    let entries = names_in(&world.path("open"));
    entries.iter().filter(|name| !name.starts_with('.')).count()
}

fn race(watchers: usize) {
    let tasks = scale::pick(400, 10_000);
    let what = format!("race of {watchers} watchers");
    let world = world(LIMIT, NARROW);
    let mut herd = Herd::start(&world, watchers, Chance::new(&what));
    let mut submitted = Submitted::default();
    let mut standing = Results::default();
    for n in 0..tasks {
        submitted.submit(&world, n);
        if n == tasks / 2 {
            standing = Results::of(&world);
        }
        herd.kill_watchers();
        herd.kill_runners();
    }
    let mut last = (usize::MAX, Instant::now());
    loop {
        let left = open_tasks(&world) + names_in(&world.path("incoming")).len();
        let claims = names_in(&world.path("staging"));
        if left == 0 && !claims.iter().any(|name| name.ends_with(".claim")) {
            break;
        }
        if left != last.0 {
            last = (left, Instant::now());
        }
        let waited = last.1.elapsed();
        assert!(waited < PATIENCE, "{left} left\n{}", world.describe());
        herd.kill_watchers();
        herd.kill_runners();
        std::thread::sleep(Duration::from_millis(5));
    }
    figure(&format!("{what}: tasks"), tasks);
    figure(&format!("{what}: watchers killed"), herd.watchers_killed);
    figure(&format!("{what}: runners killed"), herd.runners_killed);
    assert!(herd.watchers_killed > 0 && herd.runners_killed > 0);
    herd.stop();

    let acknowledged = submitted.acknowledged();
    standing.assert_unchanged(&world);
    invariants::check(
        &world,
        Known {
            acknowledged: &acknowledged,
            is_drained: true,
            most_attempts: ATTEMPTS,
            ..Known::default()
        },
    );
    check_ledger(&world, &submitted, &what);
}

/// What the tasks themselves recorded.
#[derive(Default)]
struct Ledger {
    /// Task and attempt, in order.
    starts: Vec<(String, usize)>,
    ends: HashSet<(String, usize)>,
    /// Lines that should not be there.
    wrong: Vec<String>,
}

impl Ledger {
    fn read(world: &World) -> Ledger {
        let mut ledger = Ledger::default();
        let text = std::fs::read_to_string(world.root().join("ledger")).unwrap();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["start", _, id, n] => ledger.starts.push((id.to_owned(), n.parse().unwrap())),
                ["end", id, n] => {
                    ledger.ends.insert((id.to_owned(), n.parse().unwrap()));
                }
                _ => ledger.wrong.push(line.to_owned()),
            }
        }
        ledger
    }
}

fn check_ledger(world: &World, submitted: &Submitted, what: &str) {
    let ledger = Ledger::read(world);
    assert_eq!(ledger.wrong, Vec::<String>::new());
    let distinct: HashSet<_> = ledger.starts.iter().collect();
    assert_eq!(
        distinct.len(),
        ledger.starts.len(),
        "an attempt started twice"
    );
    let mut started: HashMap<&str, usize> = HashMap::new();
    for (id, _) in &ledger.starts {
        *started.entry(id).or_default() += 1;
    }
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let (mut attempts, mut lost) = (0, 0);
    for task in world.tasks() {
        let started = started.get(task.id.as_str()).copied().unwrap_or(0);
        let request = task.request();
        if let Some(name) = request["name"].as_str() {
            *by_name.entry(name.to_owned()).or_default() += 1;
        }
        attempts += task.attempts();
        // A recipe that was killed before its first line started nothing, but its attempt has a folder.
        assert!(
            started <= task.attempts(),
            "{} started {started} times",
            task.id
        );
        assert!(
            request["recipe"] != "once" || task.attempts() == 1,
            "{}",
            task.id
        );
        let result = task.result();
        let last = result["attempt"].as_u64().unwrap() as usize;
        let ended = ledger.ends.contains(&(task.id.clone(), last));
        match result["status"].as_str().unwrap() {
            "completed" => assert!(ended && result["exit_code"] == 0, "{result}"),
            "failed" => {
                assert_eq!(result["error"]["kind"], "lost", "{result}");
                assert_eq!(result["exit_code"], serde_json::Value::Null, "{result}");
                assert_eq!(request["recipe"], "once", "{result}");
                lost += 1;
            }
            other => panic!("{other}: {result}"),
        }
    }
    for name in &submitted.drops {
        assert_eq!(by_name.get(name), Some(&1), "tasks of the drop {name}");
    }
    let all = submitted.drops.len() + submitted.acknowledged().len();
    assert_eq!(world.tasks().len(), all);
    for (session, ids) in &submitted.talks {
        let mut order: Vec<&String> = ledger
            .starts
            .iter()
            .filter(|(id, _)| ids.contains(id))
            .map(|(id, _)| id)
            .collect();
        order.dedup();
        assert_eq!(order, ids.iter().collect::<Vec<_>>(), "{session}");
    }
    figure(&format!("{what}: starts"), ledger.starts.len());
    figure(&format!("{what}: attempts recorded"), attempts);
    figure(&format!("{what}: lost at most once"), lost);
    figure(
        &format!("{what}: violations seen by the tasks"),
        ledger.wrong.len(),
    );
}

#[test]
fn two_watchers() {
    race(2);
}

#[test]
fn eight_watchers() {
    race(8);
}

/// The tasks detect one task too many, in total and per recipe. This shows that the check above can fail.
#[test]
fn one_task_too_many_is_detected() {
    for (limit, narrow, recipe, excess) in [
        (LIMIT + 1, NARROW, "once", "too-many-all"),
        (LIMIT, NARROW + 1, "narrow", "too-many-narrow"),
    ] {
        let world = world(limit, narrow);
        world.start_watcher();
        let started = Instant::now();
        loop {
            let tasks: Vec<_> = (0..4 * limit).map(|_| world.submit(&[recipe])).collect();
            for task in &tasks {
                world.result_of(task);
            }
            let wrong = Ledger::read(&world).wrong;
            if wrong.iter().any(|line| line.starts_with(excess)) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "never seen: {wrong:?}");
        }
    }
}
