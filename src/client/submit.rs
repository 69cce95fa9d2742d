//! Submitting a task: a recipe and its input become an accepted task, and a watcher is started if needed.
//!
//! Not the task's folder (`spool/tasks/publish.rs`), and not the drop box of a group user (`admission.rs`).
//! Invariant: a returned task was accepted, even if its name could not be linked or no watcher could be
//! started.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Map;

use super::admission;
use super::notice::Notice;
use super::open::{Client, Door};
use super::stop::Stop;
use super::submit_error::SubmitError;
use crate::recipe::{Recipe, RecipePath, is_variable_name};
use crate::spool::{Submission, TaskDir};
use crate::task::{Json, Name, Request, TaskId, session_of};

/// The parts of a request, besides the recipe.
#[derive(Debug)]
pub struct NewTask {
    /// The way by which the request comes in.
    pub door: Door,
    /// The input: any JSON value.
    pub input: Option<Json>,
    /// Overrides of the recipe's config: a JSON object.
    pub config: Option<Json>,
    /// The submitter's own data: a JSON object.
    pub metadata: Option<Json>,
    /// The session. Its tasks run one after another and share a folder. `None`: a new session.
    pub session_id: Option<Name>,
    /// How long the task may run. `None`: the recipe's timeout, else the spool's.
    pub timeout: Option<Duration>,
    /// The task's name.
    pub name: Option<Name>,
    /// Any text to show for the task.
    pub label: Option<String>,
    /// Environment variables that the recipe accepts. Only in a private spool.
    pub variables: Vec<(String, String)>,
    /// A file to copy to `attachment` in the task's folder. Only for the spool's owner.
    pub attachment: Option<File>,
}

impl NewTask {
    /// A request without input and options.
    pub fn new(door: Door) -> NewTask {
        NewTask {
            door,
            input: None,
            config: None,
            metadata: None,
            session_id: None,
            timeout: None,
            name: None,
            label: None,
            variables: Vec::new(),
            attachment: None,
        }
    }
}

/// A task that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its id.
    pub id: TaskId,
    /// Its folder; `None` if it is a drop that the watcher of a group spool has not admitted yet.
    pub task: Option<TaskDir>,
    /// Its recipe.
    pub recipe: Name,
    /// Its session, which may have been created for this task.
    pub session: Name,
    /// The path of its folder, which may not exist yet.
    pub path: PathBuf,
}

impl Client {
    /// Submits one task, and starts a watcher if none is running and one may be started.
    ///
    /// The notices report that the spool is paused, that no watcher is running, or that the name does not
    /// lead to the task. For a user of the group the call may wait until the task is safe; `stop` ends the
    /// wait.
    ///
    /// # Errors
    /// Those of [`Client::runnable`] and [`Client::submit_to`].
    pub fn submit(
        &self,
        recipe: &Name,
        task: NewTask,
        stop: &dyn Stop,
    ) -> Result<(Accepted, Vec<Notice>), SubmitError> {
        self.submit_to(self.runnable(recipe)?, task, stop)
    }

    /// Finds a recipe by its name, and checks that it can run.
    ///
    /// # Errors
    /// [`SubmitError::Recipe`]: there is no recipe with this name, it is broken, other users could change it,
    /// or a requirement is missing.
    pub fn runnable(&self, recipe: &Name) -> Result<Recipe, SubmitError> {
        self.runnable_of(&self.recipes(), recipe)
    }

    pub(super) fn runnable_of(
        &self,
        recipes: &RecipePath,
        recipe: &Name,
    ) -> Result<Recipe, SubmitError> {
        let recipe = recipes.find(recipe)?;
        recipe.check_runnable(|| self.searches())?;
        Ok(recipe)
    }

