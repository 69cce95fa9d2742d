//! The recipe's command: program, arguments, environment, folder.
//!
//! Not its start (`group.rs`). Whatever one task asks for is set here, in the child, and never in
//! the runner, which goes on to the next task. Invariant: the environment holds what the watcher
//! has, the recipe lists and the submitter may set, and nothing of ours that is not the task's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use super::recover::MARK;
use super::{Prepared, Runner, Work};
use crate::recipe::{FindError, Recipe, is_variable_name};
use crate::spool::IoError;
use crate::task::{Json, JsonError};

/// Why a recipe's command cannot be put together.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The recipe or a file it names cannot be used.
    #[error(transparent)]
    Recipe(#[from] FindError),
    /// The request's config does not go over the recipe's.
    #[error("failed to lay the request's config over the recipe's: {0}")]
    Config(#[from] JsonError),
    /// A file could not be handed to the recipe.
    #[error("failed to hand the log to the recipe: {0}")]
    Files(#[from] std::io::Error),
    /// The task's variables cannot be read.
    #[error(transparent)]
    Environment(#[from] crate::spool::ReadError),
}

impl BuildError {
    /// The disk's or the kernel's refusal in it, which says nothing of the recipe: the task is as
    /// good as before and may be tried again.
    pub fn passing(self, recipe: &Recipe) -> Result<IoError, BuildError> {
        match self {
            BuildError::Environment(crate::spool::ReadError::Io(error)) => Ok(error),
            BuildError::Files(error) => Ok(IoError::new(
                "hand the log to the recipe",
                &recipe.path,
                error,
            )),
            lasting => Err(lasting),
        }
    }
}

/// Puts the command together.
pub(super) fn build(
    runner: &Runner<'_>,
    work: &Work,
    recipe: &Recipe,
    prepared: &Prepared,
) -> Result<Command, BuildError> {
    recipe.check_runnable(None)?;
    let mut environment: BTreeMap<OsString, OsString> =
        runner.surroundings.environment.iter().cloned().collect();
    add_tools(&mut environment, runner);
    for (name, value) in &recipe.manifest.env {
        environment.insert(name.into(), value.into());
    }
    for (name, value) in recipe.env_file()? {
        environment.insert(name.into(), value.into());
    }
    for (name, value) in work.lock.task().environment()? {
        // Checked at submission as well; the recipe may have changed since.
        let accepted = recipe.manifest.env_accept.contains(&name);
        if accepted
            && is_variable_name(&name)
            && let Some(value) = value.as_str()
        {
            environment.insert(name.into(), value.into());
        }
    }
    add_ours(&mut environment, runner, work, recipe, prepared)?;

    let search = environment.get(OsStr::new("PATH"));
    let mut command = Command::new(recipe.program(search.map(OsString::as_os_str)));
    command
        .args(recipe.arguments())
        .current_dir(prepared.attempt.work_path())
        .env_clear()
        .envs(environment)
        .stdin(Stdio::from(prepared.files.stdin.try_clone()?))
        .stdout(Stdio::from(prepared.files.stdout.try_clone()?))
        .stderr(Stdio::from(prepared.files.stderr.try_clone()?));
    Ok(command)
}

/// A recipe may call `agentspool progress`; where the program is not on PATH it is found last.
fn add_tools(environment: &mut BTreeMap<OsString, OsString>, runner: &Runner<'_>) {
    let Some(tools) = &runner.surroundings.tools else {
        return;
    };
    let path = environment.entry("PATH".into()).or_default();
    if !std::env::split_paths(path).any(|folder| folder == *tools) {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(tools);
    }
}

fn add_ours(
    environment: &mut BTreeMap<OsString, OsString>,
    runner: &Runner<'_>,
    work: &Work,
    recipe: &Recipe,
    prepared: &Prepared,
) -> Result<(), BuildError> {
    let task = work.lock.task();
    let attempt = &prepared.attempt;
    let config = merged_config(recipe, work.request.config.as_ref())?;
    let mut set = |name: &str, value: &dyn AsRef<OsStr>| {
        environment.insert(name.into(), value.as_ref().to_owned());
    };
    set("TMPDIR", &attempt.tmp_path());
    set("AGENTSPOOL_DIR", &runner.spool.path());
    set("AGENTSPOOL_TASK_ID", &task.id().to_string());
    set("AGENTSPOOL_TASK_DIR", &task.path());
    set("AGENTSPOOL_ATTEMPT", &attempt.number().to_string());
    set("AGENTSPOOL_RECIPE_DIR", &recipe.folder());
    set("AGENTSPOOL_INPUT_FILE", &attempt.input_path());
    set("AGENTSPOOL_CONFIG", &config.text());
    set("AGENTSPOOL_PROGRESS_FILE", &attempt.progress_path());
    set("AGENTSPOOL_RESULT_FILE", &attempt.output_path());
    set(MARK, &prepared.run.mark);
    if let Some(session) = &work.request.session_id {
        set("AGENTSPOOL_SESSION_ID", &session.as_str());
    }
    if let Some(state) = &prepared.state {
        set("AGENTSPOOL_SESSION_DIR", &state.path());
    }
    Ok(())
}

/// The recipe's defaults with the request's own values over them, key by key.
fn merged_config(recipe: &Recipe, asked: Option<&Json>) -> Result<Json, JsonError> {
    let mut config = recipe.manifest.config.clone();
    if let Some(asked) = asked {
        config.extend(asked.to::<BTreeMap<String, Json>>()?);
    }
    Json::of(&config)
}
