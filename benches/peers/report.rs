//! Writes what was measured: every sample as JSON, and the page `docs/performance.md` with its plots.
//!
//! Only the part of the page between `<!-- measured: NAME -->` and `<!-- end -->` is written here. The text
//! around it is kept and is edited by hand. Invariant: each table is from one run of its scenario. It names
//! the commit and the time, unless all tables are from the same run.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::figure::{Curve, Figure, Findings, Row};
use crate::image::place;
use crate::machine::Machine;
use crate::{SCENARIOS, Scale, plot};

#[derive(Serialize, Deserialize)]
struct Kept<F> {
    scenario: String,
    machine: Machine,
    found: F,
}

fn folder(scale: &Scale) -> PathBuf {
    let folder = match scale.is_quick {
        true => place().join("quick"),
        false => place(),
    };
    fs::create_dir_all(&folder).expect("the target folder can be written to");
    folder
}

/// Keeps a scenario's findings for the page.
pub fn keep(scenario: &str, scale: &Scale, machine: &Machine, found: &Findings) {
    let facts = machine.facts.clone();
    let kept = Kept {
        scenario: scenario.to_owned(),
        machine: Machine { facts },
        found,
    };
    let text = serde_json::to_string_pretty(&kept).expect("findings are JSON");
    let path = folder(scale).join(format!("{scenario}.json"));
    fs::write(path, text).expect("findings can be kept");
}

/// Writes the page from all findings that were kept.
pub fn write(scale: &Scale) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("docs/performance.md");
    let (to, plots) = match scale.is_quick {
        true => (folder(scale).join("performance.md"), folder(scale)),
        false => (page.clone(), root.join("docs/performance")),
    };
    fs::create_dir_all(&plots).expect("the folder of the plots can be made");
    let mut text = fs::read_to_string(&page).expect("docs/performance.md exists");
    let all: Vec<Kept<Findings>> = SCENARIOS
        .into_iter()
        .filter_map(|name| {
            let text = fs::read_to_string(folder(scale).join(format!("{name}.json"))).ok()?;
            Some(serde_json::from_str(&text).expect("what was kept can be read"))
        })
        .collect();
    for kept in &all {
        let plot = draw(&kept.scenario, &kept.found.curves, &plots);
        let section = format!("{}{plot}", section(kept, &all));
        text = filled(&text, &kept.scenario, &section);
    }
    if let Some(last) = all.iter().max_by_key(|kept| date(&kept.machine)) {
        text = filled(&text, "machine", &describe(&last.machine));
    }
    text = filled(&text, "goals", &goals(&all));
    text = filled(&text, "pure", &pure());
    fs::write(&to, text).expect("the page can be written");
}

/// The page with a block's content replaced.
fn filled(page: &str, block: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- measured: {block} -->\n"), "<!-- end -->");
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    let (before, after) =
        parts.unwrap_or_else(|| panic!("docs/performance.md has no block {block:?}"));
    format!("{before}{begin}\n{}\n\n{end}{after}", content.trim())
}

fn date(machine: &Machine) -> String {
    machine
        .facts
        .first()
        .map_or(String::new(), |fact| fact.1.clone())
}

fn describe(machine: &Machine) -> String {
    let lines = machine
        .facts
        .iter()
        .map(|(name, value)| format!("| {name} | {value} |\n"));
    format!("| | |\n|---|---|\n{}", lines.collect::<String>())
}

fn section(kept: &Kept<Findings>, all: &[Kept<Findings>]) -> String {
    let mut text = table(&kept.found);
    for note in &kept.found.notes {
        let _ = write!(text, "\n{note}\n");
    }
    let taken = date(&kept.machine);
    if all.iter().any(|other| date(&other.machine) != taken) {
        let commit = kept.machine.facts.get(1).map_or("", |fact| &fact.1);
        let _ = write!(text, "\nMeasured {taken}, commit {commit}.\n");
    }
    text
}

