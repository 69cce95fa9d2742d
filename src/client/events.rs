//! Reading the events of tasks and of the spool from `events/`.
//!
//! Not the files (`spool/events.rs`). Invariant: each event is returned once, in the order in which it was
//! written.

use std::collections::HashSet;

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{Cursor, EventRead, EventReader, Target};
use crate::task::{TaskId, Timestamp};

/// Which events to read, and where to start.
#[derive(Clone, Debug, Default)]
pub struct EventOptions {
    /// Only events after this position.
    pub after: Option<Cursor>,
    /// Only events since this time.
    pub since: Option<Timestamp>,
    /// Only events of these tasks, by id, part of an id, name, or `last`; empty for all events.
    pub tasks: Vec<String>,
    /// Whether the caller keeps reading, and also wants lines that are written late.
    pub follows: bool,
}

/// A reader of events.
#[derive(Debug)]
pub struct Events<'c> {
    reader: EventReader<'c>,
    tasks: HashSet<String>,
    since: Option<Timestamp>,
    follows: bool,
    /// Whether the events at the cursor were removed, so that reading starts with the cursor's day.
    pub begins_anew: bool,
}

impl Client {
    /// Reads events.
    ///
    /// # Errors
    /// [`LookupError`]: a task is not found, or `events/` cannot be read.
    pub fn events(&self, options: &EventOptions) -> Result<Events<'_>, LookupError> {
        let ids = options.tasks.iter().map(|text| self.id_of_events(text));
        let tasks = ids.collect::<Result<_, _>>()?;
        let (reader, begins_anew) = self.spool().events(options.after.as_ref(), options.since)?;
        Ok(Events {
            reader,
            tasks,
            since: options.since,
            follows: options.follows,
            begins_anew,
        })
    }

    /// A full id is used without a check: the events of a removed task may still exist.
    fn id_of_events(&self, text: &str) -> Result<String, LookupError> {
        if text.parse::<TaskId>().is_ok() {
            return Ok(text.to_owned());
        }
        match self.spool().resolve(text)? {
            Target::Task(id) => Ok(id.to_string()),
            Target::Drop(name) => Err(LookupError::NotAdmitted(name)),
        }
    }
}

impl Events<'_> {
    /// The next event; `None` if there is none yet.
    ///
    /// # Errors
    /// `events/` cannot be read.
    pub fn next_event(&mut self) -> Result<Option<EventRead>, LookupError> {
        self.next_event_unless(&|| false)
    }

    /// The next event; `None` if there is none yet, or if `is_stopped`, which is called repeatedly, returns
    /// `true`.
    ///
    /// # Errors
    /// `events/` cannot be read.
    pub fn next_event_unless(
        &mut self,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Option<EventRead>, LookupError> {
        while let Some(event) = self.reader.next_event(self.follows, is_stopped)? {
            if self.is_wanted(&event) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn is_wanted(&self, event: &EventRead) -> bool {
        let id = event.fields.get("task_id").and_then(|id| id.as_str());
        let is_task = self.tasks.is_empty() || id.is_some_and(|id| self.tasks.contains(id));
        let at = || serde_json::from_value::<Timestamp>(event.fields.get("at")?.clone()).ok();
        is_task
            && self
                .since
                .is_none_or(|since| at().is_some_and(|at| at >= since))
    }
}
