//! What happened to tasks and to the spool, as it stands in `events/`.
//!
//! Not the files (`spool/events.rs`). Invariant: an event is given once, in the order in which it was written.

use std::collections::HashSet;

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{Cursor, EventRead, EventReader, Target};
use crate::task::{TaskId, Timestamp};

/// Which events are wanted, and from where on.
#[derive(Clone, Debug, Default)]
pub struct EventOptions {
    /// Only those behind this place.
    pub after: Option<Cursor>,
    /// Only those from this moment on.
    pub since: Option<Timestamp>,
    /// Only those of these tasks, by id, part of an id, name, or `last`; all where it is empty.
    pub tasks: Vec<String>,
    /// Whether the caller asks again and again, and wants late lines as well.
    pub follows: bool,
}

/// Events as they are asked for, one after the other.
#[derive(Debug)]
pub struct Events<'c> {
    reader: EventReader<'c>,
    tasks: HashSet<String>,
    since: Option<Timestamp>,
    follows: bool,
    /// Whether the place of the cursor is gone, so that these begin with its day.
    pub begins_anew: bool,
}

impl Client {
    /// Reads events.
    ///
    /// # Errors
    /// [`LookupError`]: a task is not called so, or `events/` cannot be read.
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

    /// An id is taken as it is written: of a task that is gone the events may be there.
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
    /// The next one; `None` where there is none by now.
    ///
    /// # Errors
    /// `events/` cannot be read.
    pub fn next_event(&mut self) -> Result<Option<EventRead>, LookupError> {
        self.next_event_unless(&|| false)
    }

    /// The same; once `is_stopped`, which is asked again and again, there is none.
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
