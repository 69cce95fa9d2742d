//! Events of tasks and of a spool: one type with its words and fields.
//!
//! Not where events are written (`spool/events.rs`). Invariant: later versions may add words and fields but
//! never change the meaning of an existing one. A reader that ignores unknown words and fields can read later
//! events.

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
    /// An attempt started.
    Started,
    /// A task reported its progress; at most once a second.
    Progress,
    /// An attempt was lost, and another attempt follows.
    Retrying,
    /// A task completed.
    Completed,
    /// A task failed.
    Failed,
    /// A task was cancelled.
    Cancelled,
    /// The runner of an attempt was killed or exited before the attempt ended.
    Lost,
    /// A person removed a finished task.
    Cleared,
    /// The sweeper removed a finished task.
    Swept,
    /// The spool was paused: no attempt starts.
    Paused,
    /// The spool was resumed: attempts start again.
    Resumed,
}

impl Happened {
    /// The word in event files.
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

/// One event. In JSON it is one object on one line. `at`, `event`, `task_id`, `recipe` and `session_id` are
/// always present. The other fields are left out if they have no value.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When the event was written, by the wall clock. The writer sets it.
    pub at: Option<Timestamp>,
    /// What happened.
    pub event: Happened,
    /// The task, if the event is about one.
    pub task_id: Option<TaskId>,
    /// The task's recipe, if known.
    pub recipe: Option<Name>,
    /// The task's session, if known.
    pub session_id: Option<Name>,
    /// The number of the attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The process id of the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The task's progress, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// The task's progress message, or why a drop or control file was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The exit code of the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why the task failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ErrorKind>,
    /// The dropped file. For a refused file with an id, the id under which it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<String>,
}

impl Event {
    /// An event without a task.
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

    /// The event for the end of a task. `None` if the status of the result is not terminal.
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

    /// This event with the number of an attempt.
    #[must_use]
    pub fn of_attempt(self, number: u32) -> Event {
        Event {
            attempt: Some(number),
            ..self
        }
    }

    /// The event as a line of an event file, with its newline.
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
    fn as_str_is_the_word_in_the_files() {
        for event in [Happened::Accepted, Happened::Retrying, Happened::Swept] {
            let line = Event::new(event).to_line();
            let word = format!("\"event\":\"{}\"", event.as_str());
            assert!(String::from_utf8(line).unwrap().contains(&word));
        }
    }

    #[test]
    fn empty_fields_are_left_out_except_the_required_ones() {
        let line = String::from_utf8(Event::new(Happened::Paused).to_line()).unwrap();
        assert_eq!(
            line,
            "{\"at\":null,\"event\":\"paused\",\"task_id\":null,\"recipe\":null,\"session_id\":null}\n"
        );
    }
}
