//! What a person may call a task: its id, a part of it, its name, its label, or `last`.
//!
//! Not the search for what tasks are called (`called.rs`) and not the wording of the answer (`cli/`). A name means the
//! task of that name that is not over, else the newest one. A label counts only where nothing else fits. Invariant: a
//! text never means two things; where it could, the candidates are reported and nothing is chosen.

use super::disk::IoError;
use super::inbox::Reason;
use super::open::Spool;
use crate::config::Retention;
use crate::task::{Name, TaskId};

/// The fewest characters of an id that are taken for it.
const LEAST_PART: usize = 4;
const MOST_CANDIDATES: usize = 10;

/// What a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A task.
    Task(TaskId),
    /// A drop that is not a task yet.
    Drop(Name),
}

/// Why a text means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nothing is called so, now.
    #[error("no task is called {text:?}")]
    NotFound {
        /// What was asked.
        text: String,
        /// How long finished tasks are kept: it may have been one.
        kept: Retention,
    },
    /// There is no task at all.
    #[error("there is no task in this spool")]
    Empty,
    /// Several tasks fit.
    #[error("{text:?} fits several tasks: {}", listed(candidates, drop.as_ref()))]
    Ambiguous {
        /// What was asked.
        text: String,
        /// Some of the tasks that fit: one of this name, then the newest first.
        candidates: Vec<TaskId>,
        /// A drop of this name, waiting or refused.
        drop: Option<Name>,
    },
    /// A drop of this name was refused.
    #[error("the drop {name}.json was refused: {reason} ({hint})")]
    Rejected {
        /// Its name.
        name: Name,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What a text fits, as a list.
fn listed(candidates: &[TaskId], drop: Option<&Name>) -> String {
    let mut all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    all.extend(drop.map(|name| format!("the drop {name}.json")));
    all.join(", ")
}

impl Spool {
    /// Finds what a person means.
    pub fn resolve(&self, text: &str) -> Result<Target, ResolveError> {
        if text == "last" {
            let newest = self.task_ids()?.into_iter().next();
            return newest.map(Target::Task).ok_or(ResolveError::Empty);
        }
        if let Ok(id) = text.parse::<TaskId>() {
            return self.resolve_id(id);
        }
        let named = match text.parse::<Name>() {
            Ok(task_name) => self
                .resolve_name(&task_name)?
                .map(|found| (task_name, found)),
            Err(_) => None,
        };
        let Some((task_name, named)) = named else {
            return self.resolve_part(text);
        };
        // Others choose names: one that is also a part of an id must not stand for that task.
        let mut candidates = self.ids_with_part(text)?;
        let tasks = match named {
            Named::Tasks(tasks) => tasks,
            Named::Drop if candidates.is_empty() => return Ok(Target::Drop(task_name)),
            Named::Refused(reason) if candidates.is_empty() => {
                return Err(rejected(task_name, reason));
            }
            Named::Drop | Named::Refused(_) => {
                return Err(ambiguous(text, candidates, Some(task_name)));
            }
        };
        candidates.retain(|id| !tasks.contains(id));
        candidates.splice(..0, tasks);
        match candidates.as_slice() {
            [id] => Ok(Target::Task(*id)),
            _ => Err(ambiguous(text, candidates, None)),
        }
    }

    /// An id may also be that of a task to be: a user of the group has put it into the drop box.
    fn resolve_id(&self, id: TaskId) -> Result<Target, ResolveError> {
        let text = id.to_string();
        if self.task(id)?.is_some() {
            return Ok(Target::Task(id));
        }
        if self.is_group()
            && let Ok(name) = text.parse::<Name>()
        {
            // First what was decided on it: others can put a file of this name into the box afterwards.
            if let Some(reason) = self.refusal_of(id)? {
                return Err(rejected(name, reason));
            }
            // What was removed does not come again, whatever somebody puts into the box.
            if self.is_removed(id)? {
                return Err(self.not_found(&text));
            }
            if self.drop_waits(&text)? {
                return Ok(Target::Drop(name));
            }
            // It may have been decided on since the first look.
            if self.task(id)?.is_some() {
                return Ok(Target::Task(id));
            }
            if let Some(reason) = self.refusal_of(id)? {
                return Err(rejected(name, reason));
            }
        }
        Err(self.not_found(&text))
    }

    fn resolve_name(&self, task_name: &Name) -> Result<Option<Named>, ResolveError> {
        if self.drop_waits(task_name.as_str())? {
            return Ok(Some(Named::Drop));
        }
        let mut named = self.open_tasks_named(task_name)?;
        if named.is_empty()
            && let Some(id) = self.named_task(task_name)?
            && self.task(id)?.is_some()
        {
            named.push(id);
        }
        let refused = self.rejected_drop(task_name.as_str())?;
        Ok(match (named.first(), refused) {
            (Some(id), Some((refused, reason))) if *id <= refused => Some(Named::Refused(reason)),
            (Some(_), _) => Some(Named::Tasks(named)),
            (None, refused) => refused.map(|(_, reason)| Named::Refused(reason)),
        })
    }

    /// Where nothing else fits: the task of this label, if there is one alone.
    fn resolve_label(&self, text: &str) -> Result<Target, ResolveError> {
        let labelled = self.tasks_labelled(text)?;
        match labelled.as_slice() {
            [] => Err(self.not_found(text)),
            [id] => Ok(Target::Task(*id)),
            _ => Err(ambiguous(text, labelled, None)),
        }
    }

    fn not_found(&self, text: &str) -> ResolveError {
        ResolveError::NotFound {
            text: text.to_owned(),
            kept: self.settings().retention(),
        }
    }

    fn resolve_part(&self, text: &str) -> Result<Target, ResolveError> {
        let candidates = self.ids_with_part(text)?;
        match candidates.as_slice() {
            [] => self.resolve_label(text),
            [id] => Ok(Target::Task(*id)),
            _ => Err(ambiguous(text, candidates, None)),
        }
    }

    /// The tasks whose ids begin or end so, newest first.
    fn ids_with_part(&self, text: &str) -> Result<Vec<TaskId>, ResolveError> {
        let part = text.strip_prefix(TaskId::PREFIX).unwrap_or(text);
        if part.len() < LEAST_PART || !TaskId::has_its_characters(part) {
            return Ok(Vec::new());
        }
        let mut fitting = self.task_ids()?;
        fitting.retain(|id| {
            let digits = id.digits();
            digits.starts_with(part) || (part == text && digits.ends_with(part))
        });
        Ok(fitting)
    }
}

/// What a name leads to.
enum Named {
    /// One that is over, or all that are not, newest first.
    Tasks(Vec<TaskId>),
    /// A drop that waits.
    Drop,
    /// A drop that was refused.
    Refused(Reason),
}

fn ambiguous(text: &str, mut candidates: Vec<TaskId>, drop: Option<Name>) -> ResolveError {
    candidates.truncate(MOST_CANDIDATES);
    ResolveError::Ambiguous {
        text: text.to_owned(),
        candidates,
        drop,
    }
}

fn rejected(name: Name, reason: Reason) -> ResolveError {
    ResolveError::Rejected {
        name,
        reason: reason.reason,
        hint: reason.hint,
    }
}