    /// Checks that a task of this recipe may get a variable with this name.
    ///
    /// # Errors
    /// [`SubmitError::VariableName`], [`SubmitError::VariablesInGroup`],
    /// [`SubmitError::VariableNotAccepted`].
    pub fn check_variable(&self, recipe: &Recipe, name: &str) -> Result<(), SubmitError> {
        if !is_variable_name(name) {
            return Err(SubmitError::VariableName(name.to_owned()));
        }
        if self.spool().is_group() {
            return Err(SubmitError::VariablesInGroup);
        }
        let accepted = &recipe.manifest.env_accept;
        if !accepted.iter().any(|accepted| accepted == name) {
            return Err(SubmitError::VariableNotAccepted {
                recipe: recipe.name.clone(),
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// Checks that this user may attach a file to a task.
    ///
    /// # Errors
    /// [`SubmitError::AttachmentOfGroupUser`].
    pub fn check_attachment(&self) -> Result<(), SubmitError> {
        match self.spool().is_owner() {
            true => Ok(()),
            false => Err(SubmitError::AttachmentOfGroupUser),
        }
    }

    /// Like [`Client::submit`], with a recipe from [`Client::runnable`].
    ///
    /// # Errors
    /// [`SubmitError`]: a variable or the attachment is not allowed, the request is invalid, the spool has no
    /// room, or a system call failed. No task was accepted then, but a drop may be in the drop box
    /// ([`SubmitError::NotAdmitted`], [`SubmitError::Interrupted`]).
    pub fn submit_to(
        &self,
        recipe: Recipe,
        task: NewTask,
        stop: &dyn Stop,
    ) -> Result<(Accepted, Vec<Notice>), SubmitError> {
        let mut notices = Vec::from_iter(recipe.advice().into_iter().map(Notice::Recipe));
        let mut environment = Map::new();
        for (name, value) in task.variables {
            self.check_variable(&recipe, &name)?;
            environment.insert(name, value.into());
        }
        if task.attachment.is_some() {
            self.check_attachment()?;
        }
        let mut request = Request::new(recipe.name);
        request.input = task.input;
        request.config = task.config;
        request.metadata = task.metadata;
        request.session_id = task.session_id;
        request.timeout_sec = task.timeout.map(|timeout| timeout.as_secs_f64());
        request.name = task.name;
        request.label = task.label;
        let asked = Asked::of(&request);
        let (id, task) = if self.spool().is_owner() {
            let submission = Submission {
                id: self.spool().new_id(),
                request,
                environment,
                attachment: task.attachment,
                origin: None,
            };
            let accepted = self.spool().submit(vec![submission])?.pop();
            let accepted = accepted.ok_or(SubmitError::Nothing)?;
            notices.extend(self.link_name(&asked, accepted.id()));
            (accepted.id(), Some(accepted))
        } else {
            let dropped = admission::drop_in(self.spool(), &[request], stop)?;
            match (dropped.ids.first(), dropped.failed) {
                (Some((_, id)), None) => (*id, None),
                (_, Some(failed)) => return Err(failed.error),
                (None, None) => return Err(SubmitError::Nothing),
            }
        };
        let accepted = self.accepted(&asked, id, task);
        notices.extend(self.make_ready());
        Ok((accepted, notices))
    }

    /// Links the name to the task. The task stays accepted if this fails.
    pub(super) fn link_name(&self, asked: &Asked, id: TaskId) -> Option<Notice> {
        let linked = self.spool().link_name(asked.name.as_ref()?, id);
        linked.err().map(Notice::NameNotLinked)
    }

    /// The answer for an accepted task.
    pub(super) fn accepted(&self, asked: &Asked, id: TaskId, task: Option<TaskDir>) -> Accepted {
        let recipe = asked.recipe.clone();
        let session = asked.session.clone();
        let session = session.unwrap_or_else(|| session_of(id));
        let path = self.spool().task_path(id);
        Accepted {
            id,
            task,
            recipe,
            session,
            path,
        }
    }
}

/// The parts of a request that are needed after it was written to the spool.
pub(super) struct Asked {
    name: Option<Name>,
    recipe: Name,
    session: Option<Name>,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Asked {
        Asked {
            name: request.name.clone(),
            recipe: request.recipe.clone(),
            session: request.session_id.clone(),
        }
    }
}
