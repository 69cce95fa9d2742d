//! `agentspool recipe check NAME`: every problem that keeps a recipe from running, each with a fix.
//!
//! Not the checks (`client/recipes.rs`). Invariant: the exit code is 0 only if the recipe can run.

use agentspool::client::{FindError, RecipeCheck};
use agentspool::task::Name;
use serde_json::{Value, json};

use super::Context;
use super::exit_code::ExitCode;
use super::report::{CliError, code_of};

pub(super) fn run(context: &Context, name: &Name) -> Result<ExitCode, CliError> {
    let check = context.open_client_to_read()?.recipe_check(name)?;
    let code = check.problems.first().map_or(ExitCode::Done, code_of);
    if context.out.is_json() {
        context.out.object(&object(&check, code))?;
    } else {
        show(context, &check)?;
    }
    Ok(code)
}

fn object(check: &RecipeCheck, code: ExitCode) -> Value {
    let problem = |error: &FindError| json!({ "problem": error.problem(), "fix": error.fix() });
    let problems: Vec<Value> = check.problems.iter().map(problem).collect();
    let recipe = check.recipe.as_ref();
    let mut object = json!({
        "ok": check.problems.is_empty(), "name": check.name, "problems": problems,
        "kind": recipe.map(|recipe| recipe.kind.as_str()),
        "path": recipe.map(|recipe| recipe.path.as_path()), "advice": check.advice,
    });
    if let Some(first) = check.problems.first() {
        object["error"] = first.to_string().into();
        object["code"] = code.number().into();
    }
    object
}

fn show(context: &Context, check: &RecipeCheck) -> Result<(), CliError> {
    let out = &context.out;
    let name = check.name.as_str();
    if check.problems.is_empty() && !out.is_quiet() {
        out.line(format!("The recipe {name} can run"))?;
    }
    if !check.problems.is_empty() {
        out.line(format!("The recipe {name} cannot run:"))?;
    }
    for error in &check.problems {
        out.line(format!("  {}", error.problem()))?;
        out.line(format!("    Fix: {}", error.fix()))?;
    }
    for advice in &check.advice {
        out.note(format!("note: {advice}"));
    }
    Ok(())
}
