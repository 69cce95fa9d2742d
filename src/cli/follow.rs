//! A task's log, copied to where people read it, piece by piece as it grows.
//!
//! Shared by the verbs that show logs. Not the waiting (`wait.rs`, `logs.rs`).

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
            Piece::Bytes(bytes) => match stream {
                Stream::Stdout => context.out.task_bytes(&bytes)?,
                Stream::Stderr => context.out.task_error_bytes(&bytes)?,
            },
        }
        copied = true;
    }
}
