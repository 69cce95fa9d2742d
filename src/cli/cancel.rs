//! `agentspool cancel ID`: calls the client, and prints the outcome.
//!
//! Not the cancelling (`client/cancel.rs`). Invariant: cancelling a task that has already ended is not an
//! error.

use agentspool::client::{CancelOutcome, Cancelled};
use agentspool::task::{ResultFile, Status};
use serde_json::json;

use super::Context;
use super::args::CancelArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &CancelArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let interrupt = Interrupt::listen()?;
    let cancelled = client.cancel(&args.task, !args.no_wait, &interrupt)?;
    if matches!(cancelled.outcome, CancelOutcome::Unattended) {
        context.out.note(
            "note: no watcher is running on this spool; the task is cancelled once one is running",
        );
    }
    print_outcome(context, &cancelled)?;
    Ok(ExitCode::Done)
}

fn print_outcome(context: &Context, cancelled: &Cancelled) -> Result<(), CliError> {
    let out = &context.out;
    let Cancelled { id, status, .. } = cancelled;
    if out.is_json() {
        let was_cancelled = |result: &&ResultFile| result.status == Status::Cancelled;
        let cancelled_at = cancelled
            .result()
            .filter(was_cancelled)
            .map(|result| result.completed_at);
        let mut object = json!({
            "ok": true,
            "task_id": id,
            "status": status,
            "cancelled_at": cancelled_at,
            "already_terminal": matches!(cancelled.outcome, CancelOutcome::AlreadyOver(_)),
        });
        if matches!(
            cancelled.outcome,
            CancelOutcome::Requested | CancelOutcome::Unattended
        ) {
            object["cancel_requested"] = true.into();
        }
        return out.object(&object);
    }
    if out.is_quiet() {
        return Ok(());
    }
    match cancelled.outcome {
        CancelOutcome::AlreadyOver(_) => out.line(match status {
            Status::Completed | Status::Failed => format!("Task {id} had already {status}"),
            // The task has ended, whatever the status is.
            _ => format!("Task {id} was already {status}"),
        }),
        CancelOutcome::Requested | CancelOutcome::Unattended => {
            out.line(format!("Cancellation of {id} requested"))
        }
        CancelOutcome::Ended(_) if *status == Status::Cancelled => {
            out.line(format!("Cancelled: {id}"))
        }
        CancelOutcome::Ended(_) => {
            out.line(format!("Task {id} ended before it was cancelled: {status}"))
        }
    }
}
