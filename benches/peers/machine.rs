//! What the figures were measured on: the machine, its disk, and the versions of everything that is compared.
//!
//! Reads what the system reports about itself. It names neither the machine nor its owner.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::image::place;
use crate::rivals::tools;

#[derive(Serialize, Deserialize)]
pub struct Machine {
    /// Name and value, in the order of the page.
    pub facts: Vec<(String, String)>,
}

impl Machine {
    pub fn look() -> Machine {
        let facts = [
            (
                "date",
                jiff::Timestamp::now()
                    .strftime("%Y-%m-%d %H:%M UTC")
                    .to_string(),
            ),
            ("commit", commit()),
            ("program", program()),
            ("processor", processor()),
            ("memory", memory()),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("system", system()),
            ("disk below the images", disk()),
            ("load before the run", load()),
            ("task-spooler", package("task-spooler")),
            ("nq", package("nq")),
            (
                "pueue",
                first_line(Command::new(tools().join("bin/pueue")).arg("--version")),
            ),
            ("HyperQueue", hyperqueue()),
        ];
        Machine {
            facts: facts.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn first_line(command: &mut Command) -> String {
    let output = command.output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        first_line(
            command
                .arg("-C")
                .arg(env!("CARGO_MANIFEST_DIR"))
                .args(arguments),
        )
    };
    let changed = match git(&["status", "--porcelain", "--", "src", "benches"]).as_str() {
        "unknown" => "",
        _ => ", and changes since",
    };
    format!("{}{changed}", git(&["rev-parse", "--short", "HEAD"]))
}

fn program() -> String {
    let message = match std::env::var_os("BENCH_PROGRAM") {
        Some(_) => "built by `just release`",
        None => "built by `cargo bench`",
    };
    message.to_owned()
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let of = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.trim() == name);
        values.next().map(|(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = of("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{model}, {cores} cores")
}

fn memory() -> String {
    let text = read("/proc/meminfo");
    let kib = text.split_whitespace().nth(1);
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
    format!("{:.1} GiB", kib / 1024.0 / 1024.0)
}

fn system() -> String {
    let text = read("/etc/os-release");
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn disk() -> String {
    let mut command = Command::new("findmnt");
    command
        .args(["-n", "-o", "FSTYPE,OPTIONS", "--target"])
        .arg(place());
    let message = first_line(&mut command);
    message.split_whitespace().collect::<Vec<_>>().join(", ")
}

fn load() -> String {
    let text = read("/proc/loadavg");
    text.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" and ")
}

fn package(name: &str) -> String {
    first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version} of Debian\n", name]))
}

fn hyperqueue() -> String {
    let ask = "import hyperqueue; print(hyperqueue.get_version(), 'of PyPI')";
    first_line(
        Command::new("python3")
            .env("PYTHONPATH", tools().join("python"))
            .args(["-c", ask]),
    )
}
