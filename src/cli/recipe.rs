//! `agentspool recipe list | info | run`.

use agentspool::client::{Kind, ListedRecipe, OnLost, Recipe, RecipeInfo, SessionMode};
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
    let recipes = client.recipe_list();
    let out = &context.out;
    if out.is_json() {
        let rows: Vec<Value> = recipes.iter().map(row).collect();
        out.object(&json!({ "ok": true, "recipes": rows }))?;
        return Ok(ExitCode::Done);
    }
    let widths = recipes.iter().map(|listed| listed.name.as_str().len());
    let widest = widths.max().unwrap_or(0);
    for listed in &recipes {
        let name = listed.name.as_str();
        let text = match (&listed.recipe, &listed.problem) {
            (_, Some(problem)) => format!("cannot run: {problem}"),
            (Some(recipe), None) => recipe.description(),
            (None, None) => String::new(),
        };
        if out.is_quiet() {
            out.line(name)?;
        } else {
            out.line(format!("{name:widest$}  {text}").trim_end())?;
        }
    }
    if recipes.is_empty() {
        let folder = client.recipes_folder();
        out.note(format!(
            "no recipes; put a script or a folder into {}",
            folder.display()
        ));
    }
    Ok(ExitCode::Done)
}

fn row(listed: &ListedRecipe) -> Value {
    let recipe = listed.recipe.as_ref();
    json!({
        "name": listed.name,
        "kind": recipe.map(|recipe| recipe.kind.as_str()),
        "description": recipe.map(Recipe::description),
        "path": recipe.map(|recipe| recipe.path.as_path()),
        "problem": listed.problem,
    })
}

fn info(context: &Context, name: &Name) -> Result<ExitCode, CliError> {
    let shown = Shown(context.open_client()?.recipe_info(name)?);
    if context.out.is_json() {
        context.out.object(&shown.json())?;
    } else {
        for line in shown.lines() {
            context.out.line(line)?;
        }
    }
    Ok(ExitCode::Done)
}

/// One recipe as it is shown.
struct Shown(RecipeInfo);

impl Shown {
    fn on_lost(&self) -> &'static str {
        match self.0.recipe.manifest.on_lost {
            OnLost::Fail => "fail",
            OnLost::Requeue => "requeue",
        }
    }

    fn session(&self) -> &'static str {
        match self.0.recipe.manifest.session {
            SessionMode::Serial => "serial",
            SessionMode::Parallel => "parallel",
        }
    }

    fn json(&self) -> Value {
        let recipe = &self.0.recipe;
        let manifest = &recipe.manifest;
        // Values of [env] may be secrets; their names are not.
        json!({
            "ok": true, "name": recipe.name, "kind": recipe.kind.as_str(), "path": recipe.path,
            "description": recipe.description(), "command": manifest.command,
            "timeout_sec": self.0.timeout_sec, "on_lost": self.on_lost(),
            "max_attempts": manifest.max_attempts, "max_concurrent": manifest.max_concurrent,
            "session": self.session(), "memory_max": manifest.limits.memory_max,
            "cpu_quota": manifest.limits.cpu_quota, "tasks_max": manifest.limits.tasks_max,
            "limits_enforced": self.0.enforces_limits, "env": manifest.env.keys().collect::<Vec<_>>(),
            "env_accept": manifest.env_accept, "env_file": manifest.env_file,
            "config": manifest.config, "problem": self.0.problem,
            "program": self.0.program,
        })
    }

    fn lines(&self) -> Vec<String> {
        let recipe = &self.0.recipe;
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
            lines.push(format!("Python: {}", self.0.program.display()));
        }
        lines.push(format!("Timeout: {}s", self.0.timeout_sec));
        lines.push(format!("When its runner dies: {}", self.on_lost()));
        lines.push(format!("Tasks of a session: {}", self.session()));
        lines.extend(
            manifest
                .max_concurrent
                .map(|most| format!("At once: {most}")),
        );
        let limits = manifest.limits.properties();
        if !limits.is_empty() {
            let note = if self.0.enforces_limits {
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
        let problem = self.0.problem.as_ref();
        lines.extend(problem.map(|problem| format!("Cannot run: {problem}")));
        lines
    }
}
