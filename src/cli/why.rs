//! `agentspool why TASK`: the reasons why a pending task does not start, in the order of the checks.
//!
//! Not the checks (`ready/`).

use agentspool::client::{Found, LookupError};
use agentspool::task::Status;
use serde_json::json;

use super::Context;
use super::args::WhyArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &WhyArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let view = match client.status(&args.task)? {
        Found::Task(view) => view,
        Found::Drop(name) => return Err(LookupError::NotAdmitted(name).into()),
    };
    let (id, status) = (view.status.task_id, view.status.status);
    let reasons = client.why(&view)?;
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
        let reason = context.out.with_spool(&reason.to_string());
        context.out.line(reason)?;
    }
    Ok(ExitCode::Done)
}
