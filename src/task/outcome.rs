//! Where a task stands and how it can end: closed enums, and the one function that says which
//! step is legal.
//!
//! Not the files (`status.rs`). Invariant: a terminal status has no successor.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest message of an error, in characters: escaped in JSON it still fits, with everything
/// else that a result without output holds, into the room kept for one on a full disk (4096 bytes).
const MAX_MESSAGE_CHARS: usize = 500;

/// The five words a task's place is described with; there is no sixth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, and no attempt is under way.
    Pending,
    /// An attempt is under way: a living process holds the task's lock.
    Running,
    /// Ended with exit code 0.
    Completed,
    /// Ended in another way; [`ErrorKind`] says which.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl Status {
    /// All of them, in the order in which a task can meet them.
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

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Cancelled)
    }

    /// Whether `next` may follow. `running` to `pending` is an attempt that was lost and is
    /// tried again; `pending` to `failed` is a recipe that cannot be started.
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

/// The word is no status.
#[derive(Debug, thiserror::Error)]
#[error("not a status: expected pending, running, completed, failed or cancelled")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    /// The five words and the aliases `queued` and `succeeded`.
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
    /// Exit code other than 0.
    Exit,
    /// Ended by a signal that was not ours.
    Signal,
    /// Stopped at its deadline.
    Timeout,
    /// The recipe's program could not be started.
    Spawn,
    /// The runner died, so how the recipe ended is not known.
    Lost,
    /// The recipe is gone or its manifest is wrong.
    Recipe,
    /// Stopped by a limit of memory, processor or processes.
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

/// What a person reads about a failure: one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// What else a reader should know about a task that is not terminal, or not readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// An attempt was lost and the recipe asked for another one.
    Retrying,
    /// Pending again after a runner died; the next holder of the lock decides.
    Interrupted,
    /// A process of this task does not die.
    Stuck,
    /// A file of this task cannot be read; it is kept as it is.
    Damaged,
    /// Written by a newer program.
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

/// How a process ended, as the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The code, where there is one.
    pub fn code(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        }
    }

    /// The signal, where there is one.
    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Code(_) => None,
            Exit::Signal(signal) => Some(signal),
        }
    }
}

/// The ways a task ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Anything else that nobody asked for.
    Failed(TaskError),
    /// Asked for.
    Cancelled,
}

impl Outcome {
    /// What an ending that nobody caused means.
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

    /// A failure with the kernel's word that memory was the reason.
    pub fn out_of_memory(how: &str) -> Outcome {
        let message = format!("the task had no memory left (the recipe's `memory_max`): {how}");
        Outcome::failed(ErrorKind::Resources, message)
    }

    /// A failure. A message is one line and is cut off behind 500 characters.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Outcome {
        // One line, and no character that JSON writes with six bytes.
        let mut message = message.into().replace(|c: char| c.is_control(), " ");
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Outcome::Failed(TaskError { kind, message })
    }

    /// The word in the files.
    pub fn status(&self) -> Status {
        match self {
            Outcome::Completed => Status::Completed,
            Outcome::Failed(_) => Status::Failed,
            Outcome::Cancelled => Status::Cancelled,
        }
    }

    /// The reason, where it failed.
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
    fn the_whole_matrix() {
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
    fn words_read_back_and_aliases_are_known() {
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
    fn a_message_fits_into_the_room_of_a_result() {
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
    fn an_exit_is_never_flattened() {
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
