//! `agentspool cancel ID`: leave the marker, and see the task to its end.
//!
//! A task that somebody holds is stopped by its holder; one that nobody holds is finished here, so
//! that cancelling works without a watcher. A user of the group asks the watcher instead, by a control
//! file in the drop box. What counts is the result that stands afterwards.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agentspool::runner::finish_cancelled;
use agentspool::spool::{Claim, IoError, Spool, Target, TaskDir, Wake};
use agentspool::task::{Action, Origin, ResultFile, Status, TaskId};
use serde_json::json;

use super::Context;
use super::args::CancelArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::place::not_admitted;
use super::report::CliError;

/// How often the lock is tried again while the holder is at it: it may die.
const LOOK: Duration = Duration::from_millis(200);

/// How often to look while a runner is about to let go of a task that has ended, and for how long.
const SETTLING: Duration = Duration::from_millis(5);
const SETTLING_PATIENCE: Duration = Duration::from_millis(100);

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
        Target::Drop(name) => match name.as_str().parse() {
            // A user of the group has chosen the id of the task to be.
            Ok(id) if spool.is_group() => id,
            Ok(_) | Err(_) => {
                let hint = format!("remove incoming/{name}.json, or wait until it is admitted");
                return Err(not_admitted(&name).hint(hint));
            }
        },
    };
    let interrupt = Interrupt::listen()?;
    // The owner ends a task or refuses a drop himself; users of the group ask the watcher.
    let cancelled = if spool.is_owner() {
        if refuse_drop(&spool, id, &interrupt)? {
            Cancelled::Requested
        } else {
            cancel(&spool, id, !args.no_wait, &interrupt)?
        }
    } else {
        ask(context, &spool, id, !args.no_wait, &interrupt)?
    };
    tell(context, &spool, id, &cancelled)?;
    Ok(ExitCode::Done)
}

/// As the owner: refuses the drop that waits under an id; `false` where there is a task of this id by now.
fn refuse_drop(spool: &Spool, id: TaskId, interrupt: &Interrupt) -> Result<bool, CliError> {
    while spool.task(id)?.is_none() {
        if spool.refuse_waiting(id)? {
            return Ok(true);
        }
        // A watcher is at it, or it was decided on.
        let Target::Drop(name) = spool.resolve(&id.to_string())? else {
            return Ok(false);
        };
        if !spool.has_watcher()? {
            return Err(not_admitted(&name).hint("a watcher died at it: run `agentspool watch`"));
        }
        interrupt.check(&format!("the cancellation of {id}"))?;
        std::thread::sleep(SETTLING);
    }
    Ok(false)
}

/// As a user of the group: asks the watcher to cancel a task, by a control file in the drop box. With
/// `wait` the task is over when this returns, if a watcher runs.
fn ask(
    context: &Context,
    spool: &Spool,
    id: TaskId,
    wait: bool,
    interrupt: &Interrupt,
) -> Result<Cancelled, CliError> {
    let wake = Wake::for_waiting(spool)?;
    if let Some(task) = spool.task(id)? {
        if task.has_result()? {
            return Ok(Cancelled::AlreadyTerminal(readable(&task)));
        }
        check_may_control(spool, &task)?;
    } else if let Some(uid) = spool.owner_of_waiting(id)?
        && uid != rustix::process::geteuid().as_raw()
    {
        return Err(of_another_user(&format!("the drop {id}")));
    }
    let asked = spool.ask(id, Action::Cancel)?;
    loop {
        let mut is_noted = false;
        if let Some(task) = spool.task(id)? {
            if task.has_result()? {
                return Ok(Cancelled::Ended(readable(&task)));
            }
            // It was a drop when we began: whose task it is stands only now.
            check_may_control(spool, &task)?;
            is_noted = task.cancel_requested()?;
        }
        if !is_noted && let Some(reason) = spool.refusal_of_control(&asked)? {
            let message = format!("the cancellation of {id} was refused: {}", reason.reason);
            return Err(CliError::new(ExitCode::Refused, message).hint(reason.hint));
        }
        if !spool.has_watcher()? {
            context.out.note(
                "note: no watcher is running on this spool; the task is cancelled once one runs",
            );
            return Ok(Cancelled::Requested);
        }
        if !wait {
            return Ok(Cancelled::Requested);
        }
        // A refused drop ends the waiting.
        spool.resolve(&id.to_string())?;
        interrupt.check(&format!("the cancellation of {id} goes on"))?;
        wake.wait(Some(interrupt.as_fd()), LOOK);
        wake.take();
    }
}

