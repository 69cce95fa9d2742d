//! A task's log, copied to where people read it, piece by piece as it grows.
//!
//! Shared by the verbs that show logs. Not the waiting (`wait.rs`, `logs.rs`).

use std::io::IsTerminal as _;

use agentspool::spool::{LogReader, Piece, Stream, TaskDir};

use super::Context;
use super::report::CliError;

/// How far a task's log was copied, over all its attempts.
#[derive(Default)]
pub(super) struct FollowedLog {
    attempt: u32,
    reader: Option<LogReader>,
}

impl FollowedLog {
    /// Copies what is new; `true` when anything was.
    pub fn copy(
        &mut self,
        context: &Context,
        task: &TaskDir,
        stream: Stream,
    ) -> Result<bool, CliError> {
        let mut copied = false;
        loop {
            if self.reader.is_none() {
                let next = self.attempt.max(1);
                if task.last_attempt()? < next {
                    return Ok(copied);
                }
                self.attempt = next;
                self.reader = LogReader::open(task, next, stream)?;
            }
            let Some(reader) = &mut self.reader else {
                return Ok(copied);
            };
            copied |= copy_to_end(context, reader, stream)?;
            // A later attempt has its own log; this one will not grow any more.
            if task.last_attempt()? <= self.attempt {
                return Ok(copied);
            }
            self.attempt += 1;
            self.reader = None;
        }
    }
}

/// Copies a log's pieces to where they belong until there are no more.
pub(super) fn copy_to_end(
    context: &Context,
    reader: &mut LogReader,
    stream: Stream,
) -> Result<bool, CliError> {
    let mut copied = false;
    loop {
        match reader.next_piece()? {
            Piece::End => return Ok(copied),
            Piece::Gap(bytes) => {
                context
                    .out
                    .note(format!("[{bytes} bytes of the log were cut out here]"));
            }
            Piece::Anew => context.out.note("[the log begins anew here]"),
            Piece::Zeroes(bytes) => copy_zeroes(context, bytes, stream)?,
            Piece::Bytes(bytes) => write(context, &bytes, stream)?,
        }
        copied = true;
    }
}

fn write(context: &Context, bytes: &[u8], stream: Stream) -> Result<(), CliError> {
    match stream {
        Stream::Stdout => context.out.task_bytes(bytes),
        Stream::Stderr => context.out.task_error_bytes(bytes),
    }
}

/// A terminal shows no zeroes, and there may be more of them than it takes in a lifetime.
fn copy_zeroes(context: &Context, count: u64, stream: Stream) -> Result<(), CliError> {
    let is_seen = match stream {
        Stream::Stdout => std::io::stdout().is_terminal(),
        Stream::Stderr => std::io::stderr().is_terminal(),
    };
    if is_seen {
        context.out.note(format!("[{count} zero bytes]"));
        return Ok(());
    }
    let zeroes = [0u8; 64 << 10];
    let mut left = count;
    while left > 0 {
        let length = usize::try_from(left).map_or(zeroes.len(), |left| left.min(zeroes.len()));
        write(context, &zeroes[..length], stream)?;
        left -= length as u64;
    }
    Ok(())
}
