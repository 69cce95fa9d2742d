//! What a person may call a task: its id, a part of it, its name, or `last`.
//!
//! Not the wording of the answer (`cli/`). Invariant: a text never means two things; where it
//! could, the candidates are told and nothing is chosen.

use super::io_error::IoError;
use super::layout::Spool;
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
    /// Nothing is called so.
    #[error("no task is called {0:?}")]
    NotFound(String),
    /// There is no task at all.
    #[error("there is no task in this spool")]
    Empty,
    /// Several tasks fit.
    #[error("{text:?} fits several tasks: {}", candidates.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was asked.
        text: String,
        /// Some of the tasks that fit, newest first.
        candidates: Vec<TaskId>,
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
        if let Ok(task_name) = text.parse::<Name>()
            && let Some(target) = self.resolve_name(&task_name)?
        {
            return Ok(target);
        }
        self.resolve_part(text)
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
                return Err(ResolveError::Rejected {
                    name,
                    reason: reason.reason,
                    hint: reason.hint,
                });
            }
            if self.drop_waits(&text)? {
                return Ok(Target::Drop(name));
            }
            // It may have become a task since the first look.
            if self.task(id)?.is_some() {
                return Ok(Target::Task(id));
            }
            if let Some((_, reason)) = self.rejected_drop(&text)? {
                return Err(ResolveError::Rejected {
                    name,
                    reason: reason.reason,
                    hint: reason.hint,
                });
            }
        }
        Err(ResolveError::NotFound(text))
    }

    fn resolve_name(&self, task_name: &Name) -> Result<Option<Target>, ResolveError> {
        if self.drop_waits(task_name.as_str())? {
            return Ok(Some(Target::Drop(task_name.clone())));
        }
        let named = match self.named_task(task_name)? {
            Some(id) if self.task(id)?.is_some() => Some(id),
            _ => None,
        };
        let rejected = self.rejected_drop(task_name.as_str())?;
        match (named, rejected) {
            (Some(id), Some((refused, _))) if id > refused => Ok(Some(Target::Task(id))),
            (_, Some((_, reason))) => Err(ResolveError::Rejected {
                name: task_name.clone(),
                reason: reason.reason,
                hint: reason.hint,
            }),
            (Some(id), None) => Ok(Some(Target::Task(id))),
            (None, None) => Ok(None),
        }
    }

    fn resolve_part(&self, text: &str) -> Result<Target, ResolveError> {
        let not_found = || ResolveError::NotFound(text.to_owned());
        let part = text.strip_prefix(TaskId::PREFIX).unwrap_or(text);
        if part.len() < LEAST_PART || !part.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(not_found());
        }
        let mut fitting = self.task_ids()?;
        fitting.retain(|id| {
            let digits = id.digits();
            digits.starts_with(part) || (part == text && digits.ends_with(part))
        });
        match fitting.as_slice() {
            [] => Err(not_found()),
            [id] => Ok(Target::Task(*id)),
            _ => {
                fitting.truncate(MOST_CANDIDATES);
                Err(ResolveError::Ambiguous {
                    text: text.to_owned(),
                    candidates: fitting,
                })
            }
        }
    }
}
