//! `agentspool events`: what happened, one line an event.
//!
//! Not the reading (`spool/events.rs`). With `--json` each line is an object of its own, because events have
//! no end that one object could wait for.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;

use agentspool::clock;
use agentspool::spool::{EventRead, Spool, Target};
use agentspool::task::{TaskId, Timestamp};
use serde_json::{Map, Value};

use super::Context;
use super::args::{EventsArgs, Since};
use super::exit_code::ExitCode;
use super::interrupt::Interrupt;
use super::report::CliError;

/// How often a reader that follows asks for more. A system call or two; nobody notices a tenth of a second.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The fields that begin a line, in their order; the others follow by their names.
const FIRST: [&str; 5] = ["at", "event", "task_id", "recipe", "session_id"];

pub(super) fn run(context: &Context, args: &EventsArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    let interrupt = Interrupt::listen()?;
    let tasks = tasks(&spool, &args.task)?;
    let since = args.since.map(|since| match since {
        Since::At(moment) => moment,
        Since::Ago(time) => {
            let ago = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            Timestamp::from_unix_ms(clock::wall().unix_ms().saturating_sub(ago))
        }
    });
    let (mut reader, is_lost) = spool.events(args.after.as_ref(), since)?;
    if is_lost {
        let note = "note: the events at this cursor are gone; these begin with its day";
        context.out.note(note);
    }
    let chosen = |event: &EventRead| {
        let id = event.fields.get("task_id").and_then(Value::as_str);
        let is_task = tasks
            .as_ref()
            .is_none_or(|tasks| id.is_some_and(|id| tasks.contains(id)));
        is_task && since.is_none_or(|since| moment_of(&event.fields).is_some_and(|at| at >= since))
    };
    loop {
        while let Some(event) = reader.next_event(args.follow)? {
            if chosen(&event) {
                show(context, event)?;
            }
            if interrupt.came() {
                break;
            }
        }
        if !args.follow {
            return Ok(ExitCode::Done);
        }
        if interrupt.came() {
            // To end it is the only way to leave, and no error.
            return Ok(ExitCode::Done);
        }
        wait(&interrupt);
    }
}

/// The ids that were asked for. One that is no task any more is taken as it is written: its events may be there.
fn tasks(spool: &Spool, asked: &[String]) -> Result<Option<HashSet<String>>, CliError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut ids = HashSet::new();
    for text in asked {
        if text.parse::<TaskId>().is_ok() {
            ids.insert(text.clone());
        } else {
            match spool.resolve(text)? {
                Target::Task(id) => ids.insert(id.to_string()),
                Target::Drop(name) => return Err(super::place::not_admitted(&name)),
            };
        }
    }
    Ok(Some(ids))
}

fn moment_of(fields: &Map<String, Value>) -> Option<Timestamp> {
    serde_json::from_value(fields.get("at")?.clone()).ok()
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
