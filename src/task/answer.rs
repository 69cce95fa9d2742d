//! The protocol between a watcher and its runners: one line for each message, over a pipe.
//!
//! Correctness does not depend on it. A watcher that misses an answer scans the disk again, and a runner
//! that misses an order exits when its pipe closes. Watcher and runner never import each other; they share
//! only this protocol and the disk. Both have the same version. Invariant: an answer includes its reason, and
//! every answer parses back to the value that was written.

use std::fmt;
use std::str::FromStr;

use super::{Name, TaskId};

/// Watcher to runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run this task.
    Run(TaskId),
    /// Check for a cancel marker now.
    Look,
}

/// Runner to watcher: what was done with one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Terminal or removed: nothing is left to do. With its session, whose next task may start.
    Finished(Option<Name>),
    /// The task may not run until this has changed.
    Blocked(Blocker),
    /// Another process holds the task's lock.
    Held(Holder),
    /// The task was not run to its end, and nothing blocks it: it is offered again.
    Retry(When, Why),
}

/// What must change before a task may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// All slots of the spool are taken, or no process could be started for any task.
    Slot,
    /// All slots of this recipe are taken.
    RecipeSlot(Name),
    /// An earlier task of this session must end.
    Session(Name),
    /// A file of the task is damaged or from a newer version: a person must act.
    Files,
}

/// Which process holds a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A runner: there is an attempt.
    Runner,
    /// Probably its submitter: there is no attempt.
    Submitter,
}

/// When a task is offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Very soon, then after longer and longer delays.
    Soon,
    /// After the next scan.
    AtScan,
}

/// Why a task that nothing blocks was not run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The spool is paused, or its path no longer leads to it.
    NoStarts,
    /// A marker or a result that was found before is no longer there.
    Changed,
    /// A file operation failed.
    Disk,
    /// No runner could be started.
    NoRunner,
    /// Its runner was killed or exited.
    RunnerDied,
    /// Its runner was stopped.
    RunnerStopped,
    /// Its unit ended without a result.
    UnitEnded,
    /// No process waits for its unit any more.
    UnitLeft,
    /// The runner's line was not an answer.
    Unclear,
}

/// A line that is not part of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("not a line of the runner protocol")]
pub struct UnknownLine;

impl Answer {
    /// The answer for a task whose lock another process holds.
    pub fn held(is_started: bool) -> Answer {
        Answer::Held(if is_started {
            Holder::Runner
        } else {
            Holder::Submitter
        })
    }

    /// The answer for a task that was not changed. A task with an attempt may wait for the next scan.
    pub fn retry(is_started: bool, why: Why) -> Answer {
        let when = if is_started { When::AtScan } else { When::Soon };
        Answer::Retry(when, why)
    }

    /// Whether only a person can do anything about the task.
    pub fn is_for_a_person(&self) -> bool {
        *self == Answer::Blocked(Blocker::Files)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Run(id) => write!(f, "run {id}"),
            Order::Look => f.write_str("look"),
        }
    }
}

impl FromStr for Order {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Order, UnknownLine> {
        match line.split_once(' ') {
            Some(("run", id)) => id.parse().map(Order::Run).map_err(|_| UnknownLine),
            None if line == "look" => Ok(Order::Look),
            _ => Err(UnknownLine),
        }
    }
}

impl When {
    const ALL: [When; 2] = [When::Soon, When::AtScan];

    fn as_str(self) -> &'static str {
        match self {
            When::Soon => "soon",
            When::AtScan => "at-scan",
        }
    }
}

impl Why {
    const ALL: [Why; 9] = [
        Why::NoStarts,
        Why::Changed,
        Why::Disk,
        Why::NoRunner,
        Why::RunnerDied,
        Why::RunnerStopped,
        Why::UnitEnded,
        Why::UnitLeft,
        Why::Unclear,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Why::NoStarts => "no-starts",
            Why::Changed => "changed",
            Why::Disk => "disk",
            Why::NoRunner => "no-runner",
            Why::RunnerDied => "runner-died",
            Why::RunnerStopped => "runner-stopped",
            Why::UnitEnded => "unit-ended",
            Why::UnitLeft => "unit-left",
            Why::Unclear => "unclear",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Finished(None) => f.write_str("finished"),
            Answer::Finished(Some(session)) => write!(f, "finished {session}"),
            Answer::Blocked(Blocker::Slot) => f.write_str("blocked slot"),
            Answer::Blocked(Blocker::RecipeSlot(recipe)) => write!(f, "blocked recipe {recipe}"),
            Answer::Blocked(Blocker::Session(session)) => write!(f, "blocked session {session}"),
            Answer::Blocked(Blocker::Files) => f.write_str("blocked files"),
            Answer::Held(Holder::Runner) => f.write_str("held runner"),
            Answer::Held(Holder::Submitter) => f.write_str("held submitter"),
            Answer::Retry(when, why) => write!(f, "retry {} {}", when.as_str(), why.as_str()),
        }
    }
}

impl FromStr for Answer {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Answer, UnknownLine> {
        let words: Vec<&str> = line.split(' ').collect();
        let name = |word: &str| word.parse::<Name>().map_err(|_| UnknownLine);
        match words[..] {
            ["finished"] => Ok(Answer::Finished(None)),
            ["finished", session] => Ok(Answer::Finished(Some(name(session)?))),
            ["blocked", "slot"] => Ok(Answer::Blocked(Blocker::Slot)),
            ["blocked", "recipe", recipe] => {
                Ok(Answer::Blocked(Blocker::RecipeSlot(name(recipe)?)))
            }
            ["blocked", "session", session] => {
                Ok(Answer::Blocked(Blocker::Session(name(session)?)))
            }
            ["blocked", "files"] => Ok(Answer::Blocked(Blocker::Files)),
            ["held", "runner"] => Ok(Answer::Held(Holder::Runner)),
            ["held", "submitter"] => Ok(Answer::Held(Holder::Submitter)),
            ["retry", when, why] => {
                let when = When::ALL.into_iter().find(|known| known.as_str() == when);
                let why = Why::ALL.into_iter().find(|known| known.as_str() == why);
                when.zip(why)
                    .map(|(when, why)| Answer::Retry(when, why))
                    .ok_or(UnknownLine)
            }
            _ => Err(UnknownLine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_parses_back() {
        let id = TaskId::from_parts(1, 2);
        for order in [Order::Run(id), Order::Look] {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        let name: Name = "chat".parse().unwrap();
        let mut answers = vec![
            Answer::Finished(None),
            Answer::Finished(Some(name.clone())),
            Answer::Blocked(Blocker::Slot),
            Answer::Blocked(Blocker::RecipeSlot(name.clone())),
            Answer::Blocked(Blocker::Session(name)),
            Answer::Blocked(Blocker::Files),
            Answer::Held(Holder::Runner),
            Answer::Held(Holder::Submitter),
        ];
        for when in When::ALL {
            answers.extend(Why::ALL.map(|why| Answer::Retry(when, why)));
        }
        for answer in answers {
            assert_eq!(answer.to_string().parse::<Answer>().unwrap(), answer);
        }
        assert!("dance".parse::<Order>().is_err() && "".parse::<Answer>().is_err());
        assert!("retry soon".parse::<Answer>().is_err() && "held".parse::<Answer>().is_err());
    }
}
