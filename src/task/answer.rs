//! The few words a watcher and its runners exchange over a pipe, one line each.
//!
//! Nothing depends on them: a watcher that misses an answer looks at the disk again, and a runner
//! that misses an order goes when its pipe closes. Watcher and runner never import each other;
//! they meet here and on the disk.

use std::fmt;
use std::str::FromStr;

use super::{Name, TaskId};

/// Watcher to runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run this task.
    Run(TaskId),
    /// Look for a cancellation marker now.
    Look,
}

/// Runner to watcher: what became of one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Terminal, or gone: nothing is left to do. With its session, whose next task may go on.
    Finished(Option<Name>),
    /// Another process holds it, or it could not be begun just now.
    Taken {
        /// Whether an attempt stands; without one its submitter may still be at it.
        started: bool,
    },
    /// The limit is reached: the spool's, or this recipe's.
    NoSlot(Option<Name>),
    /// Something must happen first: an earlier task of this session must end, or (no session) a
    /// person must mend the task's files.
    NotYet(Option<Name>),
}

/// A line that is no word of this protocol.
#[derive(Debug, thiserror::Error)]
#[error("not a line of the runner protocol")]
pub struct UnknownLine;

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

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, rest) = match self {
            Answer::Finished(session) => ("finished", session.as_ref().map(Name::as_str)),
            Answer::Taken { started: true } => ("taken", Some("started")),
            Answer::Taken { started: false } => ("taken", None),
            Answer::NoSlot(recipe) => ("no-slot", recipe.as_ref().map(Name::as_str)),
            Answer::NotYet(session) => ("not-yet", session.as_ref().map(Name::as_str)),
        };
        match rest {
            Some(rest) => write!(f, "{word} {rest}"),
            None => f.write_str(word),
        }
    }
}

impl FromStr for Answer {
    type Err = UnknownLine;

    fn from_str(line: &str) -> Result<Answer, UnknownLine> {
        let (word, rest) = match line.split_once(' ') {
            Some((word, rest)) => (word, Some(rest)),
            None => (line, None),
        };
        let name = || {
            rest.map(str::parse::<Name>)
                .transpose()
                .map_err(|_| UnknownLine)
        };
        match (word, rest) {
            ("finished", _) => Ok(Answer::Finished(name()?)),
            ("taken", Some("started")) => Ok(Answer::Taken { started: true }),
            ("taken", None) => Ok(Answer::Taken { started: false }),
            ("no-slot", _) => Ok(Answer::NoSlot(name()?)),
            ("not-yet", _) => Ok(Answer::NotYet(name()?)),
            _ => Err(UnknownLine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back() {
        let id = TaskId::from_parts(1, 2);
        for order in [Order::Run(id), Order::Look] {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        let name: Name = "chat".parse().unwrap();
        for answer in [
            Answer::Finished(None),
            Answer::Finished(Some(name.clone())),
            Answer::Taken { started: true },
            Answer::Taken { started: false },
            Answer::NoSlot(None),
            Answer::NoSlot(Some(name.clone())),
            Answer::NotYet(Some(name)),
            Answer::NotYet(None),
        ] {
            assert_eq!(answer.to_string().parse::<Answer>().unwrap(), answer);
        }
        assert!("dance".parse::<Order>().is_err() && "".parse::<Answer>().is_err());
    }
}
