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
    let client = context.open_client()?;
    let spool = client.spool();
    if context.out.is_json() && args.follow {
        return Err(CliError::usage(
            "--follow has no end that one JSON object could wait for",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let wake = Wake::for_waiting(spool)?;
    let task = loop {
        match spool.resolve(&args.task)? {
            Target::Task(id) => break spool.task(id)?,
            Target::Drop(name) if !args.follow => return Err(super::place::not_admitted(&name)),
            Target::Drop(name) => {
                interrupt.check(&format!("the drop {name} goes on"))?;
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
        context.note_all(&client, Vec::from_iter(client.without_watcher()?));
        return follow(context, spool, &task, streams, &wake, &interrupt);
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
            let (text, is_text) = read_text(&mut reader)?;
            texts.insert(key.into(), text.into());
            if !is_text {
                // What is no UTF-8 stands as U+FFFD; that must not pass for what was written.
                texts.insert(format!("{key}_encoding"), "binary".into());
            }
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

/// The log as text, and whether it is text: what is not UTF-8 is replaced. Where bytes were cut out,
/// the rest of a character at either side goes with them.
fn read_text(reader: &mut LogReader) -> Result<(String, bool), CliError> {
    let (mut text, mut is_text, mut bytes) = (String::new(), true, Vec::new());
    let mut is_behind_gap = false;
    loop {
        let (mut zeroes, mut gap) = (0, None);
        match reader.next_piece()? {
            Piece::Bytes(piece) => bytes.extend(piece),
            Piece::Zeroes(count) => zeroes = usize::try_from(count).unwrap_or(MOST_IN_JSON),
            Piece::Gap(count) => gap = Some(count),
            Piece::Anew => {
                (is_text, is_behind_gap) = (true, false);
                text.clear();
                bytes.clear();
            }
            Piece::End => break,
        }
        if (text.len() + bytes.len()).saturating_add(zeroes) > MOST_IN_JSON {
            return Err(
                CliError::usage(format!("the log is larger than {MOST_IN_JSON} bytes"))
                    .hint("use --lines N, or logs without --json"),
            );
        }
        bytes.resize(bytes.len() + zeroes, 0);
        if let Some(gap) = gap {
            is_text &= add_text(&mut text, whole_characters(&bytes, is_behind_gap, true));
            text.push_str(&format!("[{gap} bytes cut out]"));
            bytes.clear();
            is_behind_gap = true;
        }
    }
    is_text &= add_text(&mut text, whole_characters(&bytes, is_behind_gap, false));
    Ok((text, is_text))
}

fn add_text(text: &mut String, bytes: &[u8]) -> bool {
    let added = String::from_utf8_lossy(bytes);
    text.push_str(&added);
    matches!(added, std::borrow::Cow::Borrowed(_))
}

/// Bytes without the parts of characters at a cut.
fn whole_characters(mut bytes: &[u8], cut_before: bool, cut_behind: bool) -> &[u8] {
    const LONGEST: usize = 4;
    if cut_before {
        let rest = bytes.iter().take(LONGEST - 1);
        let rest = rest.take_while(|byte| **byte & 0xc0 == 0x80).count();
        bytes = &bytes[rest..];
    }
    if cut_behind
        && let Err(error) = std::str::from_utf8(&bytes[bytes.len().saturating_sub(LONGEST)..])
        && error.error_len().is_none()
    {
        let begun = bytes.len().min(LONGEST) - error.valid_up_to();
        bytes = &bytes[..bytes.len() - begun];
    }
    bytes
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
        interrupt.check(&format!("the task {} goes on", task.id()))?;
        wake.wait(Some(interrupt.as_fd()), LOOK);
        wake.take();
    }
}
