//! `agentspool logs ID [-f]`: a task's logs, its stdout to stdout and its stderr to stderr.
//!
//! Not the reading (`client/logs.rs`, `client/follow.rs`). Invariant: with `--json` a log that is not text is
//! marked as binary.

use agentspool::client::{Client, Followed, LogText, Stream};
use serde_json::json;

use super::Context;
use super::args::LogsArgs;
use super::exit_code::ExitCode;
use super::follow::{copy_to_end, show_piece};
use super::interrupt::Interrupt;
use super::report::CliError;

pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode, CliError> {
    let client = context.open_client_to_read()?;
    if context.out.is_json() && args.follow {
        return Err(CliError::usage(
            "--follow cannot be combined with --json: a followed log does not fit into one JSON object",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let streams: &[Stream] = match (args.stdout, args.stderr) {
        (true, _) => &[Stream::Stdout],
        (_, true) => &[Stream::Stderr],
        _ => &[Stream::Stdout, Stream::Stderr],
    };
    if args.follow {
        return follow(context, &client, streams, args, &interrupt);
    }
    show(context, &client, streams, args)
}

fn show(
    context: &Context,
    client: &Client,
    streams: &[Stream],
    args: &LogsArgs,
) -> Result<ExitCode, CliError> {
    let logs = client.logs(&args.task, args.attempt)?;
    let id = logs.task.id();
    let mut texts = serde_json::Map::new();
    for stream in streams {
        let Some(mut reader) = logs.open(*stream, args.lines)? else {
            continue;
        };
        if context.out.is_json() {
            let key = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            let LogText { text, is_text } = LogText::read(&mut reader)?;
            texts.insert(key.into(), text.into());
            if !is_text {
                // Bytes that are not UTF-8 were replaced by U+FFFD, so the text is not what the task wrote.
                texts.insert(format!("{key}_encoding"), "binary".into());
            }
        } else {
            copy_to_end(context, &mut reader, *stream)?;
        }
    }
    if context.out.is_json() {
        let mut object = json!({ "ok": true, "task_id": id, "attempt": logs.attempt });
        for (key, text) in texts {
            object[key] = text;
        }
        context.out.object(&object)?;
    } else if logs.last_attempt == 0 {
        let view = client.view(id)?;
        let is_over = view.is_some_and(|view| view.status.status.is_terminal());
        context.out.note(match is_over {
            true => format!("the task {id} ended before it started, so it has no logs"),
            false => format!("the task {id} has not started yet"),
        });
    }
    Ok(ExitCode::Done)
}

fn follow(
    context: &Context,
    client: &Client,
    streams: &[Stream],
    args: &LogsArgs,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let mut follow = client.follow(&args.task, streams, args.lines)?;
    while let Some(event) = follow.next(interrupt)? {
        match event {
            Followed::Begun => {
                context.note_all(client, Vec::from_iter(client.without_watcher()?));
            }
            Followed::Piece(stream, piece) => show_piece(context, piece, stream)?,
            Followed::Looked => {}
        }
    }
    Ok(ExitCode::Done)
}
