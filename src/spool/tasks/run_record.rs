//! The run record of an attempt: its runner and processes, written before and after the process is started.
//!
//! Not when it is written (`runner/`). Invariant: after a crash there is `run.json`, or the intent in
//! `result.part`, which is written before any process is started.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, is_file};
use super::store::TaskDir;
use crate::clock::BootId;
use crate::proc::{self, ProcessKey};
use crate::spool::disk::IoResult;
use crate::spool::layout::{SMALL_FILE, name};
use crate::task::{TaskId, Timestamp, to_pretty};

/// `attempts/<n>/run.json`: the processes of an attempt, so that they can be found after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFile {
    /// Format version.
    pub v: u32,
    /// The task.
    pub task_id: TaskId,
    /// The attempt's number.
    pub attempt: u32,
    /// The runner.
    pub runner: ProcessKey,
    /// The recipe's process, the leader of its own session and process group; null until it is started.
    pub child: Option<ProcessKey>,
    /// The boot that the process ids belong to.
    pub boot: BootId,
    /// The path of the cgroup in which all processes of this attempt are started; absent if the runner has no
    /// cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The cgroup of the runner, as in `/proc/<pid>/cgroup`; absent if the attempt has its own cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_cgroup: Option<String>,
    /// The symbolic link used as `TMPDIR` if the path of the attempt's folder is too long; removed at the
    /// end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_link: Option<String>,
    /// The value of `AGENTSPOOL_MARK` in the environment of everything this attempt started.
    #[serde(rename = "mark")]
    pub tag: String,
    /// When the attempt started.
    pub started_at: Timestamp,
    /// When the attempt times out, by the wall clock. For readers only: the runner uses another clock.
    pub deadline: Timestamp,
    /// The timeout in seconds.
    pub timeout_sec: f64,
    /// Set once the attempt is known to be over without a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
}

/// The run record of an attempt, as found on the disk.
#[derive(Debug)]
pub enum Record {
    /// There is none.
    Absent,
    /// The record.
    Is(Box<RunFile>),
    /// There is one, in this file, but it cannot be read.
    Unreadable(PathBuf),
}

impl Attempt {
    /// Writes `run.json`.
    pub fn write_run(&self, run: &RunFile) -> IoResult<()> {
        match self.dir.replace(name::RUN, &to_pretty(run)) {
            Err(error) if error.is_unusable() => {
                // The recipe created a folder of that name.
                self.dir.remove_anything(name::RUN)?;
                self.dir.replace(name::RUN, &to_pretty(run))
            }
            written => written,
        }
    }

    /// The run record; `None` if it is absent or cannot be read.
    pub fn run(&self) -> Option<RunFile> {
        match self.record() {
            Record::Is(run) => Some(*run),
            Record::Absent | Record::Unreadable(_) => None,
        }
    }

    /// The run record. If `run.json` is missing because the runner was killed, or cannot be read, the record
    /// comes from `result.part`: the intent, followed by the line that the recipe's process wrote.
    pub fn record(&self) -> Record {
        let read = self.dir.read_own(name::RUN, SMALL_FILE);
        let run_file = match &read {
            Ok(None) => return self.intent(),
            Ok(Some(bytes)) => serde_json::from_slice(bytes).ok(),
            Err(_) => None,
        };
        match (run_file, self.intent()) {
            (Some(run), _) | (None, Record::Is(run)) => Record::Is(run),
            (None, Record::Absent | Record::Unreadable(_)) => {
                Record::Unreadable(self.dir.path_of(name::RUN))
            }
        }
    }

    fn intent(&self) -> Record {
        let intent = match self.dir.read_own(name::RESULT_PART, SMALL_FILE) {
            Ok(None) => return Record::Absent,
            Ok(Some(preallocated)) if preallocated.trim_ascii().is_empty() => {
                return Record::Absent;
            }
            Ok(Some(preallocated)) => intent_in(&preallocated),
            Err(_) => None,
        };
        match intent {
            Some(run) => Record::Is(Box::new(run)),
            None => Record::Unreadable(self.dir.path_of(name::RESULT_PART)),
        }
    }

    /// Whether a process may have been started. The intent is written before the start, and `run.json` right
    /// after it. `result.part` is created first and removed last, so a folder that lacks it and is not empty
    /// has lost its records.
    pub fn may_have_run(&self) -> IoResult<bool> {
        if self.dir.has(name::RUN)? {
            return Ok(true);
        }
        match self.dir.stat(name::RESULT_PART)? {
            None => Ok(!self.dir.is_empty()?),
            Some(stat) if is_file(stat) => {
                let preallocated = self.dir.read_own(name::RESULT_PART, SMALL_FILE)?;
                Ok(preallocated.is_some_and(|preallocated| !preallocated.trim_ascii().is_empty()))
            }
            Some(_) => Ok(true),
        }
    }

    /// Whether it has not ended: its `result.part` exists and has the intent of this attempt.
    fn is_unended(&self, id: TaskId) -> bool {
        let intent = self.intent();
        matches!(intent, Record::Is(run) if run.task_id == id && run.attempt == self.number)
    }
}

fn intent_in(preallocated: &[u8]) -> Option<RunFile> {
    let mut intent = serde_json::Deserializer::from_slice(preallocated).into_iter();
    let run: RunFile = intent.next()?.ok()?;
    let record = preallocated.get(intent.byte_offset()..)?.trim_ascii_start();
    let child = proc::parse_stat(record).map(|(entry, _)| entry.key);
    Some(RunFile { child, ..run })
}

impl TaskDir {
    /// Whether any attempt has not ended. A `result.json` next to it is foreign then: a runner creates the
    /// result by renaming `result.part`, so a valid result and its part never exist together.
    pub(super) fn has_unended_attempt(&self) -> IoResult<bool> {
        for number in self.attempt_numbers()? {
            if let Some(attempt) = self.attempt(number)?
                && attempt.is_unended(self.id)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
