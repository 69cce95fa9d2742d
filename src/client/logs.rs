//! Reading a task's logs as they are now.
//!
//! Not following a log that grows (`follow.rs`). Invariant: a log that is too large for memory is refused,
//! not cut.

use super::lookup::LookupError;
use super::open::Client;
use crate::spool::{IoError, LogReader, Piece, Stream, TaskDir};

/// A log larger than this is not read as one text.
const MAX_TEXT: usize = 16 << 20;

/// The logs of one attempt of a task.
#[derive(Debug)]
pub struct Logs {
    /// The task's folder.
    pub task: TaskDir,
    /// The number of the attempt; 0 before the first attempt.
    pub attempt: u32,
    /// The number of the latest attempt; 0 before the first attempt.
    pub last_attempt: u32,
}

/// A log as one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText {
    /// The text. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub text: String,
    /// Whether the whole log is UTF-8.
    pub is_text: bool,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no such task.
    #[error(transparent)]
    Lookup(LookupError),
    /// The task was removed.
    #[error("the task was just removed")]
    Removed,
    /// The task has no such attempt.
    #[error("the task has no attempt {attempt} (the latest attempt is {last})")]
    NoSuchAttempt {
        /// The requested attempt.
        attempt: u32,
        /// The latest attempt.
        last: u32,
    },
    /// The log is too large for one text.
    #[error("the log is larger than {0} bytes")]
    TooLarge(usize),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Client {
    /// The logs of an attempt of a task, given by id, part of an id, name, or `last`. `None` is the latest
    /// attempt.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn logs(&self, task: &str, attempt: Option<u32>) -> Result<Logs, LogError> {
        let task = self.folder_of(task).map_err(|error| match error {
            LookupError::Removed(_) => LogError::Removed,
            LookupError::Resolve(_)
            | LookupError::NotAdmitted(_)
            | LookupError::Read(_)
            | LookupError::Io(_) => LogError::Lookup(error),
        })?;
        let last = task.last_attempt()?;
        if let Some(attempt) = attempt
            && (attempt == 0 || attempt > last)
        {
            return Err(LogError::NoSuchAttempt { attempt, last });
        }
        Ok(Logs {
            task,
            attempt: attempt.unwrap_or(last),
            last_attempt: last,
        })
    }
}

impl Logs {
    /// Opens one of the two logs, from its start or from the last `lines` lines. `None`: there is no log.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn open(&self, stream: Stream, lines: Option<usize>) -> Result<Option<LogReader>, IoError> {
        let Some(mut reader) = LogReader::open(&self.task, self.attempt, stream)? else {
            return Ok(None);
        };
        if let Some(lines) = lines {
            reader.skip_to_last(lines)?;
        }
        Ok(Some(reader))
    }
}

impl LogText {
    /// Reads to the end. Incomplete characters on both sides of dropped bytes are removed.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], [`LogError::Io`].
    pub fn read(reader: &mut LogReader) -> Result<LogText, LogError> {
        let (mut text, mut is_text, mut bytes) = (String::new(), true, Vec::new());
        let mut is_after_gap = false;
        loop {
            let (mut zeroes, mut gap) = (0, None);
            match reader.next_piece()? {
                Piece::Bytes(piece) => bytes.extend(piece),
                Piece::Zeroes(count) => zeroes = usize::try_from(count).unwrap_or(MAX_TEXT),
                Piece::Gap(count) => gap = Some(count),
                Piece::Anew => {
                    (is_text, is_after_gap) = (true, false);
                    text.clear();
                    bytes.clear();
                }
                Piece::End => break,
            }
            if (text.len() + bytes.len()).saturating_add(zeroes) > MAX_TEXT {
                return Err(LogError::TooLarge(MAX_TEXT));
            }
            bytes.resize(bytes.len() + zeroes, 0);
            if let Some(gap) = gap {
                is_text &= add_text(&mut text, whole_characters(&bytes, is_after_gap, true));
                text.push_str(&format!("[{gap} bytes cut out]"));
                bytes.clear();
                is_after_gap = true;
            }
        }
        is_text &= add_text(&mut text, whole_characters(&bytes, is_after_gap, false));
        Ok(LogText { text, is_text })
    }
}

fn add_text(text: &mut String, bytes: &[u8]) -> bool {
    let added = String::from_utf8_lossy(bytes);
    text.push_str(&added);
    matches!(added, std::borrow::Cow::Borrowed(_))
}

/// Removes the incomplete characters next to dropped bytes.
fn whole_characters(mut bytes: &[u8], cut_before: bool, cut_after: bool) -> &[u8] {
    const LONGEST: usize = 4;
    if cut_before {
        let rest = bytes.iter().take(LONGEST - 1);
        let rest = rest.take_while(|byte| **byte & 0xc0 == 0x80).count();
        bytes = &bytes[rest..];
    }
    if cut_after
        && let Err(error) = std::str::from_utf8(&bytes[bytes.len().saturating_sub(LONGEST)..])
        && error.error_len().is_none()
    {
        let begun = bytes.len().min(LONGEST) - error.valid_up_to();
        bytes = &bytes[..bytes.len() - begun];
    }
    bytes
}
