//! `agentspool pause` and `agentspool resume`: stop starting tasks, and start them again.
//!
//! Not the check (`client/pause.rs`). Invariant: running tasks continue, new tasks and drops wait, and only
//! the spool's owner may pause and resume.

use agentspool::client::Client;
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn pause(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let is_new = client.pause()?;
    print_state(context, &client, true, is_new)
}

pub(super) fn resume(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let resumed = client.resume()?;
    let code = print_state(context, &client, false, resumed.was_paused)?;
    context.note_all(&client, Vec::from_iter(resumed.notice));
    Ok(code)
}

fn print_state(
    context: &Context,
    client: &Client,
    paused: bool,
    changed: bool,
) -> Result<ExitCode, CliError> {
    let out = &context.out;
    let path = client.path().display();
    if out.is_json() {
        out.object(&json!({ "ok": true, "paused": paused, "changed": changed }))?;
    } else if !out.is_quiet() {
        out.line(match (paused, changed) {
            (true, true) => format!("Paused {path}: running tasks continue, no new task starts"),
            (true, false) => format!("{path} is already paused"),
            (false, true) => format!("Resumed {path}"),
            (false, false) => format!("{path} is not paused"),
        })?;
    }
    Ok(ExitCode::Done)
}
