//! How many short tasks a second: 2,000 of `true`, queued beforehand, five at a time.
//!
//! Each round measures the floors, agentspool with both durabilities, and the peers, each on a file system of
//! its own. The rate is compared with the bare starts of this machine, and with `durability=power` with what
//! the disk gives: its syncs in the same round, divided by the counted syncs of a task.

use std::time::Duration;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::{Image, Mounted, Size};
use crate::inner;
use crate::report::number;
use crate::rivals::{Nq, Pueue, Rival, TaskSpooler, hyperqueue_rate};
use crate::world::{Durability, World};

/// Tasks at once, the default of a new spool.
pub const AT_ONCE: usize = 5;

/// nq reads all its earlier tasks at each submission: a tenth of the tasks shows it at its best.
const FEWER: usize = 10;

#[derive(Default)]
struct Rounds {
    spawn_one: Vec<f64>,
    spawn: Vec<f64>,
    fsync_one: Vec<f64>,
    fsync: Vec<f64>,
    both: Vec<f64>,
    process: Vec<f64>,
    process_whole: Vec<f64>,
    power: Vec<f64>,
    power_whole: Vec<f64>,
    spooler: Vec<f64>,
    nq: Vec<f64>,
    pueue: Vec<f64>,
    quiet: Vec<f64>,
    files: Vec<f64>,
}

pub fn measure(scale: &Scale) -> Findings {
    let syncs = syncs_of_a_task();
    let mut rounds = Rounds::default();
    for round in 0..scale.rounds {
        eprintln!("  round {}", round + 1);
        rounds.take(scale, syncs);
    }
    rounds.tell(scale, syncs)
}

impl Rounds {
    fn take(&mut self, scale: &Scale, syncs: f64) {
        let tasks = scale.tasks;
        self.spawn_one.push(inner::spawns_per_second(tasks, 1));
        self.spawn.push(inner::spawns_per_second(tasks, AT_ONCE));
        let (queued, drained) = ours(Durability::Process, tasks);
        self.process.push(per_second(tasks, drained));
        self.process_whole.push(per_second(tasks, queued + drained));
        on_fresh_disk(|mounted| {
            let span = Duration::from_millis(1500);
            let folder = mounted.path();
            self.fsync_one
                .push(inner::fsyncs_per_second(&folder_in(folder, "one"), 1, span));
            self.fsync.push(inner::fsyncs_per_second(
                &folder_in(folder, "five"),
                AT_ONCE,
                span,
            ));
        });
        self.both.push(on_fresh_disk(|mounted| {
            let folder = folder_in(mounted.path(), "both");
            inner::synced_spawns_per_second(&folder, tasks, AT_ONCE, syncs.round() as usize)
        }));
        let (queued, drained) = ours(Durability::Power, tasks);
        self.power.push(per_second(tasks, drained));
        self.power_whole.push(per_second(tasks, queued + drained));
        self.spooler.push(rival_rate("tsp", tasks));
        self.nq.push(rival_rate("nq", tasks / FEWER));
        self.pueue.push(rival_rate("pueue", scale.slow_tasks));
        self.quiet.push(rival_rate("hq quiet", tasks));
        self.files.push(rival_rate("hq files", tasks));
    }

