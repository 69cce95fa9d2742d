//! `agentspool events`: what happened, one line an event.
//!
//! Not the reading (`client/events.rs`). With `--json` each line is an object of its own, because events have
//! no end that one object could wait for.

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

/// How often a reader that follows asks for more. A system call or two; nobody notices a tenth of a second.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The fields that begin a line, in their order; the others follow by their names.
const FIRST: [&str; 5] = ["at", "event", "task_id", "recipe", "session_id"];

pub(super) fn run(context: &Context, args: &EventsArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client()?;
    let interrupt = Interrupt::listen()?;
    let mut events = client.events(&EventOptions {
        after: args.after.clone(),
        since: args.since.map(Since::moment),
        tasks: args.task.clone(),
        follows: args.follow,
    })?;
    if events.begins_anew {
        let note = "note: the events at this cursor are gone; these begin with its day";
        context.out.note(note);
    }
    loop {
        while let Some(event) = events.next_event_unless(&|| interrupt.came())? {
            show(context, event)?;
            if interrupt.came() {
                break;
            }
        }
        // Somebody who follows has no other way to leave, so this is no error.
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
            // A made session says nothing that the id does not say.
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
