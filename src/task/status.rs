//! `status.json` and `result.json` as they are on the disk.
//!
//! Not the output for scripts (`cli/json.rs`). `status.json` is written by the last lock holder and can
//! always be derived. Invariant: `result.json` is created once, complete, and never changes. Unknown fields
//! of both are ignored, so that an older version can read the files of a newer one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, Json, Name, Status, TaskError, TaskId, Timestamp};

/// The state of a task, as the last process that held its lock wrote it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusFile {
    /// Format version.
    pub v: u32,
    /// The task.
    pub task_id: TaskId,
    /// The status of the task.
    pub status: Status,
    /// The recipe; null only if the request cannot be read.
    pub recipe: Option<Name>,
    /// The task's name.
    pub name: Option<Name>,
    /// Shown if there is no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The session.
    pub session_id: Option<Name>,
    /// The number of the latest attempt; 0 before the first.
    pub attempt: u32,
    /// The progress that the recipe reported, from 0 to 1.
    pub progress: f64,
    /// The last progress message of the recipe.
    pub message: Option<String>,
    /// More about a task that is not finished.
    pub condition: Option<Condition>,
    /// Why the task failed.
    pub error: Option<TaskError>,
    /// When the task was created.
    pub created_at: Timestamp,
    /// When the latest attempt started.
    pub started_at: Option<Timestamp>,
    /// When the task ended.
    pub completed_at: Option<Timestamp>,
    /// How many seconds the latest attempt took, by a clock that does not jump.
    pub duration_seconds: Option<f64>,
    /// The recipe's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended the recipe.
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
    /// The recipe; null only if the request could not be read.
    pub recipe: Option<Name>,
    /// The output of the recipe: any JSON value. Output that is not JSON is a string.
    pub output: Option<Json>,
    /// The path of the output below the task's folder, if it is too large for this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
    /// The encoding of `output_file`, if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_encoding: Option<OutputEncoding>,
    /// Set when `output` was left out because the disk was full.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_truncated: bool,
    /// Why the task failed.
    pub error: Option<TaskError>,
    /// The recipe's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended the recipe.
    pub signal: Option<i32>,
    /// The number of the attempt with this result; 0 if there was no attempt.
    pub attempt: u32,
    /// When that attempt started.
    pub started_at: Option<Timestamp>,
    /// When the task ended.
    pub completed_at: Timestamp,
    /// When the task ended, by the clock that does not jump. It gives the exact age within the same boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_in: Option<BootMoment>,
    /// How many seconds the recipe ran, from spawn to end, by a clock that does not jump.
    pub duration_seconds: Option<f64>,
    /// The session.
    pub session_id: Option<Name>,
    /// The metrics of the attempt.
    pub metrics: Metrics,
}

/// The encoding of an output that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputEncoding {
    /// Bytes that are not UTF-8.
    Binary,
    /// A word of a later version.
    #[serde(other)]
    Unknown,
}

/// A point in time within one boot of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BootMoment {
    /// The kernel's boot id.
    pub boot: String,
    /// Seconds since that boot, including suspended time.
    pub boottime_sec: f64,
}

/// The metrics of an attempt in one flat object: those that the recipe reported, and those that the runner
/// measured. If both use the same name, the runner's value is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Map<String, Value>);

impl Metrics {
    /// How many bytes the recipe's own metrics may have in the result. With this limit, a result fits into
    /// its preallocated file.
    pub const MAX_REPORTED_BYTES: usize = 1024;

    /// Merges a report of the recipe into the earlier ones, key by key. Returns `false` and leaves the report
    /// out if the sum would be too large.
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

    /// What the attempt's processes used: processor time in seconds, and the peak memory of the largest
    /// process in bytes.
    pub fn usage(&mut self, cpu_seconds: f64, peak_rss_bytes: u64) {
        // The kernel counts microseconds. A sum as a float can show more digits, which have no meaning.
        let seconds = (cpu_seconds * 1e6).round() / 1e6;
        self.0.insert("cpu_seconds".into(), seconds.into());
        self.0
            .insert("peak_rss_bytes".into(), peak_rss_bytes.into());
    }

    /// How many processes the recipe left behind when it ended. The runner ended them.
    pub fn leftover_processes(&mut self, count: usize) {
        match count {
            // Otherwise a value that the recipe reported would look like a measured one.
            0 => self.0.remove("leftover_processes"),
            count => self.0.insert("leftover_processes".into(), count.into()),
        };
    }

    /// Bytes written to stdout and stderr, including those that were cut out of the logs.
    pub fn log_bytes(&mut self, stdout: Option<u64>, stderr: Option<u64>) {
        for (name, bytes) in [("stdout_bytes", stdout), ("stderr_bytes", stderr)] {
            match bytes {
                Some(bytes) => self.0.insert(name.into(), bytes.into()),
                // Otherwise a value that the recipe reported would look like a measured one.
                None => self.0.remove(name),
            };
        }
    }
}

impl StatusFile {
    /// Updates this status from a result. Fields that a result does not have stay as they are.
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

/// JSON indented by two spaces with a newline at the end, because people read these files with `cat`.
pub(crate) fn to_pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialization cannot fail: these types have string keys and no serializers that fail.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
