//! The rate against the number of tasks: does it hold from ten to a hundred thousand?
//!
//! agentspool and the floor are measured at every number, the peers up to what they do in about twenty
//! seconds. The hundred thousand tasks are those that the other scenarios need anyway, run once.

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::inner;
use crate::population::Population;
use crate::rate::{AT_ONCE, ours, rival_rate};
use crate::report::number;
use crate::world::Durability;

const FLOOR: &str = "starting /bin/true";

pub fn measure(scale: &Scale, population: &mut Population) -> Findings {
    let mut found = Findings::default();
    let rate = |durability| {
        move |tasks: usize| {
            let (_, drained) = ours(Ground::Image, durability, tasks);
            tasks as f64 / drained.as_secs_f64()
        }
    };
    let most = scale.tasks * 5;
    let floor = curve(scale, most, |tasks| {
        inner::spawns_per_second(tasks, AT_ONCE)
    });
    let mut process = curve(scale, most, rate(Durability::Process));
    let power = curve(scale, most, rate(Durability::Power));
    process.push((population.tasks() as f64, population.rate()));
    let at = |points: &[(f64, f64)], tasks: usize| {
        let point = points.iter().find(|point| point.0 == tasks as f64);
        point.expect("a point of the curve").1
    };
    let thousand = at(&process, 1_000.min(most));
    let ratio = population.rate() / thousand;
    let row = Row::new(
        &format!("{} tasks, `process`", number(population.tasks() as f64)),
        Figure::one("/s", population.rate()),
    );
    found.rows.push(
        row.beside("1,000 tasks", Figure::one("/s", thousand))
            .ratio("of the rate at 1,000", Figure::one("×", ratio)),
    );
    found.curve(FLOOR, floor);
    found.curve("agentspool, process", process);
    found.curve("agentspool, power", power);
    for (name, rival, most) in [
        ("HyperQueue", "hq quiet", most),
        ("task-spooler", "tsp", most),
        ("nq", "nq", scale.tasks),
        ("pueue", "pueue", scale.slow_tasks),
    ] {
        eprintln!("  {name}");
        let points = curve(scale, most, |tasks| rival_rate(rival, tasks));
        found.curve(name, points);
    }
    found.note("Each point is the median of three runs; from 10,000 tasks on, it is one run. The start of a watcher is part of\nthe time of agentspool, so a small number of tasks looks slow.");
    found
}

/// The rate at ten, a hundred and so on.
fn curve(scale: &Scale, most: usize, rate: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
    let numbers = (1..).map(|power| 10_usize.pow(power));
    let numbers = numbers.take_while(|tasks| *tasks <= most);
    let point = |tasks: usize| {
        let runs = if tasks >= 10_000 {
            1
        } else {
            scale.rounds.min(3)
        };
        let samples = (0..runs).map(|_| rate(tasks)).collect();
        (tasks as f64, Figure::new("/s", samples).median())
    };
    numbers.map(point).collect()
}
