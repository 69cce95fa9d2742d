//! Whether a long queue is as fast as a short one, and how much memory a watcher needs for it.
//!
//! The rate comes from the results' own times of change, from the hundredth to the thousandth result of a
//! watcher. So the watcher's start is not part of it, and no process counts files during the run. Before each
//! round the file system is mounted again.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Size;
use crate::population::Population;
use crate::report::number;
use crate::resident::memory_mb;
use crate::world::{Durability, Spool, World, wait_until};

pub fn measure(scale: &Scale, population: &mut Population) -> Findings {
    let span = Span::of(population.tasks());
    let all = population.ids();
    let mut long = population.waiting("waiting");
    let mut short = World::of_size("short", Size::Large, Durability::Process);
    let (mut fast, mut slow) = (Vec::new(), Vec::new());
    let (mut resident, mut most) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let (_, ids) = short.spool.submit_batch("true", span.last + span.spare);
        short = short.remounted();
        fast.push(rate(&short.spool, &ids, &span).0);
        short.spool.drain();
        long = long.remounted();
        let left = left(&long.spool, &all);
        let (rate, now, peak) = rate(&long.spool, left, &span);
        slow.push(rate);
        resident.push(now);
        most.push(peak);
        eprintln!("  round {}", round + 1);
    }
    drop(short.into_image());
    drop(long.into_image());
    let (fast, slow) = (Figure::new("/s", fast), Figure::new("/s", slow));
    let ratio = slow.by(&fast);
    let holds = ratio.median() >= 0.9;
    let mut found = Findings::default();
    let waiting = number(population.tasks() as f64);
    found.rows.push(
        Row::new(&format!("rate with {waiting} waiting, `process`"), slow)
            .beside(
                &format!("with {}", number((span.last + span.spare) as f64)),
                fast,
            )
            .ratio("of the rate with few", ratio)
            .goal("≥ 0.9", holds),
    );
    let ours = Figure::new("MB", resident);
    let is_small = ours.median() <= 40.0;
    found.rows.push(
        Row::new(
            &format!("watcher with {waiting} waiting, resident memory"),
            ours,
        )
        .beside("peak", Figure::new("MB", most))
        .goal("≤ 40 MB", is_small),
    );
    found
}

/// Which results of one watcher count.
struct Span {
    first: usize,
    last: usize,
    spare: usize,
}

impl Span {
    fn of(tasks: usize) -> Span {
        let last = 1_000.min(tasks / 5);
        Span {
            first: last / 10,
            last,
            spare: last / 20,
        }
    }
}

/// The tasks that no round has run yet, which run from the oldest on.
fn left<'a>(spool: &Spool, ids: &'a [String]) -> &'a [String] {
    let result = |id: &String| spool.task(id).join("result.json");
    // A few results may be missing among the others.
    let done = ids.iter().rposition(|id| result(id).exists());
    &ids[done.map_or(0, |at| at + 1)..]
}

/// Tasks a second, and the watcher's memory at that time and at its peak.
fn rate(spool: &Spool, ids: &[String], span: &Span) -> (f64, f64, f64) {
    let results: Vec<_> = ids[..span.last + span.spare]
        .iter()
        .map(|id| spool.task(id).join("result.json"))
        .collect();
    let watcher = spool.start_watcher();
    let last = results.last().expect("tasks");
    wait_until("the watcher ran as many", || {
        std::thread::sleep(Duration::from_millis(10));
        last.exists()
    });
    let (now, peak) = memory_mb(watcher.pid());
    let begun = Instant::now();
    drop(watcher);
    wait_until("its runners are gone", || {
        begun.elapsed() > Duration::from_millis(300)
    });
    let mut times: Vec<f64> = results.iter().filter_map(|path| changed(path)).collect();
    times.sort_by(f64::total_cmp);
    let took = times[span.last - 1] - times[span.first - 1];
    ((span.last - span.first) as f64 / took, now, peak)
}

fn changed(path: &Path) -> Option<f64> {
    let file = std::fs::metadata(path).ok()?;
    Some(file.ctime() as f64 + file.ctime_nsec() as f64 / 1e9)
}
