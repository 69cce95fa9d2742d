//! Several watchers on one spool, and no moment without somebody being killed.
//!
//! Every task keeps a ledger of its own by `race.sh`, which knows nothing of our locks. Judged at
//! the end: exactly one result for each task, true where it could be known; no attempt begun twice
//! or beside another; never more at once than may be; every session in the order of submission.

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
/// More than any task needs, so that a task that is killed and killed still ends.
const ATTEMPTS: usize = 500;
/// No result for so long means that something stands still.
const PATIENCE: Duration = Duration::from_secs(60);

/// A spool that runs as many at once as it is told here; its tasks hold it to `LIMIT` and `NARROW`.
fn world(limit: usize, narrow: usize) -> World {
    let world = World::new();
    world.set("autostart", "false");
    world.set("max_concurrent", &limit.to_string());
    // Its helper holds the output, and a task that takes long is always met by a kill.
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

/// What was asked for.
#[derive(Default)]
struct Asked {
    /// Names of drops.
    drops: Vec<String>,
    /// Tasks whose id was printed, in order, by session.
    talks: BTreeMap<String, Vec<String>>,
}

impl Asked {
    fn submit(&mut self, world: &World, n: usize) {
        let session = format!("talk-{}", n % SESSIONS);
        let recipe = match n % 10 {
            0..3 => "once",
            3..6 => "again",
            6..8 => "narrow",
            // The order of drops is decided by who takes them, so a talk is submitted.
            _ => {
                let asked = ["submit", "--recipe", "talk", "-q", "--session-id", &session];
                let ran = world.run(&asked);
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
    let hints = names_in(&world.path("open"));
    hints.iter().filter(|name| !name.starts_with('.')).count()
}

fn race(watchers: usize) {
    let tasks = scale::pick(400, 10_000);
    let what = format!("race of {watchers} watchers");
    let world = world(LIMIT, NARROW);
    let mut herd = Herd::start(&world, watchers, Chance::new(&what));
    let mut asked = Asked::default();
    let mut standing = Results::default();
    for n in 0..tasks {
        asked.submit(&world, n);
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

    let acknowledged = asked.acknowledged();
    standing.still_stand(&world);
    invariants::check(
        &world,
        Known {
            acknowledged: &acknowledged,
            is_drained: true,
            most_attempts: ATTEMPTS,
            ..Known::default()
        },
    );
    judge(&world, &asked, &what);
}

/// What the tasks themselves wrote down.
#[derive(Default)]
struct Ledger {
    /// Task and attempt, in order.
    begins: Vec<(String, usize)>,
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
                ["begin", _, id, n] => ledger.begins.push((id.to_owned(), n.parse().unwrap())),
                ["end", id, n] => {
                    ledger.ends.insert((id.to_owned(), n.parse().unwrap()));
                }
                _ => ledger.wrong.push(line.to_owned()),
            }
        }
        ledger
    }
}

fn judge(world: &World, asked: &Asked, what: &str) {
    let ledger = Ledger::read(world);
    assert_eq!(ledger.wrong, Vec::<String>::new());
    let distinct: HashSet<_> = ledger.begins.iter().collect();
    assert_eq!(
        distinct.len(),
        ledger.begins.len(),
        "an attempt began twice"
    );
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for (id, _) in &ledger.begins {
        *begun.entry(id).or_default() += 1;
    }
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let (mut attempts, mut lost) = (0, 0);
    for task in world.tasks() {
        let begun = begun.get(task.id.as_str()).copied().unwrap_or(0);
        let request = task.request();
        if let Some(name) = request["name"].as_str() {
            *by_name.entry(name.to_owned()).or_default() += 1;
        }
        attempts += task.attempts();
        // A recipe killed before its first line began nothing, and has a folder all the same.
        assert!(begun <= task.attempts(), "{} began {begun} times", task.id);
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
    for name in &asked.drops {
        assert_eq!(by_name.get(name), Some(&1), "tasks of the drop {name}");
    }
    let all = asked.drops.len() + asked.acknowledged().len();
    assert_eq!(world.tasks().len(), all);
    for (session, ids) in &asked.talks {
        let mut order: Vec<&String> = ledger
            .begins
            .iter()
            .filter(|(id, _)| ids.contains(id))
            .map(|(id, _)| id)
            .collect();
        order.dedup();
        assert_eq!(order, ids.iter().collect::<Vec<_>>(), "{session}");
    }
    figure(&format!("{what}: starts"), ledger.begins.len());
    figure(&format!("{what}: attempts recorded"), attempts);
    figure(&format!("{what}: lost at most once"), lost);
    figure(&format!("{what}: overlaps and crowds"), ledger.wrong.len());
}

#[test]
fn two_watchers() {
    race(2);
}

#[test]
fn eight_watchers() {
    race(8);
}

/// The tasks see one too many of them, of all and of a recipe: so that they saw none above means
/// something.
#[test]
fn one_too_many_is_seen() {
    for (limit, narrow, recipe, crowd) in [
        (LIMIT + 1, NARROW, "once", "crowd-of-all"),
        (LIMIT, NARROW + 1, "narrow", "crowd-of-narrow"),
    ] {
        let world = world(limit, narrow);
        world.start_watcher();
        let begun = Instant::now();
        loop {
            let tasks: Vec<_> = (0..4 * limit).map(|_| world.submit(&[recipe])).collect();
            for task in &tasks {
                world.result_of(task);
            }
            let wrong = Ledger::read(&world).wrong;
            if wrong.iter().any(|line| line.starts_with(crowd)) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "never seen: {wrong:?}");
        }
    }
}
