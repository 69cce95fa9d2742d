//! What a recipe gave: its result file, or what it printed.
//!
//! Not the result (`attempt.rs`), which takes it in or names its file. Invariant I7: what a result
//! names was durable before it.

use std::io::Read;

use rustix::fs::{FileType, Stat};

use super::attempt::{Attempt, OUTPUT, STDOUT, path_in_task};
use super::io_error::{IoError, IoResult};
use crate::task::Json;

/// An output of more bytes stays a file that the result names.
const INLINE_OUTPUT: u64 = 1 << 20;

/// What a recipe gave.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The value, where it is small enough to stand in the result.
    pub value: Option<Json>,
    /// The file, relative to the task's folder, where it is not.
    pub file: Option<String>,
}

impl Attempt {
    /// What the recipe gave: its result file if it wrote one, else what it printed. What a result
    /// will name as a file is made durable here.
    pub fn output(&self) -> IoResult<Output> {
        let name = self.output_name()?;
        // A recipe may have made its result file anything at all; only a regular file is read.
        let is_file = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // Most tasks say nothing, and then there is nothing to open.
        let holds_something = |stat: Stat| is_file(stat) && stat.st_size > 0;
        if !self.dir.stat(name)?.is_some_and(holds_something) {
            return Ok(Output::default());
        }
        let mut file = self.dir.open_file(name)?;
        let failed = |source| IoError::new("read", self.dir.path_of(name), source);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Ok(Output::default());
        }
        if metadata.len() > INLINE_OUTPUT {
            self.dir.sync_file(&file, name)?;
            self.dir.sync()?;
            let file = Some(path_in_task(self.number(), name));
            return Ok(Output { value: None, file });
        }
        let mut bytes = Vec::new();
        (&mut file)
            .take(INLINE_OUTPUT)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Output {
            value: as_value(&bytes),
            file: None,
        })
    }

    /// What stands for an output that cannot be read now: its file, so that nobody takes it for
    /// none. Best effort: what cannot be opened cannot be synced either.
    pub fn unread_output(&self) -> Output {
        let name = self.output_name().unwrap_or(STDOUT);
        let file = Some(path_in_task(self.number(), name));
        Output { value: None, file }
    }

    fn output_name(&self) -> IoResult<&'static str> {
        Ok(match self.dir.stat(OUTPUT)? {
            Some(stat) if stat.st_size > 0 || !self.printed_anything()? => OUTPUT,
            _ => STDOUT,
        })
    }

    fn printed_anything(&self) -> IoResult<bool> {
        Ok(self.dir.stat(STDOUT)?.is_some_and(|stat| stat.st_size > 0))
    }
}

/// One JSON value stands as itself, anything else as text without its last newline; nothing at all
/// is null.
fn as_value(bytes: &[u8]) -> Option<Json> {
    let text = String::from_utf8_lossy(bytes);
    if text.trim().is_empty() {
        return None;
    }
    match Json::parse(&text) {
        Ok(value) => Some(value),
        Err(_) => Some(Json::string(text.strip_suffix('\n').unwrap_or(&text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stdout_becomes() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b" \n", None),
            (b"42\n", Some("42")),
            (b"{\"a\": 1.50}\n", Some("{\"a\": 1.50}")),
            (b"Hello\n", Some("\"Hello\"")),
            (b"a\nb\n\n", Some("\"a\\nb\\n\"")),
            (b"{} {}", Some("\"{} {}\"")),
            (b"\xff", Some("\"\u{fffd}\"")),
        ] {
            let value = as_value(bytes);
            assert_eq!(value.as_ref().map(Json::text), expected, "{bytes:?}");
        }
    }
}
