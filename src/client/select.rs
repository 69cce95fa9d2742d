//! Which tasks a call is about: named ones, or all that match a filter.
//!
//! Not what one text means (`spool/resolve.rs`), and not what is done with the tasks. Invariant: a named task
//! that is not found does not keep the others from being found.

use super::open::Client;
use crate::spool::{IoError, TaskView, is_label};
use crate::task::{Name, Status, StatusFile, TaskId, Timestamp};

/// The tasks of a call.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Tasks by id, start or end of an id, name, label, or `last`; for some calls also drops by name.
    Named(Vec<String>),
    /// All tasks that match.
    Matching(Filter),
}

/// What a task must have to match. An empty filter matches every task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// One of these statuses; empty for any.
    pub statuses: Vec<Status>,
    /// This recipe.
    pub recipe: Option<Name>,
    /// This name.
    pub name: Option<Name>,
    /// This label.
    pub label: Option<String>,
    /// This session.
    pub session: Option<Name>,
    /// Submitted at this time or later.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Whether every task matches.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether no finished task can match.
    pub(super) fn is_open(&self) -> bool {
        !self.statuses.is_empty() && self.statuses.iter().all(|status| !status.is_terminal())
    }

    /// Whether a task matches.
    pub(super) fn matches(&self, status: &StatusFile) -> bool {
        let is_labelled = |wanted: &str| {
            let label = status.label.as_deref();
            label.is_some_and(|label| is_label(label, wanted))
        };
        (self.statuses.is_empty() || self.statuses.contains(&status.status))
            && (self.recipe.is_none() || self.recipe == status.recipe)
            && (self.name.is_none() || self.name == status.name)
            && (self.session.is_none() || self.session == status.session_id)
            && (self.label.as_deref()).is_none_or(is_labelled)
            && (self.since).is_none_or(|since| status.created_at.seconds_since(since) >= 0.0)
    }
}

/// Which of the matching tasks a call can do something with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// Pending and running tasks.
    Open,
}

impl Client {
    /// All matching tasks, newest first. A filter for pending and running tasks reads only these.
    pub(super) fn matching<'a>(
        &'a self,
        filter: &'a Filter,
        part: Part,
    ) -> Result<impl Iterator<Item = Result<TaskView, IoError>> + 'a, IoError> {
        // In a copy, or after a restore, the index is empty until a watcher has compared it with the tasks.
        let has_index = self.spool().is_reconciled()?;
        let ids = if has_index && (part == Part::Open || filter.is_open()) {
            let mut open = self.spool().open_ids()?;
            open.reverse();
            open
        } else {
            self.spool().task_ids()?
        };
        let views = ids.into_iter().map(|id| self.spool().glance(id));
        let is_wanted = move |view: &TaskView| {
            // The index entry of a task that has just ended may still exist.
            (part == Part::All || !view.status.status.is_terminal()) && filter.matches(&view.status)
        };
        Ok(views.filter_map(move |view| match view {
            Ok(view) => view.filter(&is_wanted).map(Ok),
            Err(error) => Some(Err(error)),
        }))
    }

    /// The texts that name the selected tasks, in the order given, or newest first.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn texts_of(&self, selection: &Selection) -> Result<Vec<String>, IoError> {
        match selection {
            Selection::Named(texts) => Ok(texts.clone()),
            Selection::Matching(filter) => self.ids_as_texts(filter, Part::All),
        }
    }

    /// The same, but of the matching tasks only those that this user may cancel and that have not ended.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn texts_to_cancel(&self, selection: &Selection) -> Result<Vec<String>, IoError> {
        let filter = match selection {
            Selection::Named(texts) => return Ok(texts.clone()),
            Selection::Matching(filter) => filter,
        };
        let mut texts = self.ids_as_texts(filter, Part::Open)?;
        if !self.spool().is_owner() {
            let us = rustix::process::geteuid().as_raw();
            let is_ours = |text: &String| {
                let origin = text.parse().ok().and_then(|id: TaskId| self.origin(id));
                origin.is_some_and(|origin| origin.uid == Some(us))
            };
            texts.retain(is_ours);
        }
        Ok(texts)
    }

    fn ids_as_texts(&self, filter: &Filter, part: Part) -> Result<Vec<String>, IoError> {
        let views = self.matching(filter, part)?;
        let texts = views.map(|view| Ok(view?.status.task_id.to_string()));
        texts.collect()
    }
}
