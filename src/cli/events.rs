//! `agentspool events`: the recorded events, one line per event.
//!
//! Not the reading (`client/events.rs`). Invariant: with `--json` each line is one object, because a stream
//! of events has no end at which one object could be printed.

use std::os::fd::AsFd;
use std::time::Duration;

use agentspool::client::{EventOptions, EventRead};
use serde_json::Value;

use super::Context;
use super::args::EventsArgs;
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::report::CliError;
use super::since::Since;

/// How often `--follow` checks for new events. A check costs one or two system calls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The first fields of a line, in this order. The other fields follow with their names.
const FIRST: [&str; 5] = ["at", "event", "task_id", "recipe", "session_id"];

pub(super) fn run(context: &Context, args: &EventsArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    let interrupt = Interrupt::listen()?;
    let mut events = client.events(&EventOptions {
        after: args.after.clone(),
        since: args.since.map(Since::moment),
        tasks: args.task.clone(),
        follows: args.follow,
    })?;
    if events.begins_anew {
        let note =
            "note: the events at this cursor were removed; the output starts with the cursor's day";
        context.out.note(note);
    }
    loop {
        while let Some(event) = events.next_event_unless(&|| interrupt.came())? {
            show(context, event)?;
            if interrupt.came() {
                break;
            }
        }
        // Ctrl-C is the only way to end `--follow`, so it is not an error.
        if !args.follow || interrupt.came() {
            return Ok(ExitCode::Done);
        }
        wait(&interrupt);
    }
}

fn show(context: &Context, event: EventRead) -> Result<(), CliError> {
    let EventRead { mut fields, cursor } = event;
    if context.out.is_json() {
        fields.insert("cursor".to_owned(), cursor.to_string().into());
        return context.out.object(&Value::Object(fields));
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut line: Vec<String> = Vec::new();
    for name in FIRST {
        match fields.shift_remove(name) {
            None | Some(Value::Null) => {}
            // A generated session id adds nothing to the task's id.
            Some(Value::String(session))
                if name == "session_id" && session.starts_with("session_") => {}
            Some(value) if name == "event" => line.push(format!("{:<9}", text(&value))),
            Some(value) => line.push(text(&value)),
        }
    }
    line.extend(fields.iter().map(|(name, value)| format!("{name}={value}")));
    context.out.line(line.join("  "))
}

fn wait(interrupt: &Interrupt) {
    let time = POLL_INTERVAL.try_into().ok();
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        interrupt.as_fd(),
        rustix::event::PollFlags::IN,
    )];
    let _ = rustix::event::poll(&mut fds, time.as_ref());
}
