//! `agentspool sweep`: one pass of the sweeper, or repeated passes for machines without timers.
//!
//! Not the sweeping (`sweeper/`). The loop opens the spool again for each pass, so changed settings apply
//! from the next pass on. A failed pass is logged and does not end the loop. Invariant: SIGTERM and SIGINT
//! end the loop, also within a pass.

use std::time::Instant;

use agentspool::client::{Client, NeverStop, Swept};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::Context;
use super::args::SweepArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::log::disk_of_spool;
use super::log_line::LineWriter;
use super::output::counted;
use super::report::CliError;
use super::schedule::{self, Due, Schedule};

pub(super) fn run(context: &Context, args: &SweepArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    client.check_sweep()?;
    let schedule = match (&args.every, &args.cron) {
        (Some(period), _) => Schedule::every(*period, Instant::now()),
        (None, Some(line)) => Schedule::cron(line.clone(), &schedule::wall())
            .map_err(|never| CliError::usage(format!("--cron: {never}")))?,
        (None, None) => return once(context, &client, args.dry_run),
    };
    drop(client);
    repeat(context, schedule)
}

fn once(context: &Context, client: &Client, dry_run: bool) -> Result<ExitCode, CliError> {
    let swept = client.sweep(dry_run, &NeverStop)?;
    for error in swept.mounted.iter().chain(&swept.errors) {
        tracing::warn!("{error}");
    }
    let out = &context.out;
    if out.is_json() {
        out.object(&json!({
            "ok": swept.errors.is_empty(),
            "dry_run": dry_run,
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
            "mounted": swept.mounted,
            "errors": swept.errors,
        }))?;
    } else if !out.is_quiet() {
        if dry_run {
            for id in &swept.tasks {
                out.line(format!("would clear {id}"))?;
            }
        }
        out.line(summary(
            &swept,
            if dry_run { "Would sweep" } else { "Swept" },
        ))?;
    }
    Ok(if swept.errors.is_empty() {
        ExitCode::Done
    } else {
        ExitCode::General
    })
}

/// A pass in one line.
fn summary(swept: &Swept, verb: &str) -> String {
    if swept.is_busy {
        return "Another sweep is running".to_owned();
    }
    let mut line = format!(
        "{verb} {}, {}, {}, {}, {}",
        counted(swept.tasks.len(), "task", "tasks"),
        counted(swept.rejected, "rejected file", "rejected files"),
        counted(swept.litter, "leftover", "leftovers"),
        counted(swept.names, "name", "names"),
        counted(swept.sessions, "session", "sessions")
    );
    if !swept.skipped.is_empty() {
        let held = counted(swept.skipped.len(), "task in use", "tasks in use");
        line += &format!("; kept {held}");
    }
    if !swept.mounted.is_empty() {
        let mounted = counted(swept.mounted.len(), "mount point", "mount points");
        line += &format!("; kept {mounted}");
    }
    if !swept.errors.is_empty() {
        line += &format!("; {} could not be removed", swept.errors.len());
    }
    if swept.is_cut_short {
        line += "; stopped early";
    }
    match swept.only_recorded {
        Some(why) => format!("{line}; this pass removed nothing by age: {why}"),
        None => line,
    }
}

fn repeat(context: &Context, mut schedule: Schedule) -> Result<ExitCode, CliError> {
    let stop = Interrupt::listen()?;
    let log = LineWriter::new(rustix::stdio::stdout(), 1, disk_of_spool(context));
    let (mut passes, mut cleared, mut freed_bytes) = (0u64, 0, 0);
    while !stop.came() {
        let due = schedule.ask(Instant::now(), &schedule::wall());
        match due.map_err(|never| CliError::new(ExitCode::General, never.to_string()))? {
            Due::In(pause) => {
                // A pause that is too long for the kernel has no timeout.
                let timeout = Timespec::try_from(pause).ok();
                let mut fds = [PollFd::new(&stop, PollFlags::IN)];
                // If the call is interrupted or fails, the loop checks again.
                let _ = poll(&mut fds, timeout.as_ref());
            }
            Due::Now => {
                passes += 1;
                if let Some(swept) = pass(context, &stop, &log)? {
                    cleared += swept.tasks.len();
                    freed_bytes += swept.freed_bytes;
                }
            }
        }
    }
    log.flush();
    if context.out.is_json() {
        context.out.object(&json!({
            "ok": true, "passes": passes, "cleared": cleared, "freed_bytes": freed_bytes,
        }))?;
    }
    Ok(ExitCode::Done)
}

/// Runs one pass of the loop and prints one line about it.
fn pass(context: &Context, stop: &Interrupt, log: &LineWriter) -> Result<Option<Swept>, CliError> {
    let client = context.open_client();
    let swept = client.and_then(|client| Ok(client.sweep(false, &|| stop.came())?));
    let swept = match swept {
        Ok(swept) => swept,
        Err(error) => {
            tracing::error!("this pass failed: {}", error.message);
            return Ok(None);
        }
    };
    for error in swept.mounted.iter().chain(&swept.errors) {
        tracing::warn!("{error}");
    }
    let out = &context.out;
    if !out.is_json() && !out.is_quiet() {
        let now = agentspool::internals::wall();
        // If nobody reads the line, it is dropped: the next pass does not wait.
        log.line(format!("{now} {}", summary(&swept, "Swept")).as_bytes());
    }
    Ok(Some(swept))
}
