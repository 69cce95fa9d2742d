//! An idle watcher's memory and wake-ups, the size of the program, and its start.
//!
//! A wake-up is a change in the kernel's count of context switches of any thread of the watcher, read ten
//! times a second. The memory for a long queue is measured in `backlog.rs`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Scale;
use crate::figure::{Figure, Findings, Row};
use crate::image::Ground;
use crate::submit::start;
use crate::world::{Durability, Spool, program, time};

const LOOKS_A_SECOND: u32 = 10;
/// The default of `rescan_sec`.
const RESCAN: u32 = 5;

pub fn measure(scale: &Scale) -> Findings {
    let mut found = Findings::default();
    idle(scale, &mut found);
    file_and_start(scale, &mut found);
    found
}

fn idle(scale: &Scale, found: &mut Findings) {
    Ground::Image.fresh(|folder| idle_in(folder, scale, found));
}

fn idle_in(folder: &std::path::Path, scale: &Scale, found: &mut Findings) {
    let watcher = Spool::make(folder.join("spool"), Durability::Power).watcher();
    std::thread::sleep(Duration::from_secs(1));
    let mut before = switches(watcher.pid());
    let (mut awake, mut all) = (0, 0);
    for _ in 0..scale.idle_seconds * LOOKS_A_SECOND {
        std::thread::sleep(Duration::from_secs(1) / LOOKS_A_SECOND);
        let now = switches(watcher.pid());
        awake += usize::from(now != before);
        all += now - before;
        before = now;
    }
    let (resident, peak) = memory_mb(watcher.pid());
    drop(watcher);
    let row = Row::new("idle watcher, resident memory", Figure::one("MB", resident));
    found.rows.push(
        row.beside("peak", Figure::one("MB", peak))
            .goal("≤ 6 MB", resident <= 6.0),
    );
    let rescans = (scale.idle_seconds / RESCAN + 1) as usize;
    let what = format!("wake-ups in {} idle seconds", scale.idle_seconds);
    let row = Row::new(&what, Figure::one("", awake as f64));
    found.rows.push(
        row.beside("context switches in them", Figure::one("", all as f64))
            .goal(&format!("the rescans alone: ≤ {rescans}"), awake <= rescans),
    );
}

/// The resident memory of a process now, and at its peak.
pub fn memory_mb(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is running");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kib: f64 = number
            .and_then(|kib| kib.parse().ok())
            .expect("a number of kB");
        kib / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is running");
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse::<u64>().ok()
    };
    threads.flatten().filter_map(of).sum()
}

fn file_and_start(scale: &Scale, found: &mut Findings) {
    let bytes = fs::metadata(program()).expect("the program exists").len();
    let size = bytes as f64 / 1e6;
    let row = Row::new("the program's file", Figure::one("MB", size));
    found.rows.push(row.goal("< 4 MB", size < 4.0));
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..scale.repeats {
            times[0].push(time(&mut start()));
            let mut version = Command::new(program());
            version.arg("--version").env_clear().stdin(Stdio::null());
            times[1].push(time(version.stdout(Stdio::null())));
        }
        let [start, version] = times.map(|times| Figure::of_times(&times).median());
        floor.push(start);
        ours.push(version);
    }
    let (ours, floor) = (Figure::new("ms", ours), Figure::new("ms", floor));
    let ratio = ours.by(&floor);
    let is_quick = ratio.median() < 1.5;
    found.rows.push(
        Row::new("`agentspool --version`", ours)
            .beside("starting `/bin/true`", floor)
            .ratio("of `/bin/true`", ratio)
            .goal("< 1.5", is_quick),
    );
}
