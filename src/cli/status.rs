//! `agentspool status TASK…`: a task's status.

use agentspool::client::{Client, Found, TaskView};
use agentspool::task::{Condition, Name, Origin, Reason, Status};

use super::Context;
use super::args::StatusArgs;
use super::exit_code::ExitCode;
use super::json::{self, TaskJson};
use super::label;
use super::report::CliError;
use super::select::Several;

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let selection = args.select.selection(args.all)?;
    if let Some(text) = args.select.one() {
        let found = client.status(text)?;
        if context.out.is_json() {
            context.out.object(&json::Ok(row(&client, &found)))?;
        }
        show_found(context, &client, &found, args.absolute)?;
        return Ok(ExitCode::Done);
    }
    let mut several = Several::new();
    for (n, text) in client.texts_of(&selection)?.iter().enumerate() {
        match client.status(text) {
            Ok(found) => {
                if n > 0 && !context.out.is_json() {
                    context.out.line("")?;
                }
                show_found(context, &client, &found, args.absolute)?;
                several.add(row(&client, &found), ExitCode::Done);
            }
            Err(error) => several.fail(text, error.into()),
        }
    }
    several.end(context)
}

fn row(client: &Client, found: &Found) -> TaskJson {
    match found {
        Found::Task(view) => TaskJson::of(client, view),
        Found::Drop(name) => TaskJson::of_drop(name),
    }
}

/// Prints the status for a person, and the notes also for a script.
fn show_found(
    context: &Context,
    client: &Client,
    found: &Found,
    absolute: bool,
) -> Result<(), CliError> {
    match found {
        Found::Task(view) => show(context, client, view, absolute),
        Found::Drop(name) => show_drop(context, client, name),
    }
}

fn show_drop(context: &Context, client: &Client, name: &Name) -> Result<(), CliError> {
    let out = &context.out;
    if !out.is_json() {
        out.line(format!("Task: {name} (a drop, not admitted yet)"))?;
        out.line("Status: pending")?;
    }
    note_standstill(context, client)
}

/// Prints why a task that has not ended may make no progress.
fn note_standstill(context: &Context, client: &Client) -> Result<(), CliError> {
    context.note_all(client, Vec::from_iter(client.paused()));
    context.note_all(client, Vec::from_iter(client.without_watcher()?));
    Ok(())
}

fn show(
    context: &Context,
    client: &Client,
    view: &TaskView,
    absolute: bool,
) -> Result<(), CliError> {
    let out = &context.out;
    let status = &view.status;
    if !out.is_json() {
        out.line(format!("Task: {}", status.task_id))?;
        out.line(format!("Status: {}", status.status))?;
        out.line(format!("Progress: {:.0}%", status.progress * 100.0))?;
        if let Some(seconds) = status.duration_seconds {
            out.line(format!("Duration: {seconds:.1}s"))?;
        }
        let recipe = status.recipe.as_ref().map_or("?", |recipe| recipe.as_str());
        out.line(format!("Recipe: {recipe}"))?;
        if let Some(session) = &status.session_id {
            out.line(format!("Session: {session}"))?;
        }
        if let Some(name) = &status.name {
            out.line(format!("Name: {name}"))?;
        }
        let room = label::room_after(context, "Label: ".len());
        if let Some(label) = label::of_label(view, room) {
            out.line(format!("Label: {label}"))?;
        }
        let origin = client.origin(status.task_id);
        for line in more_lines(view, origin, absolute) {
            out.line(line)?;
        }
        // The other reasons are printed as notes, or as the condition above.
        let others = |reason: &Reason| {
            matches!(
                reason,
                Reason::Session { .. }
                    | Reason::RecipeSlots { .. }
                    | Reason::Slots { .. }
                    | Reason::Launcher { .. }
            )
        };
        if let Some(reason) = client.why(view)?.into_iter().find(others) {
            out.line(format!("Reason: {reason}"))?;
        }
    }
    if !status.status.is_terminal() {
        note_standstill(context, client)?;
    }
    Ok(())
}

/// The lines beyond the documented ones. Each is printed only if it has a value.
fn more_lines(view: &TaskView, origin: Option<Origin>, absolute: bool) -> Vec<String> {
    let status = &view.status;
    let mut lines = Vec::new();
    lines.extend(origin.map(|origin| match origin.uid {
        Some(uid) => format!("Submitted by: user {uid}"),
        None => "Submitted by: unknown".to_owned(),
    }));
    if let Some(message) = &status.message {
        lines.push(format!("Message: {message}"));
    }
    if let Some(condition) = status.condition {
        lines.push(format!(
            "Condition: {} ({})",
            condition.as_str(),
            explain(condition)
        ));
    }
    if let Some(error) = &status.error {
        lines.push(format!("Error: {}", error.message));
    }
    if status.attempt > 1 {
        lines.push(format!("Attempt: {}", status.attempt));
    }
    if status.log_bytes_dropped > 0 {
        lines.push(format!(
            "Log: {} bytes were cut out of its middle",
            status.log_bytes_dropped
        ));
    }
    if absolute {
        lines.push(format!("Created: {}", status.created_at));
        lines.extend(status.started_at.map(|at| format!("Started: {at}")));
        lines.extend(status.completed_at.map(|at| format!("Ended: {at}")));
    }
    if status.status == Status::Pending && status.condition == Some(Condition::Damaged) {
        lines.push("Files: kept as they are; `agentspool cancel` ends the task".to_owned());
    }
    lines
}

fn explain(condition: Condition) -> &'static str {
    match condition {
        Condition::Retrying => "an attempt was lost; another attempt follows",
        Condition::Interrupted => {
            "its runner was killed; the next runner retries or fails the task"
        }
        Condition::Stuck => "a process of the task cannot be killed",
        Condition::Damaged => "a file of the task cannot be read",
        Condition::Newer => "written by a newer agentspool",
    }
}