/// All rows of a scenario.
pub fn table(found: &Findings) -> String {
    let mut text =
        "| what | agentspool | for comparison | ratio | goal | reached |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for row in &found.rows {
        let beside: Vec<String> = row
            .beside
            .iter()
            .map(|(name, figure)| format!("{name}: {}", message(figure)))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.what,
            message(&row.ours),
            beside.join("<br>"),
            ratio(row),
            row.goal,
            verdict(row)
        );
    }
    text
}

/// The rows that have a goal, without what they are compared with.
fn goals(all: &[Kept<Findings>]) -> String {
    let rows = all.iter().flat_map(|kept| &kept.found.rows);
    let rows: Vec<&Row> = rows.filter(|row| row.reached.is_some()).collect();
    let reached = rows.iter().filter(|row| row.reached == Some(true)).count();
    let mut text = format!(
        "{reached} of {} goals are reached.\n\n| what | agentspool | ratio | goal | reached |\n|---|---|---|---|---|\n",
        rows.len()
    );
    for row in rows {
        let ours = short(&row.ours);
        let ratio = row.ratio.as_ref().map_or(String::new(), |(of, figure)| {
            format!("{} {of}", number(figure.median()))
        });
        let _ = writeln!(
            text,
            "| {} | {ours} | {ratio} | {} | {} |",
            row.what,
            row.goal,
            verdict(row)
        );
    }
    text
}

fn verdict(row: &Row) -> &'static str {
    match row.reached {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    }
}

fn ratio(row: &Row) -> String {
    row.ratio.as_ref().map_or(String::new(), |(of, figure)| {
        format!("{} {of}", message(figure))
    })
}

fn short(figure: &Figure) -> String {
    match figure.unit.as_str() {
        "" | "×" => number(figure.median()),
        "/s" => format!("{}/s", number(figure.median())),
        unit => format!("{} {unit}", number(figure.median())),
    }
}

/// The median, with the least and the most of the samples.
fn message(figure: &Figure) -> String {
    match figure.samples.len() {
        1 => short(figure),
        _ => format!(
            "{} ({}–{})",
            short(figure),
            number(figure.quantile(0.0)),
            number(figure.quantile(1.0))
        ),
    }
}

/// With the digits that are significant.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => thousands(value.round() as i64),
        size if size >= 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// Draws the curves of a scenario, and returns the text that shows the plot.
fn draw(scenario: &str, curves: &[Curve], plots: &Path) -> String {
    let (name, shows, drawn) = match scenario {
        "curve" => {
            let drawn = plot::rates(&plots.join("rate.svg"), curves);
            ("rate", "The rate against the number of tasks", drawn)
        }
        "latency" => {
            let drawn = plot::latencies(&plots.join("latency.svg"), curves);
            ("latency", "The distribution of the latencies", drawn)
        }
        _ => return String::new(),
    };
    drawn.expect("a plot can be drawn");
    format!("\n![{shows}](performance/{name}.svg)\n")
}

/// What criterion kept of the last `cargo bench --bench pure`.
fn pure() -> String {
    let kept = place().with_file_name("criterion");
    let mut rows: Vec<(String, f64)> = fs::read_dir(kept)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| estimate(&entry.path()))
        .collect();
    rows.sort_by(|one, two| one.0.cmp(&two.0));
    let mut text = "| what | median |\n|---|---|\n".to_owned();
    for (name, nanoseconds) in rows {
        let (value, unit) = match nanoseconds {
            ns if ns >= 1e6 => (ns / 1e6, "ms"),
            ns if ns >= 1e3 => (ns / 1e3, "µs"),
            ns => (ns, "ns"),
        };
        let _ = writeln!(text, "| {name} | {} {unit} |", number(value));
    }
    text
}

fn estimate(folder: &Path) -> Option<(String, f64)> {
    let read = |name: &str| {
        let text = fs::read_to_string(folder.join("new").join(name)).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    };
    let name = read("benchmark.json")?["full_id"].as_str()?.to_owned();
    let median = read("estimates.json")?["median"]["point_estimate"].as_f64()?;
    Some((name, median))
}
