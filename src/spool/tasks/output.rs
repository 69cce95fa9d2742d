//! What a recipe gave: its result file, or what it printed.
//!
//! Not the result (`result.rs`), which takes it in or names its file. Invariants: what a result
//! names was durable before it (I7); no byte of an output is changed. Text that fits stands in the
//! result, everything else stays the file that it is.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, SeekFrom, Stat};

use super::attempt::{Attempt, Stream, path_in_task};
use super::log_cut::{Cut, read_cut};
use crate::spool::disk::{IoError, IoResult};
use crate::spool::layout::name::{self, CUT};
use crate::task::{Json, OutputEncoding};

/// An output that takes more bytes as JSON text stays a file that the result names.
const INLINE_OUTPUT: usize = 1 << 20;
/// Of a large file at most this much is looked at to find out whether it is text.
const LOOKED_AT: u64 = 64 << 20;
const PIECE: usize = 64 << 10;

/// What a recipe gave.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The value, where it is small enough to stand in the result.
    pub value: Option<Json>,
    /// The file, relative to the task's folder, where it is not.
    pub file: Option<String>,
    /// What the file holds, where it is not text.
    pub encoding: Option<OutputEncoding>,
    /// The recipe's result file is a folder, a link, a FIFO or the like, so it is not read.
    pub is_not_a_file: bool,
}

impl Attempt {
    /// What the recipe gave: its result file if it wrote one, else what it printed. What a result
    /// will name as a file is made durable here.
    pub fn output(&self) -> IoResult<Output> {
        self.dir.give_rights();
        let (name, is_not_a_file) = self.output_name()?;
        // Most tasks say nothing, and then there is nothing to open.
        let nothing = Output {
            is_not_a_file,
            ..Output::default()
        };
        if !self.dir.stat(name)?.is_some_and(holds_something) {
            return Ok(nothing);
        }
        let mut file = self.dir.open_own_file(name)?;
        let failed = |source| IoError::new("read", self.dir.path_of(name), source);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Ok(nothing);
        }
        let mut cut = Cut::default();
        // A log is not cut before it is longer than that.
        let is_text = if metadata.len() > INLINE_OUTPUT as u64 {
            if name == name::STDOUT {
                cut = read_cut(&self.dir, Stream::Stdout)?;
            }
            is_text(&file, metadata.len(), cut).map_err(failed)?
        } else {
            let mut bytes = Vec::new();
            (&mut file)
                .take(INLINE_OUTPUT as u64)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            match as_value(&bytes) {
                Value::Nothing => return Ok(nothing),
                Value::Json(value) => {
                    return Ok(Output {
                        value: Some(value),
                        ..nothing
                    });
                }
                Value::TooLong => true,
                Value::Binary => false,
            }
        };
        self.dir.sync_file(&file, name)?;
        if cut != Cut::default() {
            self.dir.sync_file(&self.dir.open_own_file(CUT)?, CUT)?;
        }
        self.dir.sync()?;
        Ok(Output {
            file: Some(path_in_task(self.number(), name)),
            encoding: (!is_text).then_some(OutputEncoding::Binary),
            ..nothing
        })
    }

    /// Whether the recipe wrote a result file with something in it.
    pub fn has_result_file(&self) -> IoResult<bool> {
        self.dir.give_rights();
        Ok(self.dir.stat(name::OUTPUT)?.is_some_and(holds_something))
    }

    /// What stands for an output that cannot be read now: its file, so that nobody takes it for
    /// none. Best effort: what cannot be opened cannot be synced either.
    pub fn unread_output(&self) -> Output {
        let name = self.output_name().map_or(name::STDOUT, |(name, _)| name);
        Output {
            file: Some(path_in_task(self.number(), name)),
            ..Output::default()
        }
    }

    /// Which file holds the output, and whether the recipe put something else in place of its
    /// result file.
    fn output_name(&self) -> IoResult<(&'static str, bool)> {
        Ok(match self.dir.stat(name::OUTPUT)? {
            Some(stat) if !is_file(stat) => (name::STDOUT, true),
            Some(stat) if stat.st_size > 0 || !self.printed_anything()? => (name::OUTPUT, false),
            _ => (name::STDOUT, false),
        })
    }

    fn printed_anything(&self) -> IoResult<bool> {
        Ok(self
            .dir
            .stat(name::STDOUT)?
            .is_some_and(|stat| stat.st_size > 0))
    }
}

fn is_file(stat: Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn holds_something(stat: Stat) -> bool {
    is_file(stat) && stat.st_size > 0
}

/// What an output is as a value.
#[derive(Debug)]
enum Value {
    /// No byte at all.
    Nothing,
    Json(Json),
    /// Text that takes too much room in a JSON file.
    TooLong,
    /// Bytes that are not UTF-8.
    Binary,
}

/// One JSON value stands as itself, anything else as text without its last newline.
fn as_value(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Nothing;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Value::Binary;
    };
    let value =
        Json::parse(text).unwrap_or_else(|_| Json::string(text.strip_suffix('\n').unwrap_or(text)));
    if value.text().len() > INLINE_OUTPUT {
        Value::TooLong
    } else {
        Value::Json(value)
    }
}

