//! `agentspool recipe new NAME`: creates a first version of a recipe.
//!
//! Not its files (`client/recipe_new.rs`). Invariant: the printed command runs unchanged in this shell and
//! folder.

use agentspool::client::Language;
use agentspool::task::{Name, escape_path, quote_path, quote_word};
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::recipe_args::Lang;
use super::report::CliError;

pub(super) fn run(context: &Context, name: &Name, lang: Lang) -> Result<ExitCode, CliError> {
    let language = match lang {
        Lang::Sh => Language::Sh,
        Lang::Python => Language::Python,
    };
    let client = context.open_or_make_client()?;
    let made = client.recipe_new(name, language)?;
    let input = made.input;
    // Without --spool, the printed command finds the same spool by itself.
    let spool = match &context.global.spool {
        Some(path) => format!("--spool {} ", quote_path(path)),
        None => String::new(),
    };
    let next = format!(
        "agentspool {spool}recipe run {name} --input {}",
        quote_word(input)
    );
    let out = &context.out;
    if out.is_json() {
        out.object(&json!({
            "ok": true, "name": made.name, "path": made.path, "program": made.program, "next": next,
        }))?;
    } else if out.is_quiet() {
        out.line(escape_path(&made.path))?;
    } else {
        out.line(format!("Recipe: {name}"))?;
        out.line(format!("Path: {}", escape_path(&made.path)))?;
        out.line(format!("Edit: {}", escape_path(&made.program)))?;
        out.line(format!("Try: {next}"))?;
    }
    for error in client.recipe_check(name)?.problems {
        out.note(format!("note: {error}"));
    }
    Ok(ExitCode::Done)
}
