//! How many short tasks a second: 2,000 of `true`, queued beforehand, five at a time.
//!
//! Each round measures the floors, agentspool with both durabilities, and the peers, each on a file system of
//! its own. agentspool is also measured in a folder on the disk itself. The rate is compared with the bare
//! starts of this machine, and with `durability=power` with threads that start a process, sync as many files
//! as a task does, and do nothing else.

use std::time::Duration;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::inner;
use crate::report::number;
use crate::rivals::{Nq, Pueue, Rival, TaskSpooler, hyperqueue_rate};
use crate::world::{Durability, Spool};

/// Tasks at once, the default of a new spool.
pub const AT_ONCE: usize = 5;

/// nq reads all its earlier tasks at each submission: a tenth of the tasks shows it at its best.
const FEWER: usize = 10;

/// Tasks a second in each round, all on one ground.
#[derive(Default)]
struct Rates {
    fsync_one: Vec<f64>,
    fsync: Vec<f64>,
    both: Vec<f64>,
    process: Vec<f64>,
    process_whole: Vec<f64>,
    power: Vec<f64>,
    power_whole: Vec<f64>,
}

impl Rates {
    fn take(&mut self, ground: Ground, tasks: usize, syncs: f64) {
        let (queued, drained) = ours(ground, Durability::Process, tasks);
        self.process.push(per_second(tasks, drained));
        self.process_whole.push(per_second(tasks, queued + drained));
        ground.fresh(|folder| {
            let span = Duration::from_millis(1500);
            let fsyncs =
                |name, at_once| inner::fsyncs_per_second(&folder_in(folder, name), at_once, span);
            self.fsync_one.push(fsyncs("one", 1));
            self.fsync.push(fsyncs("five", AT_ONCE));
        });
        self.both.push(ground.fresh(|folder| {
            let folder = folder_in(folder, "both");
            inner::synced_spawns_per_second(&folder, tasks, AT_ONCE, syncs.round() as usize)
        }));
        let (queued, drained) = ours(ground, Durability::Power, tasks);
        self.power.push(per_second(tasks, drained));
        self.power_whole.push(per_second(tasks, queued + drained));
    }
}

#[derive(Default)]
struct Rounds {
    spawn_one: Vec<f64>,
    spawn: Vec<f64>,
    image: Rates,
    disk: Rates,
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
    rounds.report(scale, syncs)
}

impl Rounds {
    fn take(&mut self, scale: &Scale, syncs: f64) {
        let tasks = scale.tasks;
        self.spawn_one.push(inner::spawns_per_second(tasks, 1));
        self.spawn.push(inner::spawns_per_second(tasks, AT_ONCE));
        self.image.take(Ground::Image, tasks, syncs);
        self.disk.take(Ground::Disk, tasks, syncs);
        self.spooler.push(rival_rate("tsp", tasks));
        self.nq.push(rival_rate("nq", tasks / FEWER));
        self.pueue.push(rival_rate("pueue", scale.slow_tasks));
        self.quiet.push(rival_rate("hq quiet", tasks));
        self.files.push(rival_rate("hq files", tasks));
    }

    fn report(self, scale: &Scale, syncs: f64) -> Findings {
        let spawn = rate(self.spawn);
        let (spooler, nq, quiet) = (rate(self.spooler), rate(self.nq), rate(self.quiet));
        let what = format!(
            "{} tasks of `true`, 5 at a time",
            number(scale.tasks as f64)
        );
        let mut found = Findings::default();
        for (ground, rates) in [(Ground::Image, self.image), (Ground::Disk, self.disk)] {
            let from = found.rows.len();
            report_ground(&mut found, &what, (ground, rates), &spawn, syncs);
            if ground == Ground::Disk {
                continue;
            }
            let [process, power] = &mut found.rows[from..from + 2] else {
                unreachable!("a ground has a row for each durability");
            };
            process.beside.extend([
                (
                    "1 thread that starts `/bin/true`".to_owned(),
                    rate(self.spawn_one.clone()),
                ),
                ("HyperQueue, no output files".to_owned(), quiet.clone()),
                ("HyperQueue".to_owned(), rate(self.files.clone())),
                ("pueue".to_owned(), rate(self.pueue.clone())),
            ]);
            for row in [&mut *process, &mut *power] {
                row.beside
                    .push(("task-spooler".to_owned(), spooler.clone()));
                row.beside
                    .push(("nq, one at a time".to_owned(), nq.clone()));
            }
            power.goal.push_str(", and ahead of nq");
            power.reached = power
                .reached
                .map(|is| is && power.ours.median() > nq.median());
        }
        for (name, peer) in [("task-spooler", spooler), ("HyperQueue", quiet)] {
            let row = Row::new(&format!("{name}, for comparison"), peer.clone());
            found.rows.push(row.ratio("of the starts", peer.by(&spawn)));
        }
        found.note(format!(
            "A task makes {syncs:.1} syncs between the end of its submission and its own end, counted with strace."
        ));
        found.note(format!(
            "task-spooler and nq are timed from the first submission to the last end, because they start tasks at once\n(nq with {} tasks, because a submission reads all earlier ones). pueue is paused, filled with {} tasks and\nreleased. HyperQueue gets all tasks in one call of its Python package.",
            scale.tasks / FEWER, scale.slow_tasks
        ));
        found
    }
}