fn check_may_control(spool: &Spool, task: &TaskDir) -> Result<(), CliError> {
    if spool.may_control(task, rustix::process::geteuid().as_raw())? {
        return Ok(());
    }
    let id = task.id();
    let is_known = |origin: Option<Origin>| origin.is_none_or(|origin| origin.uid.is_some());
    if task.origin().is_ok_and(is_known) {
        return Err(of_another_user(&format!("the task {id}")));
    }
    let message = format!(
        "nobody knows who submitted the task {id}: others could have written or moved the file that was dropped"
    );
    Err(CliError::new(ExitCode::Refused, message)
        .hint("ask the spool's owner to cancel it; drop files that only you can write"))
}

fn of_another_user(what: &str) -> CliError {
    CliError::new(ExitCode::Refused, format!("{what} is another user's"))
        .hint("the user who submitted it or the spool's owner may cancel it")
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
    if is_over(&task)? {
        return Ok(Cancelled::AlreadyTerminal(readable(&task)));
    }
    task.request_cancel()?;
    loop {
        let again = spool.task(id)?.ok_or_else(gone)?;
        match again.lock(spool)? {
            // Its recipe emptied its folder: the runner has not ended it yet.
            Claim::Gone if spool.task(id)?.is_some() => {}
            Claim::Gone => return Err(gone()),
            Claim::Locked(lock) if lock.task().has_result()? => {
                return Ok(Cancelled::Ended(readable(&task)));
            }
            Claim::Locked(lock) => {
                let ended = finish_cancelled(spool, &lock, &|| !interrupt.came());
                if let Some(result) = ended.map_err(|error| noted_only(id, error))? {
                    return Ok(Cancelled::Ended(Some(result)));
                }
            }
            Claim::Busy(_) => {}
        }
        if !wait {
            return Ok(Cancelled::Requested);
        }
        interrupt.check(&format!("the cancellation of {id} goes on"))?;
        // The holder of a task with a result is about to let go of it.
        let pause = if task.has_result()? { SETTLING } else { LOOK };
        wake.wait(Some(interrupt.as_fd()), pause);
        wake.take();
    }
}

/// Whether a task has ended. A result that stands while a runner holds the lock may be one that the
/// recipe wrote; a runner that wrote its own lets go of the lock within moments.
fn is_over(task: &TaskDir) -> Result<bool, CliError> {
    let begun = Instant::now();
    while task.has_result()? {
        // Where that cannot be seen, the result is believed.
        if !task.is_held().unwrap_or(false) {
            return Ok(true);
        }
        if begun.elapsed() > SETTLING_PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(SETTLING);
    }
    Ok(false)
}

/// The marker stands and the disk refuses the result: what is true, and what comes of it.
fn noted_only(id: TaskId, error: IoError) -> CliError {
    let told = CliError::from(error);
    let message = format!(
        "the cancellation of {id} is noted and nothing of it will be started, but its end cannot be written: {}",
        told.message
    );
    let hint = "once there is room, a watcher or another `agentspool cancel` ends it";
    CliError { message, ..told }.hint(hint)
}

/// The result that stands; `None` as well where it cannot be read.
fn readable(task: &TaskDir) -> Option<ResultFile> {
    task.result().ok().flatten()
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
            None if matches!(cancelled, Cancelled::Requested) => Status::Pending,
            None => Status::Cancelled,
        },
    };
    if out.is_json() {
        let was_cancelled = |result: &&ResultFile| result.status == Status::Cancelled;
        let cancelled_at = result
            .filter(was_cancelled)
            .map(|result| result.completed_at);
        let mut object = json!({
            "ok": true,
            "task_id": id,
            "status": status,
            "cancelled_at": cancelled_at,
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
        Cancelled::Ended(_) if status == Status::Cancelled => out.line(format!("Cancelled: {id}")),
        Cancelled::Ended(_) => out.line(format!("Task {id} ended first: {status}")),
    }
}
