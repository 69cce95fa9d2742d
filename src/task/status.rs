//! `status.json` and `result.json` as they lie on the disk.
//!
//! Not what scripts are promised (`cli/json.rs`). `status.json` is the last holder's word and can
//! always be derived; `result.json` appears once, complete, and never changes. Unknown fields of
//! both are ignored, so that an older program can read what a newer one wrote.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, Json, Name, Status, TaskError, TaskId, Timestamp};

/// Where a task stands, in the words of the last process that held its lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusFile {
    /// Format version.
    pub v: u32,
    /// The task.
    pub task_id: TaskId,
    /// Its place.
    pub status: Status,
    /// The recipe; null only where the request cannot be read.
    pub recipe: Option<Name>,
    /// The task's name.
    pub name: Option<Name>,
    /// What to show when there is no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The session.
    pub session_id: Option<Name>,
    /// The number of the latest attempt; 0 before the first.
    pub attempt: u32,
    /// 0 to 1, as the recipe reports it.
    pub progress: f64,
    /// What the recipe last said about its progress.
    pub message: Option<String>,
    /// What else to know.
    pub condition: Option<Condition>,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// When the task was made.
    pub created_at: Timestamp,
    /// When the latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Seconds of the latest attempt, by a clock that does not jump.
    pub duration_seconds: Option<f64>,
    /// The recipe's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Bytes cut out of the middle of `stdout.log` and `stderr.log` to keep them under their cap.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_bytes_dropped: u64,
    /// The submitter's notes, as in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
    /// When this file was written.
    pub updated_at: Timestamp,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How a task ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResultFile {
    /// Format version.
    pub v: u32,
    /// The task.
    pub task_id: TaskId,
    /// Whether it completed.
    pub ok: bool,
    /// `completed`, `failed` or `cancelled`.
    pub status: Status,
    /// The recipe; null only where the request could not be read.
    pub recipe: Option<Name>,
    /// What the recipe gave: any JSON value, or its text.
    pub output: Option<Json>,
    /// Where the output lies when it is too large to stand here: a path below the task's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
    /// What `output_file` holds, where it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_encoding: Option<OutputEncoding>,
    /// Set when `output` was left out because the disk was full.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_truncated: bool,
    /// Why it failed.
    pub error: Option<TaskError>,
    /// The recipe's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The attempt this is the result of; 0 when none was made.
    pub attempt: u32,
    /// When that attempt began.
    pub started_at: Option<Timestamp>,
    /// When the task ended.
    pub completed_at: Timestamp,
    /// The same by the clock that does not jump, for whoever asks for an age in the same boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_in: Option<BootMoment>,
    /// Seconds from spawn to end, by a clock that does not jump.
    pub duration_seconds: Option<f64>,
    /// The session.
    pub session_id: Option<Name>,
    /// What was measured.
    pub metrics: Metrics,
}

/// What an output is that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputEncoding {
    /// Bytes that are not UTF-8.
    Binary,
    /// A word of a later program.
    #[serde(other)]
    Unknown,
}

/// A moment within one life of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootMoment {
    /// The kernel's boot id.
    pub boot: String,
    /// Seconds since that boot, suspend included.
    pub boottime_sec: f64,
}

/// What was measured of an attempt, in one flat object: what the recipe reported of itself, and what
/// the runner saw. Where both have a name, the runner's value stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Map<String, Value>);

impl Metrics {
    /// As much of a recipe's own metrics, as they are written into the result, fits beside the rest
    /// into the room that is reserved for a result.
    pub const MAX_REPORTED_BYTES: usize = 1024;

    /// Lays a report of the recipe over the earlier ones, key by key. `false` when that would be too
    /// large: then it is left out.
    pub fn report(&mut self, reported: Map<String, Value>) -> bool {
        let mut all = self.0.clone();
        all.extend(reported);
        if to_pretty(&all).len() > Metrics::MAX_REPORTED_BYTES {
            return false;
        }
        self.0 = all;
        true
    }

    /// Seconds from submission to the start of the attempt, by the wall clock.
    pub fn queued_seconds(&mut self, seconds: f64) {
        self.0.insert("queued_seconds".into(), seconds.into());
    }

    /// What the attempt's processes used: processor time in seconds, and the most memory that one of them
    /// had, in bytes.
    pub fn usage(&mut self, cpu_seconds: f64, peak_rss_bytes: u64) {
        // The kernel counts microseconds; a sum of them shows digits that mean nothing.
        let seconds = (cpu_seconds * 1e6).round() / 1e6;
        self.0.insert("cpu_seconds".into(), seconds.into());
        self.0
            .insert("peak_rss_bytes".into(), peak_rss_bytes.into());
    }

    /// Processes that the recipe left behind when it ended, and that were ended.
    pub fn leftover_processes(&mut self, count: usize) {
        match count {
            // A recipe's own word for it would be taken for ours.
            0 => self.0.remove("leftover_processes"),
            count => self.0.insert("leftover_processes".into(), count.into()),
        };
    }

    /// Bytes written to stdout and to stderr, also those later cut out of the logs.
    pub fn log_bytes(&mut self, stdout: Option<u64>, stderr: Option<u64>) {
        for (name, bytes) in [("stdout_bytes", stdout), ("stderr_bytes", stderr)] {
            match bytes {
                Some(bytes) => self.0.insert(name.into(), bytes.into()),
                // A recipe's own word for it would be taken for ours.
                None => self.0.remove(name),
            };
        }
    }
}

impl StatusFile {
    /// Brings this in line with a result: what the result says wins, what it does not say stays.
    pub fn ended_by(&mut self, result: &ResultFile) {
        self.status = result.status;
        self.recipe = result.recipe.clone();
        self.attempt = result.attempt;
        self.error = result.error.clone();
        self.exit_code = result.exit_code;
        self.signal = result.signal;
        self.started_at = result.started_at;
        self.completed_at = Some(result.completed_at);
        self.duration_seconds = result.duration_seconds;
        self.condition = None;
        if result.ok {
            self.progress = 1.0;
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_pretty(self)
    }
}

impl ResultFile {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_pretty(self)
    }
}

/// Two spaces and a newline at the end: these files are read with `cat`.
pub(crate) fn to_pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own types have string keys and no failing serializers.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
