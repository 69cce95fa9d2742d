//! The recipe's command: program, arguments, environment, folder.
//!
//! Does not start it (`group.rs`). Everything that a task asks for is set here for the child, never in
//! the runner, which runs other tasks afterwards. Invariant: the environment holds the watcher's
//! variables, those that the recipe lists, those that the submitter may set, and of agentspool's own only
//! those of this task.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::state::{Prepared, Runner, Work};
use crate::ending::TAG_VARIABLE;
use crate::recipe::{FindError, Kind, Recipe, is_variable_name};
use crate::spool::IoError;
use crate::task::{Json, JsonError};

/// How often the folder of our own program is checked.
const TOOLS_INTERVAL: Duration = Duration::from_secs(5);

/// A program with everything that it is executed with.
#[derive(Debug)]
pub(super) struct Command<'a> {
    /// A path, or a name that is searched for on the environment's PATH.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The whole environment: nothing is inherited.
    pub environment: Environment<'a>,
    /// The folder in which it runs.
    pub folder: PathBuf,
}

/// Variables by name. Most are the same for every task and are borrowed.
type Environment<'a> = BTreeMap<Cow<'a, OsStr>, Cow<'a, OsStr>>;

/// Why a recipe's command cannot be put together.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The recipe or a file it names cannot be used.
    #[error(transparent)]
    Recipe(#[from] FindError),
    /// The request's config is not an object and cannot be merged.
    #[error("failed to merge the request's config into the recipe's: {0}")]
    Config(#[from] JsonError),
    /// The task's variables cannot be read.
    #[error(transparent)]
    Environment(#[from] crate::spool::ReadError),
}

impl BuildError {
    /// The I/O error in it, if it has one. Such an error says nothing about the recipe: the task is
    /// unchanged and may be tried again.
    pub fn passing(self) -> Result<IoError, BuildError> {
        match self {
            BuildError::Environment(crate::spool::ReadError::Io(error)) => Ok(error),
            BuildError::Recipe(FindError::Unseen { path, source }) => {
                Ok(IoError::new("read the recipe", path, source))
            }
            lasting => Err(lasting),
        }
    }
}

/// Builds the command.
pub(super) fn build<'a>(
    runner: &'a Runner,
    work: &'a Work,
    recipe: &'a Recipe,
    prepared: &'a Prepared,
) -> Result<Command<'a>, BuildError> {
    recipe.check_before_start()?;
    let inherited = &runner.surroundings.environment;
    let mut environment: Environment<'a> = inherited
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    add_tools(&mut environment, runner, recipe);
    set_place(&mut environment, prepared);
    let own = recipe.manifest.env.iter();
    environment.extend(own.map(|(name, value)| (as_os(name), as_os(value))));
    let kept = recipe.env_file()?.into_iter();
    environment.extend(kept.map(|(name, value)| (given(name), given(value))));
    for (name, value) in work.lock.task().environment()? {
        // Checked at submission too, but the recipe may have changed since.
        let accepted = recipe.manifest.env_accept.contains(&name);
        if accepted
            && is_variable_name(&name)
            && let Some(value) = value.as_str()
        {
            environment.insert(given(name), given(value.to_owned()));
        }
    }
    add_ours(&mut environment, runner, work, recipe, prepared)?;

    let search = environment.get(OsStr::new("PATH")).map(|path| &**path);
    if recipe.kind == Kind::PraisonAi {
        // This PATH decides which program is executed.
        recipe.check_trust(search)?;
    }
    Ok(Command {
        program: recipe.program(search),
        arguments: recipe.arguments(),
        folder: prepared.attempt.work_path(),
        environment,
    })
}

fn as_os(text: &str) -> Cow<'_, OsStr> {
    Cow::Borrowed(OsStr::new(text))
}

fn given(text: impl Into<OsString>) -> Cow<'static, OsStr> {
    Cow::Owned(text.into())
}

