//! `agentspool pause` and `agentspool resume`: keep tasks from starting, and let them start again.
//!
//! What runs goes on, and what is submitted or dropped waits. Only the owner decides.

use agentspool::client::Client;
use agentspool::spool::Spool;
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn pause(context: &Context) -> Result<ExitCode, CliError> {
    let client = owned(context)?;
    let spool = client.spool();
    let is_new = spool.pause()?;
    tell(context, spool, true, is_new)
}

pub(super) fn resume(context: &Context) -> Result<ExitCode, CliError> {
    let client = owned(context)?;
    let spool = client.spool();
    let was_paused = spool.resume()?;
    tell(context, spool, false, was_paused)?;
    if !spool.open_ids()?.is_empty() || !spool.is_reconciled()? {
        context.note_all(&client, Vec::from_iter(client.ensure_watcher()));
    }
    Ok(ExitCode::Done)
}

fn owned(context: &Context) -> Result<Client, CliError> {
    let client = context.open_client()?;
    let spool = client.spool();
    if spool.is_owner() {
        return Ok(client);
    }
    let path = spool.path().display();
    let told = format!("only the owner of the spool {path} can pause and resume it");
    Err(CliError::new(ExitCode::Refused, told))
}

fn tell(
    context: &Context,
    spool: &Spool,
    paused: bool,
    changed: bool,
) -> Result<ExitCode, CliError> {
    let out = &context.out;
    let path = spool.path().display();
    if out.is_json() {
        out.object(&json!({ "ok": true, "paused": paused, "changed": changed }))?;
    } else if !out.is_quiet() {
        out.line(match (paused, changed) {
            (true, true) => format!("Paused {path}: running tasks go on, no other one starts"),
            (true, false) => format!("{path} is paused already"),
            (false, true) => format!("Resumed {path}"),
            (false, false) => format!("{path} is not paused"),
        })?;
    }
    Ok(ExitCode::Done)
}
