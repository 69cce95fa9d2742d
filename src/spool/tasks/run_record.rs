//! The run record of an attempt: who runs it, written before and after the process is started.
//!
//! Not when it is written (`runner/`). Invariant: whoever comes after a crash finds `run.json`, or the intent in
//! `result.part` that was written before anything was started.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, is_file};
use super::store::TaskDir;
use crate::clock::BootId;
use crate::proc::{self, ProcessKey};
use crate::spool::disk::IoResult;
use crate::spool::layout::{SMALL_FILE, name};
use crate::task::{TaskId, Timestamp, to_pretty};

/// `attempts/<n>/run.json`: who runs, so that whoever comes after a crash knows what to look for.
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
    /// The recipe's process, which leads a session and group of its own; null until it runs.
    pub child: Option<ProcessKey>,
    /// The life of the machine these numbers belong to.
    pub boot: BootId,
    /// The cgroup in which everything that this attempt starts is born, by its path; absent where the runner
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The cgroup in which the runner was, as `/proc/<pid>/cgroup` names it; absent where it has one for
    /// the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_cgroup: Option<String>,
    /// The link that is the attempt's `TMPDIR`, where the path of its folder is too long for that; removed at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_link: Option<String>,
    /// The value of `AGENTSPOOL_MARK` in the environment of everything this attempt started.
    #[serde(rename = "mark")]
    pub tag: String,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// When it will be stopped, by the wall clock: for readers; the runner counts on another one.
    pub deadline: Timestamp,
    /// Seconds it may run.
    pub timeout_sec: f64,
    /// Set when the attempt is known to be over without a result of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
}

/// What is known of who ran an attempt.
#[derive(Debug)]
pub enum Record {
    /// Nobody said so.
    Absent,
    /// It was this one.
    Is(Box<RunFile>),
    /// Somebody said so, and this file, which says it, cannot be read.
    Unreadable(PathBuf),
}

impl Attempt {
    /// Writes who runs it.
    pub fn write_run(&self, run: &RunFile) -> IoResult<()> {
        match self.dir.replace(name::RUN, &to_pretty(run)) {
            Err(error) if error.is_unusable() => {
                // A folder that the recipe made there.
                self.dir.remove_anything(name::RUN)?;
                self.dir.replace(name::RUN, &to_pretty(run))
            }
            written => written,
        }
    }

    /// Who ran it; `None` when that is not known.
    pub fn run(&self) -> Option<RunFile> {
        match self.record() {
            Record::Is(run) => Some(*run),
            Record::Absent | Record::Unreadable(_) => None,
        }
    }

    /// Who ran it. Where the runner died before it could write `run.json`, or that cannot be read any more, its
    /// intent says so, and behind it the recipe's process says who it is.
    pub fn record(&self) -> Record {
        let read = self.dir.read_own(name::RUN, SMALL_FILE);
        let said = match &read {
            Ok(None) => return self.intent(),
            Ok(Some(bytes)) => serde_json::from_slice(bytes).ok(),
            Err(_) => None,
        };
        match (said, self.intent()) {
            (Some(run), _) | (None, Record::Is(run)) => Record::Is(run),
            (None, Record::Absent | Record::Unreadable(_)) => {
                Record::Unreadable(self.dir.path_of(name::RUN))
            }
        }
    }

    fn intent(&self) -> Record {
        let said = match self.dir.read_own(name::RESULT_PART, SMALL_FILE) {
            Ok(None) => return Record::Absent,
            Ok(Some(preallocated)) if preallocated.trim_ascii().is_empty() => {
                return Record::Absent;
            }
            Ok(Some(preallocated)) => intent_in(&preallocated),
            Err(_) => None,
        };
        match said {
            Some(run) => Record::Is(Box::new(run)),
            None => Record::Unreadable(self.dir.path_of(name::RESULT_PART)),
        }
    }

    /// Whether a process may have been started: the intent comes before it, and `run.json` right
    /// after it. The part is the first thing in the folder and the last that is taken back, so one
    /// without it, but not empty, has lost its records.
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

    /// Whether it has not ended: room for its result is kept, and says whose it is.
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
    /// Whether an attempt has not ended. Then a result is not one: a runner makes it of the room that it
    /// kept, so that both never stand.
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
