//! What happens to tasks and to a spool, as one type: its words and its fields.
//!
//! Not where it is written (`spool/events.rs`). Invariant: a reader of this version reads what a later one
//! wrote, as long as it asks for no field by force: words and fields may be added, and none changes its
//! meaning.

use serde::{Deserialize, Serialize};

use super::{ErrorKind, Name, ResultFile, Status, TaskId, Timestamp};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Happened {
    /// A submission became a task.
    Accepted,
    /// A drop became a task.
    Admitted,
    /// A drop or a control file was refused; there is no task.
    Refused,
    /// An attempt began.
    Started,
    /// A task reported how far it is; at most once a second.
    Progress,
    /// An attempt was lost, and there will be another one.
    Retrying,
    /// A task ended well.
    Completed,
    /// A task failed.
    Failed,
    /// A task was cancelled.
    Cancelled,
    /// The runner of an attempt died.
    Lost,
    /// A person removed a finished task.
    Cleared,
    /// The sweeper removed a finished task.
    Swept,
    /// No attempt of this spool starts any more.
    Paused,
    /// Attempts start again.
    Resumed,
}

impl Happened {
    /// The word in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Happened::Accepted => "accepted",
            Happened::Admitted => "admitted",
            Happened::Refused => "refused",
            Happened::Started => "started",
            Happened::Progress => "progress",
            Happened::Retrying => "retrying",
            Happened::Completed => "completed",
            Happened::Failed => "failed",
            Happened::Cancelled => "cancelled",
            Happened::Lost => "lost",
            Happened::Cleared => "cleared",
            Happened::Swept => "swept",
            Happened::Paused => "paused",
            Happened::Resumed => "resumed",
        }
    }
}

/// One event. In JSON one object a line; `at`, `event`, `task_id`, `recipe` and `session_id` are always there,
/// the others where they say something.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When it was written, by the wall clock. Given by the writer.
    pub at: Option<Timestamp>,
    /// What happened.
    pub event: Happened,
    /// The task, where it is about one.
    pub task_id: Option<TaskId>,
    /// Its recipe, where it is known.
    pub recipe: Option<Name>,
    /// Its session, where it is known.
    pub session_id: Option<Name>,
    /// The number of the attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The number of the recipe's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How far the task is, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// What it said of itself, or why something was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The code with which the recipe ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ErrorKind>,
    /// The file that was dropped; for a refused one that bears an id, the id under which it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<String>,
}

impl Event {
    /// An event that is about no task.
    pub fn new(event: Happened) -> Event {
        Event {
            at: None,
            event,
            task_id: None,
            recipe: None,
            session_id: None,
            attempt: None,
            pid: None,
            progress: None,
            message: None,
            exit_code: None,
            signal: None,
            kind: None,
            drop: None,
        }
    }

    /// An event of a task.
    pub fn of(event: Happened, id: TaskId, recipe: Option<&Name>, session: Option<&Name>) -> Event {
        Event {
            task_id: Some(id),
            recipe: recipe.cloned(),
            session_id: session.cloned(),
            ..Event::new(event)
        }
    }

    /// The end of a task. `None` for a result whose status is no end.
    pub fn end(result: &ResultFile) -> Option<Event> {
        let event = match result.status {
            Status::Completed => Happened::Completed,
            Status::Failed => Happened::Failed,
            Status::Cancelled => Happened::Cancelled,
            Status::Pending | Status::Running => return None,
        };
        let (recipe, session) = (result.recipe.as_ref(), result.session_id.as_ref());
        Some(Event {
            attempt: Some(result.attempt),
            exit_code: result.exit_code,
            signal: result.signal,
            kind: result.error.as_ref().map(|error| error.kind),
            ..Event::of(event, result.task_id, recipe, session)
        })
    }

    /// The same event of another attempt.
    #[must_use]
    pub fn of_attempt(self, number: u32) -> Event {
        Event {
            attempt: Some(number),
            ..self
        }
    }

    /// As it stands in a file, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_files() {
        for event in [Happened::Accepted, Happened::Retrying, Happened::Swept] {
            let line = Event::new(event).to_line();
            let word = format!("\"event\":\"{}\"", event.as_str());
            assert!(String::from_utf8(line).unwrap().contains(&word));
        }
    }

    #[test]
    fn what_says_nothing_is_left_out_but_for_what_is_always_there() {
        let line = String::from_utf8(Event::new(Happened::Paused).to_line()).unwrap();
        assert_eq!(
            line,
            "{\"at\":null,\"event\":\"paused\",\"task_id\":null,\"recipe\":null,\"session_id\":null}\n"
        );
    }
}
