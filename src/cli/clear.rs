//! `agentspool clear`: remove finished tasks because a person asks for it.
//!
//! Neither retention settings nor the sweeper's clock check apply. Plans first, so that `--dry-run`
//! says exactly what would be done.

use std::time::{Duration, Instant};

use agentspool::clock;
use agentspool::spool::{Cleared, Clearing, IoError, Spool};
use agentspool::task::{Event, Happened, Status, TaskId};
use serde_json::json;

use super::Context;
use super::args::ClearArgs;
use super::cancel::cancel;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::report::CliError;

/// Whoever finished a task holds it for a moment after its result stands; `wait` has returned by
/// then, and a person who clears next means that task too.
const SETTLING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// What is to be done.
#[derive(Default)]
struct Plan {
    cancel: Vec<TaskId>,
    remove: Vec<TaskId>,
    /// Folders of tasks that are gone, as far as a reader can tell.
    husks: Vec<TaskId>,
}

pub(super) fn run(context: &Context, args: &ClearArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    if !spool.is_owner() && !args.dry_run {
        let message = "only the spool's owner removes tasks";
        return Err(CliError::new(ExitCode::Refused, message)
            .hint("finished tasks go by themselves, as the retention settings say"));
    }
    let plan = plan(&spool, args)?;
    if args.dry_run {
        return tell_plan(context, &plan);
    }
    let interrupt = Interrupt::listen()?;
    // What stays in the trash of tasks that are gone; and why tasks could not be cancelled or removed.
    let (mut left, mut failed) = (Vec::new(), Vec::new());
    let (cancelled, mut skipped) = cancel_all(&spool, &plan.cancel, &interrupt, &mut failed)?;
    let (mut cleared, mut freed_bytes) = (Vec::new(), 0);
    let mut held = 0;
    let patience = Instant::now() + SETTLING;
    let clearing = spool.clearing()?;
    for id in cancelled.into_iter().chain(plan.remove) {
        match remove(&clearing, id, patience) {
            Ok(Cleared::Removed(removal)) => {
                let (recipe, session) = (removal.recipe.as_ref(), removal.session.as_ref());
                spool.emit(Event::of(Happened::Cleared, id, recipe, session));
                cleared.push(id);
                freed_bytes += removal.freed_bytes;
                left.extend(removal.left.map(|error| error.to_string()));
            }
            Ok(Cleared::Held | Cleared::Kept) => {
                skipped.push(id);
                held += 1;
            }
            Ok(Cleared::Gone) => {}
            Err(error) if error.is_denied() => {
                context.out.note(format!("note: {error}"));
                skipped.push(id);
            }
            // One that cannot be removed keeps nobody from the rest.
            Err(error) => {
                skipped.push(id);
                failed.push(error.to_string());
            }
        }
    }
    for id in plan.husks {
        if let Err(error) = clearing.remove_husk(id) {
            failed.push(error.to_string());
        }
    }
    let out = &context.out;
    for why in left.iter().chain(&failed) {
        out.note(format!("note: {why}"));
    }
    let code = if failed.is_empty() {
        ExitCode::Done
    } else {
        ExitCode::General
    };
    if out.is_json() {
        let mut object = json!({
            "ok": failed.is_empty(), "cleared": cleared.len(), "task_ids": cleared,
            "skipped": skipped, "freed_bytes": freed_bytes,
        });
        if !left.is_empty() {
            object["left"] = left.into();
        }
        if let Some(first) = failed.first() {
            object["error"] = first.as_str().into();
            object["code"] = code.number().into();
        }
        out.object(&object)?;
    } else if out.is_quiet() {
        for id in &cleared {
            out.line(id.to_string())?;
        }
    } else {
        let tasks = if cleared.len() == 1 { "task" } else { "tasks" };
        out.line(format!("Cleared {} {tasks}", cleared.len()))?;
        if held > 0 {
            out.note(format!("{held} tasks are held by somebody and were left"));
        }
    }
    Ok(code)
}

/// Cancels all of these; those that are over, and those that could not be cancelled. One of the latter keeps
/// nobody from the rest.
fn cancel_all(
    spool: &Spool,
    ids: &[TaskId],
    interrupt: &Interrupt,
    failed: &mut Vec<String>,
) -> Result<(Vec<TaskId>, Vec<TaskId>), CliError> {
    let (mut over, mut stay) = (Vec::new(), Vec::new());
    // All markers first, then the waiting: the graces run side by side.
    for id in ids {
        if let Ok(Some(task)) = spool.task(*id) {
            // What is refused here is refused below as well, and said there.
            let _ = task.request_cancel();
        }
    }
    for id in ids {
        match cancel(spool, *id, true, interrupt) {
            Ok(_) => over.push(*id),
            // Somebody else removed it: that was to be done as well.
            Err(error) if error.code == ExitCode::NotFound => over.push(*id),
            Err(error) if error.code == ExitCode::Interrupted => return Err(error),
            Err(error) => {
                failed.push(error.message);
                stay.push(*id);
            }
        }
    }
    Ok((over, stay))
}

fn remove(clearing: &Clearing<'_>, id: TaskId, patience: Instant) -> Result<Cleared, IoError> {
    loop {
        match clearing.remove(id)? {
            Cleared::Held | Cleared::Kept if Instant::now() < patience => std::thread::sleep(LOOK),
            cleared => return Ok(cleared),
        }
    }
}

fn plan(spool: &Spool, args: &ClearArgs) -> Result<Plan, CliError> {
    let now = clock::wall();
    let mut plan = Plan::default();
    for id in spool.task_ids()? {
        let Some(view) = spool.glance(id)? else {
            plan.husks.push(id);
            continue;
        };
        let status = view.status.status;
        let wanted = args.status.is_none_or(|wanted| wanted == status);
        if !wanted {
            continue;
        }
        if !status.is_terminal() {
            if args.all {
                plan.cancel.push(id);
            }
            continue;
        }
        if is_old_enough(&view.status, args.older_than, now) {
            plan.remove.push(id);
        }
    }
    if args
        .status
        .is_some_and(|status: Status| !status.is_terminal())
        && !args.all
    {
        return Err(CliError::usage("only finished tasks are cleared")
            .hint("--all cancels pending and running ones first"));
    }
    Ok(plan)
}

fn is_old_enough(
    status: &agentspool::task::StatusFile,
    older_than: Option<Duration>,
    now: agentspool::task::Timestamp,
) -> bool {
    let Some(least) = older_than else { return true };
    status
        .completed_at
        .is_some_and(|at| now.seconds_since(at) >= least.as_secs_f64())
}

fn tell_plan(context: &Context, plan: &Plan) -> Result<ExitCode, CliError> {
    let out = &context.out;
    if out.is_json() {
        out.object(&json!({
            "ok": true, "dry_run": true, "cleared": 0, "task_ids": [],
            "would_cancel": plan.cancel, "would_clear": plan.remove, "skipped": [],
            "freed_bytes": 0,
        }))?;
    } else {
        for id in &plan.cancel {
            out.line(format!("would cancel and clear {id}"))?;
        }
        for id in &plan.remove {
            out.line(format!("would clear {id}"))?;
        }
    }
    Ok(ExitCode::Done)
}
