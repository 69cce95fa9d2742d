//! `agentspool why TASK`: the reasons why a pending task does not start, in the order of the checks.
//!
//! Not the checks (`ready/`).

use agentspool::client::Found;
use agentspool::task::Status;
use serde_json::json;

use super::Context;
use super::args::WhyArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &WhyArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let (id, status, reasons) = match client.status(&args.task)? {
        Found::Task(view) => {
            let reasons = client.why(&view)?;
            (Some(view.status.task_id), view.status.status, reasons)
        }
        Found::Drop(_) => (None, Status::Pending, client.why_drop()?),
    };
    if context.out.is_json() {
        context.out.object(&json!({
            "ok": true, "task_id": id, "status": status, "reasons": reasons,
        }))?;
        return Ok(ExitCode::Done);
    }
    if let Some(id) = id.filter(|_| reasons.is_empty()) {
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
