//! What it costs to hand a task over: one by the command line, and ten thousand in a batch.
//!
//! One submission is compared with a start of `/bin/true` and the peers' own commands, in alternation, so
//! that all meet the same machine. No watcher runs the tasks of agentspool during that. Peers that cannot be
//! paused start their tasks at once, and get time for it that is not counted.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::inner;
use crate::rate::folder_in;
use crate::report::number;
use crate::rivals::{Nq, Pueue, Rival, TaskSpooler};
use crate::world::{Durability, Spool, time};

/// What one `submit` that syncs nothing may cost, in starts of `/bin/true`.
const STARTS: f64 = 3.0;

pub fn measure(scale: &Scale) -> Findings {
    let mut found = Findings::default();
    for ground in Ground::BOTH {
        one(ground, scale, &mut found);
    }
    for ground in Ground::BOTH {
        batch(ground, scale, &mut found);
    }
    let syncs = batch_syncs();
    found.note(format!(
        "A task of a batch makes {syncs:.2} syncs, counted with strace."
    ));
    found
}

/// The median of each round.
#[derive(Default)]
struct Rounds {
    start: Vec<f64>,
    power: Vec<f64>,
    process: Vec<f64>,
    peers: [Vec<f64>; 3],
    sync: Vec<f64>,
}

fn one(ground: Ground, scale: &Scale, found: &mut Findings) {
    let mut rounds = Rounds::default();
    let mut syncs = 0;
    for _ in 0..scale.rounds {
        ground.fresh(|folder| {
            let at = |name: &str| folder.join(name);
            let power = Spool::make(at("power"), Durability::Power);
            let process = Spool::make(at("process"), Durability::Process);
            let pueue = Pueue::start(at("pueue"));
            pueue.pause();
            let peers: [Box<dyn Rival>; 3] = [
                Box::new(Nq::start(at("nq"))),
                Box::new(TaskSpooler::start(at("tsp"))),
                Box::new(pueue),
            ];
            syncs = power.syncs(&ONE);
            rounds.take(scale, [&power, &process], &peers);
            let span = Duration::from_millis(700);
            let synced = inner::fsyncs_per_second(&folder_in(folder, "syncs"), 1, span);
            rounds.sync.push(1e3 / synced);
        });
    }
    rounds.report(ground, syncs, found);
}

const ONE: [&str; 4] = ["submit", "--recipe", "true", "-q"];

impl Rounds {
    fn take(&mut self, scale: &Scale, ours: [&Spool; 2], peers: &[Box<dyn Rival>; 3]) {
        let mut times: [Vec<Duration>; 6] = Default::default();
        for _ in 0..scale.repeats {
            times[0].push(time(&mut start()));
            times[1].push(ours[0].time(&ONE));
            times[2].push(ours[1].time(&ONE));
            for (peer, times) in peers.iter().zip(&mut times[3..]) {
                times.push(time(&mut peer.submission(&["/bin/true"])));
                std::thread::sleep(Duration::from_millis(4));
            }
        }
        let [start, power, process, nq, spooler, pueue] =
            times.map(|times| Figure::of_times(&times).median());
        self.start.push(start);
        self.power.push(power);
        self.process.push(process);
        for (all, median) in self.peers.iter_mut().zip([nq, spooler, pueue]) {
            all.push(median);
        }
    }

    fn report(self, ground: Ground, syncs: usize, found: &mut Findings) {
        let figure = |samples| Figure::new("ms", samples);
        let (start, sync) = (figure(self.start), figure(self.sync));
        let (power, process) = (figure(self.power), figure(self.process));
        let [nq, spooler, pueue] = self.peers.map(figure);
        let on = ground.suffix();
        let is_ahead = power.median() < pueue.median();
        let with_one = process.plus(&sync);
        let ratio = power.by(&with_one);
        let row = Row::new(&format!("one `submit`, `durability=power`{on}"), power)
            .beside("one fsync", sync)
            .beside("nq", nq)
            .beside("pueue", pueue)
            .beside("task-spooler", spooler)
            .ratio("of `process` and one fsync", ratio)
            .goal("ahead of pueue", is_ahead);
        found.rows.push(row);
        let ratio = process.by(&start);
        let is_fast = ratio.median() <= STARTS;
        let row = Row::new(&format!("one `submit`, `durability=process`{on}"), process)
            .beside("starting `/bin/true`", start)
            .ratio("starts", ratio)
            .goal("≤ 3", is_fast);
        found.rows.push(row);
        if ground == Ground::Image {
            found.note(format!(
                "One `submit` makes {syncs} syncs, counted with strace. Each sample is the median of the submissions of a round."
            ));
        }
    }
}

/// The least that any command costs.
pub fn start() -> Command {
    let mut command = Command::new("/bin/true");
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn batch(ground: Ground, scale: &Scale, found: &mut Findings) {
    let count = scale.tasks * 5;
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut disk = Vec::new();
    for _ in 0..scale.rounds {
        for (durability, rates) in Durability::BOTH.into_iter().zip(&mut rates) {
            ground.fresh(|folder| {
                let spool = Spool::make(folder.join("spool"), durability);
                let (took, _) = spool.submit_batch("true", count);
                rates.push(count as f64 / took.as_secs_f64());
            });
        }
        disk.push(
            ground.fresh(|folder| inner::fsyncs_per_second(folder, 1, Duration::from_millis(700))),
        );
    }
    let [process, power] = rates.map(|samples| Figure::new("/s", samples));
    let are_fast = [process.median() >= 5_000.0, power.median() >= 1_000.0];
    let what = format!("`submit --batch` of {}", number(count as f64));
    let on = ground.suffix();
    let row = Row::new(&format!("{what}, `durability=process`{on}"), process);
    found.rows.push(row.goal("≥ 5,000/s", are_fast[0]));
    let row = Row::new(&format!("{what}, `durability=power`{on}"), power)
        .beside("fsyncs, 1 thread", Figure::new("/s", disk))
        .goal("≥ 1,000/s", are_fast[1]);
    found.rows.push(row);
}

fn batch_syncs() -> f64 {
    Ground::Image.fresh(|folder| {
        let spool = Spool::make(folder.join("spool"), Durability::Power);
        let counted = |count: usize| {
            let requests = spool.requests("true", count);
            let requests = requests.to_str().expect("a path in UTF-8");
            spool.syncs(&["submit", "--batch", requests])
        };
        let (few, many) = (counted(100), counted(600));
        (many as f64 - few as f64) / 500.0
    })
}
