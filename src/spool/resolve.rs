//! How a person refers to a task: by its id, a part of the id, its name, its label, or `last`.
//!
//! Not the search by name and label (`called.rs`) and not the wording of the answer (`cli/`). A name means
//! the unfinished task of that name, else the newest one. A label counts only if nothing else fits; in a
//! group spool, where other users choose names and ids, it always counts. Invariant: a text never means two
//! things. If it could, the candidates are reported and none is chosen.

use super::disk::IoError;
use super::inbox::Reason;
use super::open::Spool;
use crate::config::Retention;
use crate::task::{Name, TaskId};

/// The shortest part of an id that is accepted, in characters.
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
    /// No task has this id, name or label now.
    #[error("no task is called {text:?}")]
    NotFound {
        /// The text that was given.
        text: String,
        /// How long finished tasks are kept: the task may have been removed.
        kept: Retention,
        /// A user of the group asked, who cannot see the names of requests that no watcher has admitted yet.
        is_group_user: bool,
    },
    /// The spool has no task.
    #[error("there is no task in this spool")]
    Empty,
    /// Several tasks fit.
    #[error("{text:?} matches several tasks: {}", listed(candidates, *more, drop.as_ref()))]
    Ambiguous {
        /// The text that was given.
        text: String,
        /// At most ten of the tasks that fit: tasks of this name first, then the others, newest first.
        candidates: Vec<TaskId>,
        /// How many more tasks fit.
        more: usize,
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
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// Everything that a text fits, as a list.
fn listed(candidates: &[TaskId], more: usize, drop: Option<&Name>) -> String {
    let mut all: Vec<String> = candidates.iter().map(ToString::to_string).collect();
    all.extend(drop.map(|name| format!("the drop {name}.json")));
    let all = all.join(", ");
    match more {
        0 => all,
        more => format!("{all} and {more} more"),
    }
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
        // Other users choose names: a name that is also a part of an id must not hide the task with that id.
        let mut candidates = self.others_that_fit(text)?;
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

    /// An id may also be that of a drop: a user of the group has put it into the drop box.
    fn resolve_id(&self, id: TaskId) -> Result<Target, ResolveError> {
        let text = id.to_string();
        if self.task(id)?.is_some() {
            return Ok(Target::Task(id));
        }
        if self.is_group()
            && let Ok(name) = text.parse::<Name>()
        {
            // First whether it was refused: others can put a file of this name into the drop box afterwards.
            if let Some(reason) = self.refusal_of(id)? {
                return Err(rejected(name, reason));
            }
            // An id that was removed is not used again, even if the drop box has a file of this name.
            if self.is_removed(id)? {
                return Err(self.not_found(&text));
            }
            if self.drop_waits(&text)? {
                return Ok(Target::Drop(name));
            }
            // It may have been accepted or refused since the first check.
            if self.task(id)?.is_some() {
                return Ok(Target::Task(id));
            }
            if let Some(reason) = self.refusal_of(id)? {
                return Err(rejected(name, reason));
            }
        }
        Err(self.not_found(&text))
    }

    /// In a group spool anybody can drop a file of this name, so a drop does not hide a task. In a private
    /// spool the drop is newer than the task and comes first.
    fn resolve_name(&self, task_name: &Name) -> Result<Option<Named>, ResolveError> {
        // This is checked first: a drop that waits may become a task afterwards.
        let waits = self.drop_waits(task_name.as_str())?;
        if waits && !self.is_group() {
            return Ok(Some(Named::Drop));
        }
        let mut named = self.open_tasks_named(task_name)?;
        if named.is_empty()
            && let Some(id) = self.named_task(task_name)?
            && self.task(id)?.is_some()
        {
            named.push(id);
        }
        if self.is_group() && !named.is_empty() {
            return Ok(Some(Named::Tasks(named)));
        }
        if waits {
            return Ok(Some(Named::Drop));
        }
        let refused = self.rejected_drop(task_name.as_str())?;
        Ok(match (named.first(), refused) {
            (Some(id), Some((refused, reason))) if *id <= refused => Some(Named::Refused(reason)),
            (Some(_), _) => Some(Named::Tasks(named)),
            (None, refused) => refused.map(|(_, reason)| Named::Refused(reason)),
        })
    }

    fn not_found(&self, text: &str) -> ResolveError {
        ResolveError::NotFound {
            text: text.to_owned(),
            kept: self.settings().retention(),
            is_group_user: self.is_group() && !self.is_owner(),
        }
    }

    fn resolve_part(&self, text: &str) -> Result<Target, ResolveError> {
        let mut candidates = self.others_that_fit(text)?;
        if candidates.is_empty() && !self.is_group() {
            candidates = self.tasks_labelled(text)?;
        }
        match candidates.as_slice() {
            [] => Err(self.not_found(text)),
            [id] => Ok(Target::Task(*id)),
            _ => Err(ambiguous(text, candidates, None)),
        }
    }

    /// The tasks that a text may mean besides the tasks of that name, newest first. In a group spool these
    /// include the tasks with this label, because another user's id or name must not hide them.
    fn others_that_fit(&self, text: &str) -> Result<Vec<TaskId>, ResolveError> {
        let mut fitting = self.ids_with_part(text)?;
        if self.is_group() {
            fitting.extend(self.tasks_labelled(text)?);
            fitting.sort_unstable_by(|a, b| b.cmp(a));
            fitting.dedup();
        }
        Ok(fitting)
    }

    /// The tasks whose ids start or end with this part, newest first.
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
    /// All unfinished tasks of this name, newest first, or else one finished task.
    Tasks(Vec<TaskId>),
    /// A drop that is waiting.
    Drop,
    /// A drop that was refused.
    Refused(Reason),
}

fn ambiguous(text: &str, mut candidates: Vec<TaskId>, drop: Option<Name>) -> ResolveError {
    let more = candidates.len().saturating_sub(MOST_CANDIDATES);
    candidates.truncate(MOST_CANDIDATES);
    ResolveError::Ambiguous {
        text: text.to_owned(),
        candidates,
        more,
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
