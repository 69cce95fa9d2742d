//! `agentspool recipe list | info | run`, and the dispatch of the other `recipe` verbs.

use agentspool::client::{Kind, LeftOut, ListedRecipe, OnLost, Recipe, RecipeInfo, SessionMode};
use agentspool::task::{Name, escape_path};
use serde_json::{Value, json};

use super::Context;
use super::exit_code::ExitCode;
use super::recipe_args::{RecipeRunArgs, RecipeVerb};
use super::report::CliError;
use super::{recipe_check, recipe_new, submit, wait};

pub(super) fn run(context: &Context, verb: RecipeVerb) -> Result<ExitCode, CliError> {
    match verb {
        RecipeVerb::List => list(context),
        RecipeVerb::Info { name } => info(context, &name),
        RecipeVerb::Check { name } => recipe_check::run(context, &name),
        RecipeVerb::New { name, lang } => recipe_new::run(context, &name, lang),
        RecipeVerb::Run(args) => run_one(context, &args),
    }
}

/// `recipe run` waits and prints the output. With `--background` it works like `submit`.
fn run_one(context: &Context, args: &RecipeRunArgs) -> Result<ExitCode, CliError> {
    let client = context.open_or_make_client()?;
    let mut stdin = submit::unread_stdin(&args.task);
    let accepted = submit::submit_one(context, &client, &args.recipe, &args.task)?;
    stdin.note(context);
    if args.background {
        submit::print_accepted(context, &accepted, Some("Task submitted to background"))?;
        return Ok(ExitCode::Done);
    }
    let code = wait::wait_and_show(context, &client, accepted)?;
    stdin.note(context);
    Ok(code)
}

fn list(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let recipes = client.recipe_list();
    let left_out = client.recipes_left_out();
    let out = &context.out;
    if out.is_json() {
        let rows: Vec<Value> = recipes.iter().map(row).collect();
        let left_out = left_out.iter().map(left_out_row);
        let left_out: Vec<Value> = left_out.collect();
        out.object(&json!({ "ok": true, "recipes": rows, "left_out": left_out }))?;
        return Ok(ExitCode::Done);
    }
    let widths = recipes.iter().map(|listed| listed.name.as_str().len());
    let widest = widths.max().unwrap_or(0);
    for listed in &recipes {
        let name = listed.name.as_str();
        let text = match (&listed.recipe, &listed.error) {
            (_, Some(error)) => format!("cannot run: {}; {}", error.problem(), error.fix()),
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
            "no recipes; put a script or a folder into {}, or create one with `agentspool recipe new NAME`",
            folder.display()
        ));
    }
    for LeftOut { path, problem, fix } in &left_out {
        let path = escape_path(path);
        out.note(format!("note: {path} is not listed: {problem}; {fix}"));
    }
    Ok(ExitCode::Done)
}

fn left_out_row(left_out: &LeftOut) -> Value {
    let LeftOut { path, problem, fix } = left_out;
    json!({ "path": path, "problem": problem, "fix": fix })
}

fn row(listed: &ListedRecipe) -> Value {
    let recipe = listed.recipe.as_ref();
    json!({
        "name": listed.name,
        "kind": recipe.map(|recipe| recipe.kind.as_str()),
        "description": recipe.map(Recipe::description),
        "path": recipe.map(|recipe| recipe.path.as_path()),
        "problem": listed.error.as_ref().map(ToString::to_string),
    })
}

fn info(context: &Context, name: &Name) -> Result<ExitCode, CliError> {
    let shown = Shown(context.open_client_to_read()?.recipe_info(name)?);
    if context.out.is_json() {
        context.out.object(&shown.json())?;
    } else {
        for line in shown.lines() {
            context.out.line(line)?;
        }
    }
    Ok(ExitCode::Done)
}

/// A recipe as it is shown.
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
            "config": manifest.config, "problem": self.0.error.as_ref().map(ToString::to_string),
            "advice": self.0.advice,
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
        lines.push(format!("If its runner is killed: {}", self.on_lost()));
        lines.push(format!("Tasks of a session: {}", self.session()));
        lines.extend(
            manifest
                .max_concurrent
                .map(|most| format!("Tasks at once: {most}")),
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
        let error = self.0.error.as_ref();
        lines
            .extend(error.map(|error| format!("Cannot run: {}; {}", error.problem(), error.fix())));
        let advice = self.0.advice.iter();
        lines.extend(advice.map(|advice| format!("Note: {advice}")));
        lines
    }
}
