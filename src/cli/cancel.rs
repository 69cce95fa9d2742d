//! `agentspool cancel TASK…`: calls the client, and prints the outcome.
//!
//! Not the cancelling (`client/cancel.rs`). Invariant: cancelling a task that has already ended is not an
//! error.

use agentspool::client::{CancelError, CancelOutcome, Cancelled, Client};
use agentspool::task::{ResultFile, Status, TaskId, Timestamp};
use serde::Serialize;

use super::Context;
use super::args::CancelArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::json;
use super::report::CliError;
use super::select::Several;

pub(super) fn run(context: &Context, args: &CancelArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let selection = args.select.selection(args.all)?;
    let interrupt = Interrupt::listen()?;
    if let Some(text) = args.select.one() {
        let cancelled = client.cancel(text, !args.no_wait, &interrupt)?;
        print_outcome(context, &cancelled)?;
        if context.out.is_json() {
            context.out.object(&json::Ok(CancelJson::of(&cancelled)))?;
        }
        return Ok(ExitCode::Done);
    }
    let texts = client.texts_to_cancel(&selection)?;
    // All are requested before the first wait, so that the grace periods run at the same time.
    let requested: Vec<_> = texts
        .iter()
        .map(|text| client.cancel(text, false, &interrupt))
        .collect();
    let mut several = Several::new();
    for (text, requested) in texts.iter().zip(requested) {
        let ended = match requested {
            Ok(cancelled) if !args.no_wait => wait_for(&client, cancelled, &interrupt),
            requested => requested,
        };
        match ended {
            Ok(cancelled) => {
                print_outcome(context, &cancelled)?;
                several.add(CancelJson::of(&cancelled), ExitCode::Done);
            }
            // A task that was selected by a filter and has been removed needs no cancellation.
            Err(CancelError::Removed(_)) if args.select.tasks.is_empty() => {}
            Err(error) => several.fail(text, error.into()),
        }
    }
    several.end(context)
}

/// Waits for the end of a task whose cancellation was requested. The task is named by its id: since the request,
/// `last` or a name may lead to another task.
fn wait_for(
    client: &Client,
    requested: Cancelled,
    interrupt: &Interrupt,
) -> Result<Cancelled, CancelError> {
    let id = requested.id;
    let is_ended = !matches!(requested.outcome, CancelOutcome::Requested);
    // A drop that was refused becomes no task.
    if is_ended || client.is_refused_drop(id)? {
        return Ok(requested);
    }
    let mut cancelled = client.cancel(&id.to_string(), true, interrupt)?;
    // It may have ended since the request.
    if let CancelOutcome::AlreadyOver(result) = cancelled.outcome {
        cancelled.outcome = CancelOutcome::Ended(result);
    }
    Ok(cancelled)
}

/// What `cancel --json` prints for a task.
#[derive(Serialize)]
struct CancelJson {
    task_id: TaskId,
    status: Status,
    cancelled_at: Option<Timestamp>,
    already_terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel_requested: Option<bool>,
}

impl CancelJson {
    fn of(cancelled: &Cancelled) -> CancelJson {
        let was_cancelled = |result: &&ResultFile| result.status == Status::Cancelled;
        let is_requested = matches!(
            cancelled.outcome,
            CancelOutcome::Requested | CancelOutcome::Unattended
        );
        CancelJson {
            task_id: cancelled.id,
            status: cancelled.status,
            cancelled_at: cancelled
                .result()
                .filter(was_cancelled)
                .map(|result| result.completed_at),
            already_terminal: matches!(cancelled.outcome, CancelOutcome::AlreadyOver(_)),
            cancel_requested: is_requested.then_some(true),
        }
    }
}

/// Prints the outcome for a person.
fn print_outcome(context: &Context, cancelled: &Cancelled) -> Result<(), CliError> {
    let out = &context.out;
    let Cancelled { id, status, .. } = cancelled;
    if matches!(cancelled.outcome, CancelOutcome::Unattended) {
        out.note(
            "note: no watcher is running on this spool; the task is cancelled once one is running",
        );
    }
    if out.is_json() {
        return Ok(());
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
