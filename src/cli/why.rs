//! `agentspool why TASK`: what a pending task waits for, in the order in which it is asked.
//!
//! Not the checks (`ready/`).

use agentspool::ready;
use agentspool::spool::{Spool, Target, TaskView};
use agentspool::task::{Reason, Status};
use serde_json::json;

use super::Context;
use super::args::WhyArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &WhyArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    let id = match spool.resolve(&args.task)? {
        Target::Task(id) => id,
        Target::Drop(name) => return Err(super::place::not_admitted(&name)),
    };
    let gone = || {
        let message = format!("the task {id} was just removed");
        CliError::new(ExitCode::NotFound, message)
    };
    let view = spool.task(id)?.ok_or_else(gone)?.view()?;
    let reasons = reasons(&spool, &view)?;
    let status = view.status.status;
    if context.out.is_json() {
        context.out.object(&json!({
            "ok": true, "task_id": id, "status": status, "reasons": reasons,
        }))?;
        return Ok(ExitCode::Done);
    }
    if reasons.is_empty() {
        let what = match status {
            Status::Pending | Status::Running => "is running",
            Status::Completed => "has completed",
            Status::Failed => "has failed",
            Status::Cancelled => "was cancelled",
        };
        context.out.line(format!("{id} {what}"))?;
    }
    for reason in &reasons {
        context.out.line(reason.to_string())?;
    }
    Ok(ExitCode::Done)
}

/// Why this task does not run.
pub(super) fn reasons(spool: &Spool, view: &TaskView) -> Result<Vec<Reason>, CliError> {
    let name = view.status.recipe.as_ref();
    // A recipe that cannot be read here says nothing; the runner reads it anew.
    let recipe = name.and_then(|name| super::place::recipe_path(spool).find(name).ok());
    Ok(ready::reasons(spool, view, recipe.as_ref())?)
}
