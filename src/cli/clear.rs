//! `agentspool clear`: calls the client, and prints what was removed.
//!
//! Not the removing (`client/clear.rs`). Invariant: `--dry-run` prints exactly what would be done.

use std::io::IsTerminal as _;

use agentspool::client::{ClearError, ClearOptions, ClearPlan, ClearReport, Selection};
use serde_json::json;

use super::Context;
use super::args::ClearArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::output::counted;
use super::report::CliError;
use super::select::failure;

pub(super) fn run(context: &Context, args: &ClearArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    if !args.dry_run {
        client.check_clear()?;
    }
    // Without a task or a filter, all finished tasks are removed.
    let selection = match args.select.tasks.is_empty() {
        true => Selection::Matching(args.select.filter.filter()),
        false => args.select.selection(false)?,
    };
    let plan = client.plan_clear(&ClearOptions {
        selection,
        all: args.all,
        older_than: args.older_than,
    })?;
    if args.dry_run {
        return print_plan(context, plan);
    }
    if args.all && !args.yes && !plan.cancel.is_empty() && !is_agreed(context, &plan)? {
        return Err(
            CliError::new(ExitCode::Refused, "nothing was cancelled or removed")
                .hint("answer y, or use --yes"),
        );
    }
    let interrupt = Interrupt::listen()?;
    print_report(context, client.clear_planned(plan, &interrupt)?)
}

/// Asks for confirmation on a terminal. Scripts are not asked, and neither is a command with `--json`.
fn is_agreed(context: &Context, plan: &ClearPlan) -> Result<bool, CliError> {
    let stdin = std::io::stdin();
    let is_asked = stdin.is_terminal() && std::io::stderr().is_terminal();
    if !is_asked || context.out.is_json() {
        return Ok(true);
    }
    let (open, over) = (plan.cancel.len(), plan.remove.len());
    context.out.question(format!(
        "This cancels {} and removes {}. Continue? [y/N] ",
        counted(open, "pending or running task", "pending or running tasks"),
        counted(
            open + over,
            "task with its result",
            "tasks with their results"
        ),
    ));
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}

fn print_report(context: &Context, report: ClearReport) -> Result<ExitCode, CliError> {
    let out = &context.out;
    for why in report.denied.iter().chain(&report.left) {
        out.note(format!("note: {why}"));
    }
    let cleared = &report.cleared;
    if !out.is_json() && out.is_quiet() {
        for id in cleared {
            out.line(id.to_string())?;
        }
    } else if !out.is_json() {
        out.line(format!(
            "Cleared {}",
            counted(cleared.len(), "task", "tasks")
        ))?;
        let held = report.held;
        if held > 0 {
            out.note(format!(
                "note: {} and {} kept: a process works on it or holds it open",
                counted(held, "task is in use", "tasks are in use"),
                if held == 1 { "was" } else { "were" },
            ));
        }
    }
    let left: Vec<String> = report.left.iter().map(ToString::to_string).collect();
    let mut object = json!({
        "ok": true, "cleared": cleared.len(), "task_ids": cleared,
        "skipped": report.skipped, "freed_bytes": report.freed_bytes,
    });
    if !left.is_empty() {
        object["left"] = left.into();
    }
    end(context, object, report.failed)
}

fn print_plan(context: &Context, plan: ClearPlan) -> Result<ExitCode, CliError> {
    let out = &context.out;
    if !out.is_json() {
        for id in &plan.cancel {
            out.line(format!("would cancel and clear {id}"))?;
        }
        for id in &plan.remove {
            out.line(format!("would clear {id}"))?;
        }
    }
    let object = json!({
        "ok": true, "dry_run": true, "cleared": 0, "task_ids": [],
        "would_cancel": plan.cancel, "would_clear": plan.remove, "skipped": [],
        "freed_bytes": 0,
    });
    end(context, object, plan.failed)
}

/// Prints what failed, with `--json` as a part of the object. A file of one task that cannot be used does not make
/// the spool unusable.
fn end(
    context: &Context,
    mut object: serde_json::Value,
    failed: Vec<(String, ClearError)>,
) -> Result<ExitCode, CliError> {
    let failed: Vec<(String, CliError)> = failed
        .into_iter()
        .map(|(text, error)| (text, error.into()))
        .collect();
    let code = match failed.first().map(|(_, error)| error.code) {
        None => ExitCode::Done,
        Some(ExitCode::SpoolUnusable) => ExitCode::General,
        Some(code) => code,
    };
    if !context.out.is_json() {
        for (_, error) in &failed {
            context.out.error(error);
        }
        return Ok(code);
    }
    object["ok"] = failed.is_empty().into();
    if let Some((_, first)) = failed.first() {
        object["error"] = first.message.as_str().into();
        object["code"] = code.number().into();
        object["failed"] = failed.iter().map(failure).collect();
    }
    context.out.object(&object)?;
    Ok(code)
}
