//! Sweeping a hundred thousand tasks that are old enough, compared with `rm -rf` of the same tree.
//!
//! Each runs on its own copy of one image, in alternation. Both remove the tasks' folders. A sweep that has
//! nothing to do is measured in `many.rs`.

use std::process::Command;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::population::Population;
use crate::report::number;
use crate::world::time;

pub fn measure(scale: &Scale, population: &mut Population) -> Findings {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        let world = population.finished("rm");
        let tasks = world.spool.path().join("tasks");
        let took = time(Command::new("rm").arg("-rf").arg(&tasks));
        floor.push(took.as_secs_f64());
        drop(world.into_image());
        let world = population.finished("sweep");
        let took = world.spool.time(&["sweep", "--set", "cleanup_delay_sec=0"]);
        ours.push(took.as_secs_f64());
        let left = std::fs::read_dir(world.spool.path().join("tasks"));
        let left = left.expect("the tasks' folder exists").count();
        assert_eq!(left, 0, "tasks that the sweep left");
        drop(world.into_image());
        let (ours, floor) = (ours[round], floor[round]);
        eprintln!("  round {}: {ours:.1} s, rm -rf {floor:.1} s", round + 1);
    }
    let (ours, floor) = (Figure::new("s", ours), Figure::new("s", floor));
    let ratio = ours.by(&floor);
    let is_quick = ratio.median() <= 1.3;
    let mut found = Findings::default();
    found.rows.push(
        Row::new(
            &format!("sweep of {} tasks", number(population.tasks() as f64)),
            ours,
        )
        .beside("`rm -rf` of the same tasks", floor)
        .ratio("of `rm -rf`", ratio)
        .goal("≤ 1.3", is_quick),
    );
    found
}
