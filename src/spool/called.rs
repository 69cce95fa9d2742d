//! Which tasks have a name or a label, by their status files: a request may be a thousand times as long.
//!
//! Not the links in `names/`, which lead to the newest task of a name (`index/names.rs`), and not what a text
//! means (`resolve.rs`). Invariant: a task that cannot be read is skipped, and the search goes on.

use std::collections::BTreeSet;

use super::disk::IoResult;
use super::open::Spool;
use super::tasks::TaskDir;
use crate::task::{Name, TaskId, escape_label};

impl Spool {
    /// The unfinished tasks of this name, newest first. Reads the status of every unfinished task.
    pub(super) fn open_tasks_named(&self, task_name: &Name) -> IoResult<Vec<TaskId>> {
        if !task_name.is_allowed_for_a_task() {
            return Ok(Vec::new());
        }
        let mut open = self.open_ids()?;
        open.reverse();
        let mut named = Vec::new();
        for id in open {
            if let Ok(Some(task)) = self.task(id)
                && is_open(&task)
                && called(&task).is_some_and(|(name, _)| name.as_ref() == Some(task_name))
            {
                named.push(id);
            }
        }
        Ok(named)
    }

    /// The unfinished tasks with this label. If there is no such task: the finished ones. If several users
    /// submitted tasks with this label, or may have: all of them. Newest first. Reads the status of every task.
    pub(super) fn tasks_labelled(&self, text: &str) -> IoResult<Vec<TaskId>> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        let mut submitters = BTreeSet::new();
        for id in self.task_ids()? {
            let Ok(Some(task)) = self.task(id) else {
                continue;
            };
            let label = called(&task).and_then(|(_, label)| label);
            if !label.is_some_and(|label| is_label(&label, text)) {
                continue;
            }
            all.push(id);
            if is_open(&task) {
                open.push(id);
            }
            submitters.insert(match task.origin() {
                Ok(Some(origin)) => origin.uid,
                Ok(None) => Some(self.owner()?),
                Err(_) => None,
            });
        }
        // A task whose submitter is not known may be anybody's.
        let is_all = open.is_empty() || submitters.len() > 1 || submitters.contains(&None);
        Ok(if is_all { all } else { open })
    }
}

/// The name and the label of a task, by its status file, or by its request if there is no status file.
fn called(task: &TaskDir) -> Option<(Option<Name>, Option<String>)> {
    if let Some(called) = task.called_by_status() {
        return Some(called);
    }
    let request = task.request().ok()?;
    Some((request.name, request.label))
}

/// Whether a text is this label: as it was written, or as it is shown.
pub fn is_label(label: &str, text: &str) -> bool {
    label == text
        || escape_label(label.as_bytes()) == text
        || label == escape_label(text.as_bytes())
}

fn is_open(task: &TaskDir) -> bool {
    !task.has_result().unwrap_or(false)
}
