//! Copies a task's log to stdout or stderr, piece by piece.
//!
//! Shared by the verbs that show logs. Not the following (`client/follow.rs`). Invariant: dropped bytes are
//! reported on stderr, as a note, never in the copied bytes.

use std::io::IsTerminal as _;

use agentspool::client::{LogReader, Piece, Stream};

use super::Context;
use super::report::CliError;

/// Copies a log to the stream of the same name, up to the end.
pub(super) fn copy_to_end(
    context: &Context,
    reader: &mut LogReader,
    stream: Stream,
) -> Result<(), CliError> {
    loop {
        match reader.next_piece()? {
            Piece::End => return Ok(()),
            piece => show_piece(context, piece, stream)?,
        }
    }
}

/// Copies one piece of a log.
pub(super) fn show_piece(context: &Context, piece: Piece, stream: Stream) -> Result<(), CliError> {
    match piece {
        Piece::End => {}
        Piece::Gap(bytes) => {
            context
                .out
                .note(format!("[{bytes} bytes of the log were cut out here]"));
        }
        Piece::Anew => context.out.note("[the log starts again here]"),
        Piece::Zeroes(bytes) => copy_zeroes(context, bytes, stream)?,
        Piece::Bytes(bytes) => write(context, &bytes, stream)?,
    }
    Ok(())
}

fn write(context: &Context, bytes: &[u8], stream: Stream) -> Result<(), CliError> {
    match stream {
        Stream::Stdout => context.out.task_bytes(bytes),
        Stream::Stderr => context.out.task_error_bytes(bytes),
    }
}

/// On a terminal only the number is printed: zero bytes are invisible there, and a sparse log may hold very
/// many.
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
