//! `agentspool sweep`: one pass of the sweeper.

use agentspool::sweeper;
use serde_json::json;

use super::Context;
use super::args::SweepArgs;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &SweepArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    if !spool.is_owner() {
        let told = "only the owner of a spool may sweep it";
        return Err(CliError::new(ExitCode::Refused, told));
    }
    let swept = sweeper::sweep(&spool, args.dry_run)?;
    for error in &swept.errors {
        tracing::warn!("{error}");
    }
    let out = &context.out;
    if out.is_json() {
        out.object(&json!({
            "ok": swept.errors.is_empty(),
            "dry_run": args.dry_run,
            "busy": swept.is_busy,
            "only_recorded": swept.only_recorded,
            "cleared": swept.tasks.len(),
            "task_ids": swept.tasks,
            "skipped": swept.skipped,
            "rejected": swept.rejected,
            "litter": swept.litter,
            "names": swept.names,
            "sessions": swept.sessions,
            "freed_bytes": swept.freed_bytes,
            "errors": swept.errors,
        }))?;
    } else if !out.is_quiet() {
        if swept.is_busy {
            out.line("Another sweep is at it")?;
            return Ok(ExitCode::Done);
        }
        if let Some(why) = swept.only_recorded {
            out.line(format!("Nothing is removed by age this time: {why}"))?;
        }
        if args.dry_run {
            for id in &swept.tasks {
                out.line(format!("would clear {id}"))?;
            }
        }
        let verb = if args.dry_run { "Would sweep" } else { "Swept" };
        out.line(format!(
            "{verb} {} tasks, {} rejected files, {} leftovers, {} names, {} sessions",
            swept.tasks.len(),
            swept.rejected,
            swept.litter,
            swept.names,
            swept.sessions
        ))?;
    }
    Ok(if swept.errors.is_empty() {
        ExitCode::Done
    } else {
        ExitCode::General
    })
}
