//! `agentspool cancel ID`: leave the marker, and see the task to its end.
//!
//! A task that somebody holds is stopped by its holder; one that nobody holds is finished here, so
//! that cancelling works without a watcher. What counts is the result that stands afterwards.

use std::os::fd::AsFd;
use std::time::Duration;

use agentspool::runner::finish_cancelled;
use agentspool::spool::{Claim, Spool, Target, Wake};
use agentspool::task::{ResultFile, TaskId};
use serde_json::json;

use super::Context;
use super::args::CancelArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::place::not_admitted;
use super::report::CliError;

/// How often the lock is tried again while the holder is at it: it may die.
const LOOK: Duration = Duration::from_millis(200);

/// What came of it.
pub(super) enum Cancelled {
    /// It was over before.
    AlreadyTerminal(Option<ResultFile>),
    /// The marker is left, the end was not waited for.
    Requested,
    /// It is over now.
    Ended(Option<ResultFile>),
}

pub(super) fn run(context: &Context, args: &CancelArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    let id = match spool.resolve(&args.task)? {
        Target::Task(id) => id,
        Target::Drop(name) => {
            let hint = format!("remove incoming/{name}.json, or wait until it is admitted");
            return Err(not_admitted(&name).hint(hint));
        }
    };
    let interrupt = Interrupt::listen()?;
    let cancelled = cancel(&spool, id, !args.no_wait, &interrupt)?;
    tell(context, &spool, id, &cancelled)?;
    Ok(ExitCode::Done)
}

/// Cancels a task; with `wait` it is over when this returns.
pub(super) fn cancel(
    spool: &Spool,
    id: TaskId,
    wait: bool,
    interrupt: &Interrupt,
) -> Result<Cancelled, CliError> {
    let gone = || {
        CliError::new(
            ExitCode::NotFound,
            format!("the task {id} was just removed"),
        )
    };
    // Listen before the marker is left, so that its effect cannot be missed.
    let wake = Wake::for_waiting(spool)?;
    let task = spool.task(id)?.ok_or_else(gone)?;
    if task.has_result()? {
        return Ok(Cancelled::AlreadyTerminal(task.result()?));
    }
    task.request_cancel()?;
    loop {
        // In a group spool a task that has begun is finished only by the spool's owner.
        let ours = spool.is_owner() || task.last_attempt()? == 0;
        if ours {
            let again = spool.task(id)?.ok_or_else(gone)?;
            match again.lock(spool)? {
                Claim::Gone => return Err(gone()),
                Claim::Locked(lock) if !lock.task().has_result()? => {
                    return Ok(Cancelled::Ended(Some(finish_cancelled(spool, &lock)?)));
                }
                Claim::Locked(_) | Claim::Busy => {}
            }
        }
        if task.has_result()? {
            return Ok(Cancelled::Ended(task.result()?));
        }
        if !wait {
            return Ok(Cancelled::Requested);
        }
        interrupt.check(&format!("the cancellation of {id}"))?;
        wake.wait(Some(interrupt.as_fd()), LOOK);
        wake.take();
    }
}

fn tell(
    context: &Context,
    spool: &Spool,
    id: TaskId,
    cancelled: &Cancelled,
) -> Result<(), CliError> {
    let out = &context.out;
    let result = match cancelled {
        Cancelled::AlreadyTerminal(result) | Cancelled::Ended(result) => result.as_ref(),
        Cancelled::Requested => None,
    };
    let already = matches!(cancelled, Cancelled::AlreadyTerminal(_));
    let status = match result {
        Some(result) => result.status,
        None => match spool.task(id)? {
            Some(task) => task.view()?.status.status,
            None => agentspool::task::Status::Cancelled,
        },
    };
    if out.is_json() {
        let mut object = json!({
            "ok": true,
            "task_id": id,
            "status": status,
            "cancelled_at": result.map(|result| result.completed_at),
            "already_terminal": already,
        });
        if matches!(cancelled, Cancelled::Requested) {
            object["cancel_requested"] = true.into();
        }
        return out.object(&object);
    }
    if out.is_quiet() {
        return Ok(());
    }
    match cancelled {
        Cancelled::AlreadyTerminal(_) => out.line(format!("Task {id} was already {status}")),
        Cancelled::Requested => out.line(format!("Cancellation of {id} requested")),
        Cancelled::Ended(_) if status == agentspool::task::Status::Cancelled => {
            out.line(format!("Cancelled: {id}"))
        }
        Cancelled::Ended(_) => out.line(format!("Task {id} ended first: {status}")),
    }
}
