//! A hundred thousand finished tasks: what queries cost there, and a watcher's cold start.
//!
//! Queries run in alternation with `/bin/true` and `ls -U`, after one warm-up of each that is not counted.
//! Before each start of a watcher the file system is unmounted and mounted, so that the kernel has none of
//! its files cached. The disk's own cache stays.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Scale;
use crate::figure::{Figure, Findings, Row, ms};
use crate::population::Population;
use crate::report::number;
use crate::submit::start;
use crate::world::{Spool, World, monotonic, time, wait_until};

/// Waiting tasks in addition to the finished ones.
const PENDING: usize = 1_000;

pub fn measure(scale: &Scale, population: &mut Population) -> Findings {
    let mut found = Findings::default();
    let ids = population.ids();
    let world = population.finished("many");
    questions(scale, &world.spool, &ids, &mut found);
    cold_start(scale, world, ids.len(), &mut found);
    found
}

fn questions(scale: &Scale, spool: &Spool, ids: &[String], found: &mut Findings) {
    let id = &ids[ids.len() / 2];
    // What people copy from a list: the last eight characters.
    let part = &id[id.len() - 8..];
    let asked: [(&str, &[&str], f64); 6] = [
        ("`list` (a page of 20)", &["list"], 60.0),
        (
            "`list --status running`",
            &["list", "--status", "running"],
            60.0,
        ),
        ("`status` by full id", &["status", id], 3.0),
        ("`status` by the end of an id", &["status", part], 60.0),
        ("`status` by name", &["status", "true-0"], 60.0),
        ("`sweep` with nothing to do", &["sweep"], 150.0),
    ];
    let tasks = spool.path().join("tasks");
    let mut floors: [Vec<f64>; 2] = Default::default();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); asked.len()];
    for round in 0..=scale.questions {
        let floor = [time(&mut start()), time(&mut ls(&tasks))].map(ms);
        let answers = asked.map(|(_, arguments, _)| ms(spool.time(arguments)));
        if round > 0 {
            floors[0].push(floor[0]);
            floors[1].push(floor[1]);
            times
                .iter_mut()
                .zip(answers)
                .for_each(|(all, one)| all.push(one));
        }
    }
    let [start, ls] = floors.map(|samples| Figure::new("ms", samples));
    for ((what, _, most), samples) in asked.into_iter().zip(times) {
        let ours = Figure::new("ms", samples);
        let is_soon = ours.median() <= most;
        found.rows.push(
            Row::new(
                &format!("{what}, {} finished tasks", number(ids.len() as f64)),
                ours,
            )
            .beside("`ls -U` of `tasks/`", ls.clone())
            .beside("starting `/bin/true`", start.clone())
            .goal(&format!("≤ {most} ms"), is_soon),
        );
    }
}

fn ls(folder: &Path) -> Command {
    let mut command = Command::new("ls");
    command.arg("-U").arg(folder).stdout(Stdio::null());
    command
}

fn cold_start(scale: &Scale, world: World, finished: usize, found: &mut Findings) {
    let mut times = Vec::new();
    let mut starts = Vec::new();
    let mut world = world;
    for _ in 0..scale.rounds {
        let (_, ids) = world.spool.submit_batch("stamp", PENDING);
        world = world.remounted();
        starts.push(ms(time(&mut start())));
        let begun = monotonic();
        let watcher = world.spool.start_watcher();
        // The oldest is started first; the moments of the others can only be later.
        let result = world.spool.task(&ids[0]).join("result.json");
        wait_until("the oldest task is over", || result.exists());
        let result = std::fs::read(result).expect("a result can be read");
        let result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
        let stamp = result["output"]
            .as_i64()
            .expect("the recipe printed its moment");
        times.push((stamp - begun) as f64 / 1e6);
        drop(watcher);
        // So that the next round starts with the same number.
        world.spool.drain();
    }
    drop(world.into_image());
    let ours = Figure::new("ms", times);
    let is_soon = ours.median() <= 300.0;
    let what = format!(
        "a watcher's start → first instruction, {} finished and {} waiting tasks, just mounted",
        number(finished as f64),
        number(PENDING as f64)
    );
    found.rows.push(
        Row::new(&what, ours)
            .beside("starting `/bin/true`", Figure::new("ms", starts))
            .goal("≤ 300 ms", is_soon),
    );
}
