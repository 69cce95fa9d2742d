//! `agentspool recipe list | info | run`.

use std::ffi::OsStr;

use agentspool::recipe::{FindError, Kind, OnLost, Recipe, SessionMode};
use agentspool::task::Name;
use serde_json::{Value, json};

use super::Context;
use super::args::{RecipeRunArgs, RecipeVerb};
use super::exit_code::ExitCode;
use super::report::CliError;
use super::{submit, wait};

pub(super) fn run(context: &Context, verb: RecipeVerb) -> Result<ExitCode, CliError> {
    match verb {
        RecipeVerb::List => list(context),
        RecipeVerb::Info { name } => info(context, &name),
        RecipeVerb::Run(args) => run_one(context, &args),
    }
}

/// `recipe run` waits and shows; with `--background` it is `submit`.
fn run_one(context: &Context, args: &RecipeRunArgs) -> Result<ExitCode, CliError> {
    let client = context.open_or_make_client()?;
    let accepted = submit::submit_one(context, &client, &args.recipe, &args.task, None)?;
    if args.background {
        submit::tell(context, &accepted, Some("Task submitted to background"))?;
        return Ok(ExitCode::Done);
    }
    wait::wait_and_show(context, &client, accepted)
}

fn list(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let recipes = client.recipes().all();
    let search = client.search();
    let out = &context.out;
    if out.is_json() {
        let rows: Vec<Value> = recipes
            .iter()
            .map(|(name, found)| row(search, name, found))
            .collect();
        out.object(&json!({ "ok": true, "recipes": rows }))?;
        return Ok(ExitCode::Done);
    }
    let widest = recipes
        .iter()
        .map(|(name, _)| name.as_str().len())
        .max()
        .unwrap_or(0);
    for (name, found) in &recipes {
        let text = match (found, problem(search, found)) {
            (_, Some(problem)) => format!("cannot run: {problem}"),
            (Ok(recipe), None) => recipe.description(),
            (Err(error), None) => error.to_string(),
        };
        if out.is_quiet() {
            out.line(name.as_str())?;
        } else {
            out.line(format!("{:widest$}  {text}", name.as_str()).trim_end())?;
        }
    }
    if recipes.is_empty() {
        let folder = client.spool().recipes_path();
        out.note(format!(
            "no recipes; put a script or a folder into {}",
            folder.display()
        ));
    }
    Ok(ExitCode::Done)
}

/// Why a recipe cannot run, if so.
fn problem(search: Option<&OsStr>, found: &Result<Recipe, FindError>) -> Option<String> {
    match found {
        Ok(recipe) => recipe
            .check_runnable(search)
            .err()
            .map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn row(search: Option<&OsStr>, name: &Name, found: &Result<Recipe, FindError>) -> Value {
    let recipe = found.as_ref().ok();
    json!({
        "name": name,
        "kind": recipe.map(|recipe| recipe.kind.as_str()),
        "description": recipe.map(Recipe::description),
        "path": recipe.map(|recipe| recipe.path.as_path()),
        "problem": problem(search, found),
    })
}

fn info(context: &Context, name: &Name) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let recipe = client.recipes().find(name)?;
    let search = client.search();
    let problem = recipe
        .check_runnable(search)
        .err()
        .map(|error| error.to_string());
    let settings = client.spool().settings();
    let timeout = recipe.manifest.timeout_sec;
    let info = Info {
        recipe: &recipe,
        search,
        problem,
        timeout: timeout.unwrap_or(settings.timeout_sec),
        enforced: settings.launcher.enforces_limits(),
    };
    if context.out.is_json() {
        context.out.object(&info.json())?;
    } else {
        for line in info.lines() {
            context.out.line(line)?;
        }
    }
    Ok(ExitCode::Done)
}

/// What is shown of one recipe.
struct Info<'a> {
    recipe: &'a Recipe,
    search: Option<&'a OsStr>,
    /// Why it cannot run, if so.
    problem: Option<String>,
    timeout: f64,
    /// Whether its limits hold with the spool's launcher.
    enforced: bool,
}

impl Info<'_> {
    fn on_lost(&self) -> &'static str {
        match self.recipe.manifest.on_lost {
            OnLost::Fail => "fail",
            OnLost::Requeue => "requeue",
        }
    }

    fn session(&self) -> &'static str {
        match self.recipe.manifest.session {
            SessionMode::Serial => "serial",
            SessionMode::Parallel => "parallel",
        }
    }

    fn json(&self) -> Value {
        let recipe = self.recipe;
        let manifest = &recipe.manifest;
        // Values of [env] may be secrets; their names are not.
        json!({
            "ok": true, "name": recipe.name, "kind": recipe.kind.as_str(), "path": recipe.path,
            "description": recipe.description(), "command": manifest.command,
            "timeout_sec": self.timeout, "on_lost": self.on_lost(),
            "max_attempts": manifest.max_attempts, "max_concurrent": manifest.max_concurrent,
            "session": self.session(), "memory_max": manifest.limits.memory_max,
            "cpu_quota": manifest.limits.cpu_quota, "tasks_max": manifest.limits.tasks_max,
            "limits_enforced": self.enforced, "env": manifest.env.keys().collect::<Vec<_>>(),
            "env_accept": manifest.env_accept, "env_file": manifest.env_file,
            "config": manifest.config, "problem": self.problem,
            "program": recipe.program(self.search),
        })
    }

    fn lines(&self) -> Vec<String> {
        let recipe = self.recipe;
        let manifest = &recipe.manifest;
        let mut lines = vec![format!("Recipe: {}", recipe.name)];
        let description = recipe.description();
        if !description.is_empty() {
            lines.push(format!("Description: {description}"));
        }
        lines.push(format!("Kind: {}", recipe.kind.as_str()));
        lines.push(format!("Path: {}", recipe.path.display()));
        if recipe.kind == Kind::Folder {
            lines.push(format!("Command: {}", manifest.command.join(" ")));
        }
        if recipe.kind == Kind::PraisonAi {
            lines.push(format!("Python: {}", recipe.program(self.search).display()));
        }
        lines.push(format!("Timeout: {}s", self.timeout));
        lines.push(format!("When its runner dies: {}", self.on_lost()));
        lines.push(format!("Tasks of a session: {}", self.session()));
        lines.extend(
            manifest
                .max_concurrent
                .map(|most| format!("At once: {most}")),
        );
        let limits = manifest.limits.properties();
        if !limits.is_empty() {
            let note = if self.enforced {
                ""
            } else {
                " (not enforced: the setting `launcher` is `local`)"
            };
            lines.push(format!("Limits: {}{note}", limits.join(" ")));
        }
        for (key, value) in &manifest.config {
            lines.push(format!("Config: {key} = {}", value.text()));
        }
        if !manifest.env_accept.is_empty() {
            lines.push(format!("Accepts --env: {}", manifest.env_accept.join(" ")));
        }
        let problem = self.problem.as_ref();
        lines.extend(problem.map(|problem| format!("Cannot run: {problem}")));
        lines
    }
}