/// Whether a file of this size is UTF-8, as far as it is looked at. What was cut out of a log may leave a
/// part of a character at each side. Holes are skipped: they are NUL characters.
fn is_text(file: &File, size: u64, cut: Cut) -> std::io::Result<bool> {
    let mut bytes = vec![0u8; PIECE];
    let (mut at, mut looked_at, mut held) = (0, 0, 0);
    while at < size && looked_at < LOOKED_AT {
        let is_behind_cut = cut.contains(at);
        if is_behind_cut {
            (at, held) = (cut.to.min(size), 0);
        }
        let end = cut.part_end(at, size);
        let data = rustix::fs::seek(file, SeekFrom::Data(at)).map_or(end, |data| data.min(end));
        if data > at {
            if held > 0 {
                return Ok(false);
            }
            at = data;
            continue;
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at)).map_or(end, |hole| hole.min(end));
        let room = (PIECE - held).min(usize::try_from(hole - at).unwrap_or(PIECE));
        let read = file.read_at(&mut bytes[held..held + room], at)?;
        if read == 0 {
            break;
        }
        (at, looked_at) = (at + read as u64, looked_at + read as u64);
        let mut piece = &bytes[..held + read];
        while is_behind_cut && piece.first().is_some_and(|byte| byte & 0xc0 == 0x80) {
            piece = &piece[1..];
        }
        held = match std::str::from_utf8(piece) {
            Ok(_) => 0,
            // The rest of the character comes with the next piece.
            Err(error) if error.error_len().is_none() => piece.len() - error.valid_up_to(),
            Err(_) => return Ok(false),
        };
        let end = piece.len();
        let kept = piece[end - held..].to_vec();
        bytes[..held].copy_from_slice(&kept);
    }
    Ok(held == 0 || at < size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_stdout_becomes() {
        for (bytes, expected) in [
            (&b"42\n"[..], "42"),
            (b"{\"a\": 1.50}\n", "{\"a\": 1.50}"),
            (b"Hello\n", "\"Hello\""),
            (b"a\nb\n\n", "\"a\\nb\\n\""),
            (b"{} {}", "\"{} {}\""),
            // White space is text, and only JSON's own is left out around a value.
            (b" \n", "\" \""),
            (b"\n", "\"\""),
            (b"\xc2\xa042", "\"\u{a0}42\""),
            (b"\xef\xbb\xbf42", "\"\u{feff}42\""),
            (b"\0", "\"\\u0000\""),
            // JSON that would not survive stays text.
            (b"\"\\ud800\"", "\"\\\"\\\\ud800\\\"\""),
            (b"1e999", "\"1e999\""),
            (b"{\"a\":1,\"a\":2}", "\"{\\\"a\\\":1,\\\"a\\\":2}\""),
            (b"12345678901234567890123", "12345678901234567890123"),
        ] {
            let Value::Json(value) = as_value(bytes) else {
                panic!("{bytes:?} gave {:?}", as_value(bytes));
            };
            assert_eq!(value.text(), expected, "{bytes:?}");
        }
        assert!(matches!(as_value(b""), Value::Nothing));
        for bytes in [&b"\xff"[..], b"caf\xe9\n", b"cut \xc3", b"\xed\xa0\x80"] {
            assert!(matches!(as_value(bytes), Value::Binary), "{bytes:?}");
        }
    }

    #[test]
    fn the_encoded_size_decides() {
        let plain = "x".repeat(INLINE_OUTPUT - 2);
        assert!(matches!(as_value(plain.as_bytes()), Value::Json(_)));
        let long = "x".repeat(INLINE_OUTPUT - 1);
        assert!(matches!(as_value(long.as_bytes()), Value::TooLong));
        let escaped = vec![1u8; INLINE_OUTPUT / 4];
        assert!(matches!(as_value(&escaped), Value::TooLong));
    }

    #[test]
    fn a_large_file_is_text_or_not() {
        let is_text_of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            is_text(&file, bytes.len() as u64, Cut::default()).unwrap()
        };
        // Characters of three bytes lie across the ends of the pieces.
        let text = "€".repeat(100_000);
        assert!(is_text_of(text.as_bytes()));
        assert!(is_text_of(&[b"x", text.as_bytes()].concat()));
        assert!(!is_text_of(&text.as_bytes()[..299_999]));
        assert!(!is_text_of(&[text.as_bytes(), b"\xff"].concat()));

        // The middle of a log was cut out, and with it parts of two characters.
        let mut log = tempfile::tempfile().unwrap();
        log.write_all(text.as_bytes()).unwrap();
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&log, flags, 8192, 65_536).unwrap();
        let (from, to) = (8192, 8192 + 65_536);
        assert!(is_text(&log, 300_000, Cut { from, to }).unwrap());
        assert!(!is_text(&log, 300_000, Cut::default()).unwrap());
        // A copy of it has zeroes there, or what was there before.
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(text.as_bytes()).unwrap();
        copy.write_all_at(b"\xff", 10_000).unwrap();
        assert!(is_text(&copy, 300_000, Cut { from, to }).unwrap());
    }
}
