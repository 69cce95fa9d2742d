//! The status of a task and how it can end: enums, and the function that defines which change of status is
//! allowed.
//!
//! Not the files (`status.rs`). Invariant: a terminal status never changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest message of an error, in characters. A result without output still fits into the 4096 bytes
/// that are preallocated for a full disk, even if every character is escaped in JSON.
const MAX_MESSAGE_CHARS: usize = 500;

/// The status of a task: one of five.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, and no attempt is running.
    Pending,
    /// An attempt is running: a process holds the task's lock.
    Running,
    /// Ended with exit code 0.
    Completed,
    /// Ended in another way; see [`ErrorKind`].
    Failed,
    /// Ended because it was cancelled.
    Cancelled,
}

impl Status {
    /// Every status, in the order in which a task can have them.
    pub const ALL: [Status; 5] = [
        Status::Pending,
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// Whether the status is final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// Whether `next` may follow. `running` becomes `pending` if an attempt was lost and is tried again.
    /// `pending` becomes `failed` if the recipe cannot be started.
    pub fn may_become(self, next: Status) -> bool {
        match self {
            Status::Pending => {
                matches!(next, Status::Running | Status::Failed | Status::Cancelled)
            }
            Status::Running => next != Status::Running,
            Status::Completed | Status::Failed | Status::Cancelled => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The word is not a status.
#[derive(Debug, thiserror::Error)]
#[error("not a status: expected pending, running, completed, failed or cancelled")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    /// Parses the five words and the aliases `queued` and `succeeded`.
    fn from_str(word: &str) -> Result<Status, UnknownStatus> {
        match word {
            "pending" | "queued" => Ok(Status::Pending),
            "running" => Ok(Status::Running),
            "completed" | "succeeded" => Ok(Status::Completed),
            "failed" => Ok(Status::Failed),
            "cancelled" => Ok(Status::Cancelled),
            _ => Err(UnknownStatus),
        }
    }
}

/// Why a task failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The exit code was not 0.
    Exit,
    /// Ended by a signal that agentspool did not send.
    Signal,
    /// Stopped at its timeout.
    Timeout,
    /// The recipe's program could not be started.
    Spawn,
    /// The runner was killed or exited, so it is not known how the recipe ended.
    Lost,
    /// The recipe does not exist or its manifest is wrong.
    Recipe,
    /// Stopped by a limit on memory, processor time or processes.
    Resources,
}

impl ErrorKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Exit => "exit",
            ErrorKind::Signal => "signal",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Spawn => "spawn",
            ErrorKind::Lost => "lost",
            ErrorKind::Recipe => "recipe",
            ErrorKind::Resources => "resources",
        }
    }
}

/// A failure: its kind, and one line for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// More about a task that is not finished or not readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// An attempt was lost, and the recipe requests another attempt.
    Retrying,
    /// The runner was killed or exited; the next holder of the lock decides how the attempt ended.
    Interrupted,
    /// A process or unit of this task cannot be ended.
    Stuck,
    /// A file of this task cannot be read; it is kept as it is.
    Damaged,
    /// Written by a newer version of agentspool.
    Newer,
}

impl Condition {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Retrying => "retrying",
            Condition::Interrupted => "interrupted",
            Condition::Stuck => "stuck",
            Condition::Damaged => "damaged",
            Condition::Newer => "newer",
        }
    }
}

/// How a process ended, as the kernel reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code, if the process exited.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        }
    }

    /// The signal, if a signal ended the process.
    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Code(_) => None,
            Exit::Signal(signal) => Some(signal),
        }
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Ended in another way without being cancelled.
    Failed(TaskError),
    /// Cancelled by a user.
    Cancelled,
}

impl Outcome {
    /// The outcome for a process that ended without being stopped.
    pub fn of_exit(exit: Exit) -> Outcome {
        let (kind, message) = match exit {
            Exit::Code(0) => return Outcome::Completed,
            Exit::Code(code) => (
                ErrorKind::Exit,
                format!("the recipe exited with code {code}"),
            ),
            Exit::Signal(signal) => (
                ErrorKind::Signal,
                format!("the recipe was ended by signal {signal}"),
            ),
        };
        Outcome::Failed(TaskError { kind, message })
    }

    /// A failure because of the memory limit, as the kernel reported. `how` describes how the process ended.
    pub fn out_of_memory(how: &str) -> Outcome {
        let message = format!("the task had no memory left (the recipe's `memory_max`): {how}");
        Outcome::failed(ErrorKind::Resources, message)
    }

    /// A failure. The message becomes one line and is cut after 500 characters.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Outcome {
        // Control characters would break the line, and JSON needs six bytes for each.
        let mut message = message.into().replace(|c: char| c.is_control(), " ");
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Outcome::Failed(TaskError { kind, message })
    }

    /// The status of a task with this outcome.
    pub fn status(&self) -> Status {
        match self {
            Outcome::Completed => Status::Completed,
            Outcome::Failed(_) => Status::Failed,
            Outcome::Cancelled => Status::Cancelled,
        }
    }

    /// The error, if the task failed.
    pub fn error(&self) -> Option<&TaskError> {
        match self {
            Outcome::Failed(error) => Some(error),
            Outcome::Completed | Outcome::Cancelled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_allowed_changes_of_status_are_allowed() {
        use Status::{Cancelled as X, Completed as C, Failed as F, Pending as P, Running as R};
        let legal = [(P, R), (P, F), (P, X), (R, P), (R, C), (R, F), (R, X)];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(
                    from.may_become(to),
                    legal.contains(&(from, to)),
                    "{from} to {to}"
                );
            }
            assert_eq!(
                from.is_terminal(),
                Status::ALL.iter().all(|to| !from.may_become(*to))
            );
        }
    }

    #[test]
    fn words_and_aliases_are_parsed() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>().unwrap(), status);
            assert_eq!(
                serde_json::to_string(&status).unwrap(),
                format!("\"{status}\"")
            );
        }
        assert_eq!("queued".parse::<Status>().unwrap(), Status::Pending);
        assert_eq!("succeeded".parse::<Status>().unwrap(), Status::Completed);
        assert!("done".parse::<Status>().is_err());
    }

    #[test]
    fn a_message_fits_into_the_preallocated_result() {
        for character in ["\u{1}", "\n", "\"", "\\", "\u{7f}", "\u{2028}", "😀"] {
            let outcome = Outcome::failed(ErrorKind::Spawn, character.repeat(4000));
            let written = serde_json::to_string(outcome.error().unwrap()).unwrap();
            assert!(
                written.len() < 2100,
                "{character:?} takes {}",
                written.len()
            );
            assert!(!written.contains("\\n"), "{character:?}");
        }
    }

    #[test]
    fn an_exit_code_and_a_signal_are_distinguished() {
        assert_eq!(Outcome::of_exit(Exit::Code(0)), Outcome::Completed);
        assert_eq!(
            Outcome::of_exit(Exit::Code(3)).error().unwrap().kind,
            ErrorKind::Exit
        );
        assert_eq!(
            Outcome::of_exit(Exit::Signal(11)).error().unwrap().kind,
            ErrorKind::Signal
        );
    }
}