    fn tell(self, scale: &Scale, syncs: f64) -> Findings {
        let rate = |samples| Figure::new("/s", samples);
        let spawn = rate(self.spawn);
        let (process, power) = (rate(self.process), rate(self.power));
        let disk = rate(self.fsync.clone()).times(1.0 / syncs);
        let nq = rate(self.nq);
        let to_spawn = process.by(&spawn);
        let to_disk = power.by(&disk);
        let both = rate(self.both);
        let to_both = power.by(&both);
        let both_to_disk = both.by(&disk);
        let is_fast = to_spawn.median() >= 0.60;
        let is_ahead = power.median() > nq.median();
        let is_fast_with = to_disk.median() >= 0.60 && is_ahead;
        let (spooler, quiet) = (rate(self.spooler), rate(self.quiet));
        let peers = |row: Row| {
            row.beside("task-spooler", spooler.clone())
                .beside("nq, one at a time", nq.clone())
        };
        let what = format!(
            "{} tasks of `true`, 5 at a time",
            number(scale.tasks as f64)
        );
        let mut found = Findings::default();
        let row = Row::new(&format!("{what}, `durability=process`"), process)
            .beside("5 threads that start `/bin/true`", spawn.clone())
            .beside("1 thread that starts `/bin/true`", rate(self.spawn_one))
            .beside("HyperQueue, no output files", quiet.clone())
            .beside("HyperQueue", rate(self.files))
            .beside("pueue", rate(self.pueue));
        found.rows.push(
            peers(row)
                .ratio("of the starts", to_spawn)
                .goal("≥ 0.60", is_fast),
        );
        let again = power.clone();
        let row = Row::new(&format!("{what}, `durability=power`"), power)
            .beside("fsyncs, 5 threads", rate(self.fsync))
            .beside("fsyncs, 1 thread", rate(self.fsync_one))
            .beside(
                &format!("fsyncs of 5 threads, divided by {syncs:.1} a task"),
                disk,
            );
        found.rows.push(
            peers(row)
                .ratio("of what the disk gives", to_disk)
                .goal("≥ 0.60, and ahead of nq", is_fast_with),
        );
        let row = Row::new(
            &format!(
                "5 threads that start `/bin/true` and sync {syncs:.0} small files, and do nothing else"
            ),
            both,
        );
        found
            .rows
            .push(row.ratio("of what the disk gives", both_to_disk));
        let row = Row::new("`durability=power`, as above", again);
        found.rows.push(row.ratio("of those threads", to_both));
        for (name, whole) in [("process", self.process_whole), ("power", self.power_whole)] {
            let whole = rate(whole);
            let ratio = whole.by(&spawn);
            let row = Row::new(&format!("including their submission, `{name}`"), whole);
            found.rows.push(row.ratio("of the starts", ratio));
        }
        for (name, peer) in [("task-spooler", spooler), ("HyperQueue", quiet)] {
            let row = Row::new(&format!("{name}, for comparison"), peer.clone());
            found.rows.push(row.ratio("of the starts", peer.by(&spawn)));
        }
        found.note(format!(
            "A task makes {syncs:.1} syncs between the end of its submission and its own end, counted with strace."
        ));
        found.note(format!(
            "task-spooler and nq are timed from the first submission to the last end, because they start tasks at once\n(nq with {} tasks, before its own long folder slows it down). pueue is paused, filled with {} tasks and\nreleased. HyperQueue gets all tasks in one call of its Python package.",
            scale.tasks / FEWER, scale.slow_tasks
        ));
        found
    }
}

fn per_second(tasks: usize, took: Duration) -> f64 {
    tasks as f64 / took.as_secs_f64()
}

/// How long submitting and running them takes, on a new spool.
pub fn ours(durability: Durability, tasks: usize) -> (Duration, Duration) {
    let world = World::fresh(durability);
    let (queued, ids) = world.spool.submit_batch("true", tasks);
    let drained = world.spool.drain();
    for id in ids {
        let result = world.spool.task(&id).join("result.json");
        assert!(result.exists(), "{} is missing", result.display());
    }
    drop(world.into_image());
    (queued, drained)
}

/// One peer on a new file system.
pub fn rival_rate(name: &str, tasks: usize) -> f64 {
    on_fresh_disk(|mounted| {
        let folder = mounted.path().join("queue");
        match name {
            "tsp" => TaskSpooler::start(folder).rate(tasks),
            "nq" => Nq::start(folder).rate(tasks),
            "pueue" => Pueue::start(folder).rate(tasks),
            "hq quiet" => hyperqueue_rate(&folder, tasks, "quiet"),
            "hq files" => hyperqueue_rate(&folder, tasks, "files"),
            other => panic!("no rival is called {other}"),
        }
    })
}

pub fn on_fresh_disk<T>(work: impl FnOnce(&Mounted) -> T) -> T {
    let image = Image::fresh("small", Size::Small);
    let mounted = image.mount();
    let answer = work(&mounted);
    mounted.unmount();
    answer
}

pub fn folder_in(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).expect("a folder can be made");
    path
}

/// Counted over fifty more tasks, so that the watcher's own syncs are left out.
fn syncs_of_a_task() -> f64 {
    let counted = |tasks: usize| {
        let world = World::fresh(Durability::Power);
        world.spool.submit_batch("true", tasks);
        let count = world.spool.syncs(&["watch", "--drain"]);
        drop(world.into_image());
        count
    };
    let (few, many) = (counted(10), counted(60));
    (many - few) as f64 / 50.0
}
