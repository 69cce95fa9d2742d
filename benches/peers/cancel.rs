//! How long it takes from a cancellation to the result, for a task that ends at TERM.
//!
//! The cancellation is requested by the command or by the marker alone. The task has run for a moment before,
//! so its runner checks only rarely by itself and has to be woken. The end is the moment at which inotify
//! reports `result.json`. No process polls during the measurement.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Scale;
use crate::cleanup;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::latency::{arrival, begun, listen};
use crate::world::{Durability, Spool, monotonic};

pub fn measure(scale: &Scale) -> Findings {
    let mut found = Findings::default();
    for ground in Ground::BOTH {
        ground.fresh(|folder| measure_in(folder, ground, scale, &mut found));
    }
    found
}

fn measure_in(folder: &Path, ground: Ground, scale: &Scale, found: &mut Findings) {
    let spool = Spool::make(folder.join("spool"), Durability::Power);
    let watcher = spool.watcher();
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..scale.cancels {
        times[0].push(floor());
        times[1].push(span(&spool, true));
        times[2].push(span(&spool, false));
    }
    drop(watcher);
    let [floor, command, marker] = times.map(|samples| Figure::new("ms", samples));
    for (what, ours) in [("`cancel`", command), ("`touch cancel`", marker)] {
        let is_soon = ours.median() <= 20.0;
        let late = Figure::one("ms", ours.quantile(0.99));
        let on = ground.suffix();
        found.rows.push(
            Row::new(&format!("{what} → result on disk{on}"), ours)
                .beside("TERM and wait, alone", floor.clone())
                .beside("99th percentile", late)
                .goal("median ≤ 20 ms", is_soon),
        );
    }
}

/// The signal and its effect alone, without agentspool.
fn floor() -> f64 {
    let mut command = Command::new("/bin/sleep");
    let mut child = command.arg("1000").spawn().expect("sleep can be started");
    std::thread::sleep(Duration::from_millis(20));
    let begun = monotonic();
    cleanup::end(child.id().cast_signed(), rustix::process::Signal::TERM);
    let _ = child.wait();
    (monotonic() - begun) as f64 / 1e6
}

fn span(spool: &Spool, by_command: bool) -> f64 {
    let (id, task) = begun(spool);
    std::thread::sleep(Duration::from_millis(150));
    let listener = listen(&task);
    let asked = monotonic();
    let child = by_command.then(|| {
        let mut command = spool.command(&["cancel", &id]);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program can be started")
    });
    if !by_command {
        std::fs::write(task.join("cancel"), "").expect("a marker can be made");
    }
    let span = (arrival(&listener, "result.json") - asked) as f64 / 1e6;
    if let Some(mut child) = child {
        let _ = child.wait();
    }
    span
}
