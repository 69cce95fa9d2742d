//! A record of what was acknowledged, kept outside the disk that is cut, and a check of the disk against it.
//!
//! Invariant: it contains only what a command acknowledged with exit code 0, or a status file that shows the
//! task as finished. It reports and never asserts, because the tests that take a sync away must see it
//! report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use agentspool::task::{Request, TaskId};
use serde_json::Value;

use crate::support::{Task, World, marker, names_in};

/// What the producers recorded.
#[derive(Default)]
pub struct Witness {
    /// Ids that `submit` printed.
    pub accepted: Vec<String>,
    /// Tasks that were reported as finished, with the result if it could still be read before the power cut.
    pub ended: BTreeMap<String, Option<String>>,
    /// Tasks whose cancellation was acknowledged, and that had not ended.
    pub cancelled: Vec<String>,
    /// Drops that their producer synced, by the number in their metadata.
    pub drops: BTreeSet<u64>,
    /// Settings that `config set` wrote.
    pub settings: BTreeMap<String, Value>,
    /// Where recipes write `ID ATTEMPT` when they start.
    pub starts: PathBuf,
}

impl Witness {
    pub fn new(starts: PathBuf) -> Witness {
        Witness {
            starts,
            ..Witness::default()
        }
    }

    /// Everything that must be true of the files themselves, at any time. A task that was not acknowledged
    /// may be incomplete as long as it has its marker.
    pub fn of_files(&self, world: &World) -> Vec<String> {
        let mut wrong = Vec::new();
        for id in &self.accepted {
            let task = world.task(id);
            if task.path.exists() {
                torn(&task, &mut wrong);
            } else {
                wrong.push(format!("{id} was accepted and is lost"));
            }
        }
        for name in names_in(&world.path("tasks")) {
            if name.parse::<TaskId>().is_err() {
                wrong.push(format!("{name} in tasks/ is not a task"));
            }
            let task = world.task(&name);
            if !self.accepted.contains(&name) && marker::markers(&task).is_empty() {
                torn(&task, &mut wrong);
            }
        }
        let text = fs::read_to_string(world.path("spool.json")).unwrap_or_default();
        let stored: Value = serde_json::from_str(&text).unwrap_or_default();
        for (key, value) in &self.settings {
            if stored[key] != *value {
                wrong.push(format!("{key} was set to {value} and is {}", stored[key]));
            }
        }
        for (id, before) in &self.ended {
            let now = world.task(id).read("result.json");
            if now.is_empty() {
                wrong.push(format!("{id} had ended and its result is lost"));
            } else if before.as_ref().is_some_and(|before| *before != now) {
                wrong.push(format!("the result of {id} changed: {before:?}, {now:?}"));
            }
        }
        wrong
    }

    /// Everything that must be true after every task was recovered and has ended.
    pub fn of_recovered(&self, world: &World) -> Vec<String> {
        let mut wrong = self.of_files(world);
        let mut drops: BTreeMap<u64, usize> = BTreeMap::new();
        for task in world.tasks() {
            if !task.has_result() {
                wrong.push(format!("{} never ended", task.id));
            }
            if !marker::markers(&task).is_empty() {
                wrong.push(format!("{} still has its marker", task.id));
            }
            let request: Value =
                serde_json::from_str(&task.read("request.json")).unwrap_or_default();
            if let Some(number) = request["metadata"]["drop"].as_u64() {
                *drops.entry(number).or_default() += 1;
            }
        }
        for id in &self.cancelled {
            let result: Value =
                serde_json::from_str(&world.task(id).read("result.json")).unwrap_or_default();
            if result["status"] != "cancelled" {
                wrong.push(format!("{id} was cancelled but ended otherwise: {result}"));
            }
        }
        for number in &self.drops {
            if !drops.contains_key(number) {
                wrong.push(format!("drop {number} is lost"));
            }
        }
        for (number, tasks) in drops {
            if tasks > 1 {
                wrong.push(format!("drop {number} became {tasks} tasks"));
            }
        }
        wrong.extend(self.started_twice());
        wrong
    }

    /// Recipes that may run at most once, and ran again.
    fn started_twice(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.starts).unwrap_or_default();
        let mut starts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            let id = line.split(' ').next().unwrap_or_default();
            *starts.entry(id).or_default() += 1;
        }
        starts.retain(|_, times| *times > 1);
        let message = |(id, times)| format!("{id} was started {times} times");
        starts.into_iter().map(message).collect()
    }
}

/// Files of a task that exist and are not complete.
fn torn(task: &Task, wrong: &mut Vec<String>) {
    let id = &task.id;
    let request = fs::read(task.path.join("request.json")).unwrap_or_default();
    if Request::parse(&request).is_err() {
        wrong.push(format!(
            "{id} has a torn request of {} bytes",
            request.len()
        ));
    }
    for file in ["env.json", "result.json"] {
        let path = task.path.join(file);
        if !path.exists() {
            continue;
        }
        let text = task.read(file);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if value["v"] != 1 {
            wrong.push(format!("{id} has a torn {file} of {} bytes", text.len()));
        }
        if let Some(output) = value["output_file"].as_str() {
            let length = fs::metadata(task.path.join(output)).map_or(0, |data| data.len());
            if Some(length) != value["metrics"]["stdout_bytes"].as_u64() {
                wrong.push(format!(
                    "{id} names an output of which {length} bytes are left"
                ));
            }
        }
    }
}
