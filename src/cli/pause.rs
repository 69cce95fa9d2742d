//! `agentspool pause` and `agentspool resume`: keep tasks from starting, and let them start again.
//!
//! What runs goes on, and what is submitted or dropped waits. Only the owner decides.

use agentspool::client::Client;
use serde_json::json;

use super::Context;
use super::exit_code::ExitCode;
use super::report::CliError;

pub(super) fn pause(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let is_new = client.pause()?;
    tell(context, &client, true, is_new)
}

pub(super) fn resume(context: &Context) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let resumed = client.resume()?;
    let code = tell(context, &client, false, resumed.was_paused)?;
    context.note_all(&client, Vec::from_iter(resumed.notice));
    Ok(code)
}

fn tell(
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
            (true, true) => format!("Paused {path}: running tasks go on, no other one starts"),
            (true, false) => format!("{path} is paused already"),
            (false, true) => format!("Resumed {path}"),
            (false, false) => format!("{path} is not paused"),
        })?;
    }
    Ok(ExitCode::Done)
}
