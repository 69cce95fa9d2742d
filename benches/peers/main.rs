//! Compares agentspool with its peers and with what the machine can do at all: `just bench`.
//!
//! `cargo bench --bench peers -- [--quick] [NAME…]` runs the named scenarios, or all. It keeps every sample
//! in `target/bench/<scenario>.json` and writes `docs/performance.md` and its plots from all samples that are
//! there. `--quick` does a tenth, for people who work on this program, and writes its page to
//! `target/bench/quick/`. Needs root, ext4 and what `benches/prepare` installs.
//!
//! Not a test: nothing here fails because something is slow. Invariants: every figure is compared with a
//! floor of the same round; every round starts on a fresh file system.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, which reads spools as any other would"
)]

mod backlog;
mod cancel;
mod cleanup;
mod curve;
mod figure;
mod image;
mod inner;
mod latency;
mod machine;
mod many;
mod plot;
mod population;
mod rate;
mod report;
mod resident;
mod rivals;
mod submit;
mod sweep;
mod world;

use std::process::{Command, ExitCode};
use std::time::Instant;

use figure::Findings;
use population::Population;

/// How much of everything.
struct Scale {
    is_quick: bool,
    /// Rounds of what is compared pair by pair.
    rounds: usize,
    /// Short tasks of a round.
    tasks: usize,
    /// The same for a peer that does a dozen a second.
    slow_tasks: usize,
    /// Tasks of a spool that has many.
    many: usize,
    /// Runs of one command in a round.
    repeats: usize,
    latencies: usize,
    cancels: usize,
    questions: usize,
    idle_seconds: u32,
}

const FULL: Scale = Scale {
    is_quick: false,
    rounds: 5,
    tasks: 2_000,
    slow_tasks: 100,
    many: 100_000,
    repeats: 50,
    latencies: 400,
    cancels: 100,
    questions: 20,
    idle_seconds: 30,
};

const QUICK: Scale = Scale {
    is_quick: true,
    rounds: 2,
    tasks: 200,
    slow_tasks: 10,
    many: 5_000,
    repeats: 10,
    latencies: 20,
    cancels: 5,
    questions: 3,
    idle_seconds: 6,
};

/// In the order of the page.
const SCENARIOS: [&str; 9] = [
    "rate", "submit", "latency", "cancel", "resident", "many", "backlog", "curve", "sweep",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if inner::answer(&arguments) {
        return ExitCode::SUCCESS;
    }
    // cargo passes `--bench` to every benchmark.
    let is_flag = |argument: &&String| argument.starts_with("--");
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(is_flag);
    let unknown_flag = flags
        .iter()
        .find(|flag| !["--bench", "--quick"].contains(&flag.as_str()));
    let unknown_name = names
        .iter()
        .find(|name| !SCENARIOS.contains(&name.as_str()));
    if let Some(unknown) = unknown_flag.or(unknown_name) {
        eprintln!("error: {unknown:?} is neither --quick nor one of {SCENARIOS:?}");
        return ExitCode::FAILURE;
    }
    if let Err(missing) = look_for_tools() {
        eprintln!("error: {missing}; run benches/prepare, as root");
        return ExitCode::FAILURE;
    }
    cleanup::on_signals();
    image::remove_all();
    let is_quick = flags.iter().any(|flag| *flag == "--quick");
    let scale = if is_quick { QUICK } else { FULL };
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| *chosen == name);
    let machine = machine::Machine::look();
    let mut population = Population::new(&scale);
    for name in SCENARIOS.into_iter().filter(|name| is_chosen(name)) {
        eprintln!("{name}");
        let begun = Instant::now();
        let found = run(name, &scale, &mut population);
        eprintln!("  {:.0} s", begun.elapsed().as_secs_f64());
        report::keep(name, &scale, &machine, &found);
        print!("{}", report::table(&found));
        // After each scenario, so that a long run that fails keeps its findings.
        report::write(&scale);
    }
    drop(population);
    image::remove_all();
    ExitCode::SUCCESS
}

fn run(name: &str, scale: &Scale, population: &mut Population) -> Findings {
    match name {
        "rate" => rate::measure(scale),
        "submit" => submit::measure(scale),
        "latency" => latency::measure(scale),
        "cancel" => cancel::measure(scale),
        "many" => many::measure(scale, population),
        "backlog" => backlog::measure(scale, population),
        "sweep" => sweep::measure(scale, population),
        "resident" => resident::measure(scale),
        "curve" => curve::measure(scale, population),
        other => unreachable!("no scenario is called {other}"),
    }
}

/// Reports what is missing at once, not after ten minutes.
fn look_for_tools() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may mount the file systems that this measures on".to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there = |tool: &str| {
        let mut folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
        folders.any(|folder| std::path::Path::new(folder).join(tool).exists())
    };
    let wanted = [
        "mkfs.ext4",
        "mount",
        "umount",
        "strace",
        "cc",
        "tsp",
        "nq",
        "python3",
    ];
    if let Some(tool) = wanted.into_iter().find(|tool| !is_there(tool)) {
        return Err(format!("{tool} is missing"));
    }
    for tool in ["pueue", "pueued"] {
        let asked = Command::new(rivals::tools().join("bin").join(tool))
            .arg("--version")
            .output();
        asked.map_err(|error| format!("{tool} is missing ({error})"))?;
    }
    Ok(())
}