/// A recipe may call `agentspool progress`. The folder of the program is added last, so it is found even
/// if it is not on PATH. A folder to which other users could add a program is not added.
fn add_tools(environment: &mut Environment<'_>, runner: &Runner, recipe: &Recipe) {
    let Some(tools) = runner.surroundings.tools.as_ref() else {
        return;
    };
    if !is_closed(runner, recipe, tools) {
        return;
    }
    let path = environment.entry(as_os("PATH")).or_default();
    if !std::env::split_paths(path).any(|folder| folder == *tools) {
        let path = path.to_mut();
        if !path.is_empty() {
            path.push(":");
        }
        path.push(tools);
    }
}

/// Whether nobody else could add a program to the folder of ours. It is the same one for all tasks of a runner, so it
/// is not checked for each of them.
fn is_closed(runner: &Runner, recipe: &Recipe, tools: &Path) -> bool {
    if let Some((at, is_closed)) = runner.closed_tools.get()
        && at.elapsed() < TOOLS_INTERVAL
    {
        return is_closed;
    }
    let is_closed = recipe.is_closed(tools);
    runner.closed_tools.set(Some((Instant::now(), is_closed)));
    is_closed
}

/// Sets PWD to the recipe's folder and removes variables that describe the watcher's shell. Python
/// buffers what it prints to a file, so PYTHONUNBUFFERED is set: without it a log would stay empty until
/// the recipe ends.
fn set_place(environment: &mut Environment<'_>, prepared: &Prepared) {
    environment.insert(as_os("PWD"), given(prepared.attempt.work_path()));
    for of_shell in ["OLDPWD", "_", "SHLVL"] {
        environment.remove(OsStr::new(of_shell));
    }
    let unbuffered = environment.entry(as_os("PYTHONUNBUFFERED"));
    unbuffered.or_insert_with(|| as_os("1"));
}

fn add_ours<'a>(
    environment: &mut Environment<'a>,
    runner: &'a Runner,
    work: &'a Work,
    recipe: &'a Recipe,
    prepared: &'a Prepared,
) -> Result<(), BuildError> {
    let task = work.lock.task();
    let attempt = &prepared.attempt;
    let temp_folder = match &prepared.temp_link {
        Some(link) => link.path().to_owned(),
        None => attempt.work_path(),
    };
    let config = merged_config(recipe, work.request.config.as_ref())?;
    let ours = [
        ("TMPDIR", given(temp_folder)),
        ("AGENTSPOOL_DIR", runner.spool.path().as_os_str().into()),
        ("AGENTSPOOL_TASK_ID", given(task.id().to_string())),
        ("AGENTSPOOL_TASK_DIR", task.path().as_os_str().into()),
        ("AGENTSPOOL_ATTEMPT", given(attempt.number().to_string())),
        ("AGENTSPOOL_RECIPE_DIR", given(recipe.folder())),
        ("AGENTSPOOL_INPUT_FILE", given(attempt.input_path())),
        ("AGENTSPOOL_CONFIG", given(config.text())),
        ("AGENTSPOOL_PROGRESS_FILE", given(attempt.progress_path())),
        ("AGENTSPOOL_RESULT_FILE", given(attempt.output_path())),
        (TAG_VARIABLE, as_os(&prepared.run.tag)),
    ];
    environment.extend(ours.map(|(name, value)| (as_os(name), value)));
    if let Some(session) = &work.request.session_id {
        environment.insert(as_os("AGENTSPOOL_SESSION_ID"), as_os(session.as_str()));
    }
    if let Some(state) = &prepared.state {
        let path = state.path().as_os_str();
        environment.insert(as_os("AGENTSPOOL_SESSION_DIR"), path.into());
    }
    Ok(())
}

/// The recipe's defaults, overridden by the request's values, key by key.
fn merged_config(recipe: &Recipe, asked: Option<&Json>) -> Result<Json, JsonError> {
    let mut config = recipe.manifest.config.clone();
    if let Some(asked) = asked {
        config.extend(asked.to::<BTreeMap<String, Json>>()?);
    }
    Json::of(&config)
}
