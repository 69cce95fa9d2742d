//! `agentspool logs ID [-f]`: what a task wrote, its stdout to stdout and its stderr to stderr.

use std::os::fd::AsFd;
use std::time::Duration;

use agentspool::spool::{LogReader, Piece, Spool, Stream, Target, TaskDir, Wake};
use serde_json::json;

use super::Context;
use super::args::LogsArgs;
use super::exit_code::ExitCode;
use super::follow::{FollowedLog, copy_to_end};
use super::interrupt::Interrupt;
use super::place::check_still_there;
use super::report::CliError;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A log larger than this does not go into one JSON object.
const MOST_IN_JSON: usize = 16 << 20;

pub(super) fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode, CliError> {
    let spool = context.open_spool()?;
    if context.out.is_json() && args.follow {
        return Err(CliError::usage(
            "--follow has no end that one JSON object could wait for",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let wake = Wake::for_waiting(&spool)?;
    let task = loop {
        match spool.resolve(&args.task)? {
            Target::Task(id) => break spool.task(id)?,
            Target::Drop(name) if !args.follow => return Err(super::place::not_admitted(&name)),
            Target::Drop(name) => {
                interrupt.check(&format!("the drop {name}"))?;
                wake.wait(Some(interrupt.as_fd()), LOOK);
                wake.take();
            }
        }
    };
    let task =
        task.ok_or_else(|| CliError::new(ExitCode::NotFound, "the task was just removed"))?;
    let streams: &[Stream] = match (args.stdout, args.stderr) {
        (true, _) => &[Stream::Stdout],
        (_, true) => &[Stream::Stderr],
        _ => &[Stream::Stdout, Stream::Stderr],
    };
    if args.follow {
        context.note_without_watcher(&spool)?;
        return follow(context, &spool, &task, streams, &wake, &interrupt);
    }
    show(context, &task, streams, args)
}

fn show(
    context: &Context,
    task: &TaskDir,
    streams: &[Stream],
    args: &LogsArgs,
) -> Result<ExitCode, CliError> {
    let last = task.last_attempt()?;
    let attempt = args.attempt.unwrap_or(last);
    if args.attempt.is_some() && (attempt == 0 || attempt > last) {
        let told = format!("the task has no attempt {attempt} (it has made {last})");
        return Err(CliError::new(ExitCode::NotFound, told));
    }
    let mut texts = serde_json::Map::new();
    for stream in streams {
        let reader = LogReader::open(task, attempt, *stream)?;
        let Some(mut reader) = reader else { continue };
        if let Some(lines) = args.lines {
            reader.skip_to_last(lines)?;
        }
        if context.out.is_json() {
            let key = if *stream == Stream::Stdout {
                "stdout"
            } else {
                "stderr"
            };
            texts.insert(key.into(), read_text(&mut reader)?.into());
        } else {
            copy_to_end(context, &mut reader, *stream)?;
        }
    }
    if context.out.is_json() {
        let mut object = json!({ "ok": true, "task_id": task.id(), "attempt": attempt });
        for (key, text) in texts {
            object[key] = text;
        }
        context.out.object(&object)?;
    } else if last == 0 {
        context
            .out
            .note(format!("the task {} has not started yet", task.id()));
    }
    Ok(ExitCode::Done)
}

fn read_text(reader: &mut LogReader) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    loop {
        match reader.next_piece()? {
            Piece::End => break,
            Piece::Gap(gap) => bytes.extend(format!("[{gap} bytes cut out]").into_bytes()),
            Piece::Bytes(piece) => bytes.extend(piece),
        }
        if bytes.len() > MOST_IN_JSON {
            return Err(
                CliError::usage(format!("the log is larger than {MOST_IN_JSON} bytes"))
                    .hint("use --lines N, or logs without --json"),
            );
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn follow(
    context: &Context,
    spool: &Spool,
    task: &TaskDir,
    streams: &[Stream],
    wake: &Wake,
    interrupt: &Interrupt,
) -> Result<ExitCode, CliError> {
    let mut logs: Vec<(Stream, FollowedLog)> = streams
        .iter()
        .map(|stream| (*stream, FollowedLog::default()))
        .collect();
    loop {
        // Asked before the copy: what is written until the result stands is copied after it.
        let has_ended = task.has_result()?;
        for (stream, log) in &mut logs {
            log.copy(context, task, *stream)?;
        }
        if has_ended {
            return Ok(ExitCode::Done);
        }
        check_still_there(spool, task.id())?;
        interrupt.check(&format!("the task {}", task.id()))?;
        wake.wait(Some(interrupt.as_fd()), LOOK);
        wake.take();
    }
}