fn rate(samples: Vec<f64>) -> Figure {
    Figure::new("/s", samples)
}

/// The rows of one ground. The first is `process`, the second `power`.
fn report_ground(
    found: &mut Findings,
    what: &str,
    (ground, rates): (Ground, Rates),
    spawn: &Figure,
    syncs: f64,
) {
    let on = ground.suffix();
    let (process, power, both) = (rate(rates.process), rate(rates.power), rate(rates.both));
    let (to_spawn, to_both, to_process) = (process.by(spawn), power.by(&both), power.by(&process));
    let is_fast = to_spawn.median() >= 0.60;
    let row = Row::new(&format!("{what}, `durability=process`{on}"), process)
        .beside("5 threads that start `/bin/true`", spawn.clone())
        .ratio("of the starts", to_spawn);
    found.rows.push(match ground {
        Ground::Image => row.goal("≥ 0.60", is_fast),
        Ground::Disk => row,
    });
    let is_fast = to_both.median() >= 0.75;
    let threads = format!(
        "5 threads that start `/bin/true` and sync {syncs:.0} small files, and do nothing else"
    );
    let row = Row::new(&format!("{what}, `durability=power`{on}"), power.clone())
        .beside("fsyncs, 5 threads", rate(rates.fsync))
        .beside("fsyncs, 1 thread", rate(rates.fsync_one))
        .beside(&threads, both)
        .ratio("of those threads", to_both);
    found.rows.push(row.goal("≥ 0.75", is_fast));
    let is_fast = to_process.median() >= 0.75;
    let row = Row::new(&format!("the same, compared with `process`{on}"), power);
    let row = row.ratio("of `process`", to_process);
    found.rows.push(match ground {
        Ground::Image => row,
        Ground::Disk => row.goal("≥ 0.75", is_fast),
    });
    for (name, whole) in [
        ("process", rates.process_whole),
        ("power", rates.power_whole),
    ] {
        let whole = rate(whole);
        let ratio = whole.by(spawn);
        let row = Row::new(&format!("including their submission, `{name}`{on}"), whole);
        found.rows.push(row.ratio("of the starts", ratio));
    }
}

fn per_second(tasks: usize, took: Duration) -> f64 {
    tasks as f64 / took.as_secs_f64()
}

/// How long submitting and running them takes, on a new spool.
pub fn ours(ground: Ground, durability: Durability, tasks: usize) -> (Duration, Duration) {
    ground.fresh(|folder| {
        let spool = Spool::make(folder.join("spool"), durability);
        let (queued, ids) = spool.submit_batch("true", tasks);
        let drained = spool.drain();
        for id in ids {
            let result = spool.task(&id).join("result.json");
            assert!(result.exists(), "{} is missing", result.display());
        }
        (queued, drained)
    })
}

/// One peer on a new file system.
pub fn rival_rate(name: &str, tasks: usize) -> f64 {
    Ground::Image.fresh(|folder| {
        let folder = folder.join("queue");
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

pub fn folder_in(folder: &std::path::Path, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(&path).expect("a folder can be made");
    path
}

/// Counted over fifty more tasks, so that the watcher's own syncs are left out.
fn syncs_of_a_task() -> f64 {
    let counted = |tasks: usize| {
        Ground::Image.fresh(|folder| {
            let spool = Spool::make(folder.join("spool"), Durability::Power);
            spool.submit_batch("true", tasks);
            spool.syncs(&["watch", "--drain"])
        })
    };
    let (few, many) = (counted(10), counted(60));
    (many - few) as f64 / 50.0
}
