//! The output of a recipe: its result file, or what it printed.
//!
//! Not the result (`result.rs`), which contains the output or names its file. Invariants: a file that a
//! result names is durable before the result (I7); no byte of an output is changed. Text that is small enough
//! is stored in the result, everything else stays a file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, SeekFrom, Stat};

use super::attempt::{Attempt, Stream, path_in_task};
use super::log_cut::{Cut, read_cut};
use crate::spool::disk::{IoError, IoResult};
use crate::spool::layout::name::{self, CUT};
use crate::task::{Json, OutputEncoding};

/// The largest output, in bytes of JSON text, that is stored in the result. A larger output stays a file.
const INLINE_OUTPUT: usize = 1 << 20;
/// At most this many bytes of a large file are read to find out whether it is text.
const CHECKED: u64 = 64 << 20;
const PIECE: usize = 64 << 10;

/// The output of a recipe.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The value, if it is small enough to be stored in the result.
    pub value: Option<Json>,
    /// Otherwise the file, relative to the task's folder.
    pub file: Option<String>,
    /// The encoding of the file, if it is not text.
    pub encoding: Option<OutputEncoding>,
    /// The recipe's result file is not a regular file (a folder, a link, a FIFO), so it is not read.
    pub is_not_a_file: bool,
}

impl Attempt {
    /// The output: the recipe's result file if it wrote one, else what it printed. If the output stays a
    /// file, the file is made durable here.
    pub fn output(&self) -> IoResult<Output> {
        self.dir.give_rights();
        let (name, is_not_a_file) = self.output_name()?;
        // Most tasks have no output.
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
        // Only a log that is longer than this is ever cut.
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

    /// Whether the recipe wrote a result file that is not empty.
    pub fn has_result_file(&self) -> IoResult<bool> {
        self.dir.give_rights();
        Ok(self.dir.stat(name::OUTPUT)?.is_some_and(holds_something))
    }

    /// An output that only names the file, for an output that cannot be read now. Without it the task would
    /// seem to have no output. The file is not synced, because it cannot be opened.
    pub fn unread_output(&self) -> Output {
        let name = self.output_name().map_or(name::STDOUT, |(name, _)| name);
        Output {
            file: Some(path_in_task(self.number(), name)),
            ..Output::default()
        }
    }

    /// The file with the output, and whether the recipe's result file is not a regular file.
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

/// An output as a value of the result.
#[derive(Debug)]
enum Value {
    /// The output is empty.
    Nothing,
    Json(Json),
    /// Text that is too large for the result.
    TooLong,
    /// Bytes that are not UTF-8.
    Binary,
}

/// One JSON value is kept as it is. Any other text becomes a string without its last newline.
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

/// Whether a file of this size is UTF-8, as far as it is read. A cut in a log may leave a part of a character
/// at each side. Holes are skipped: they are NUL characters.
fn is_text(file: &File, size: u64, cut: Cut) -> std::io::Result<bool> {
    let mut bytes = vec![0u8; PIECE];
    let (mut at, mut checked, mut held) = (0, 0, 0);
    while at < size && checked < CHECKED {
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
        (at, checked) = (at + read as u64, checked + read as u64);
        let mut piece = &bytes[..held + read];
        while is_behind_cut && piece.first().is_some_and(|byte| byte & 0xc0 == 0x80) {
            piece = &piece[1..];
        }
        held = match std::str::from_utf8(piece) {
            Ok(_) => 0,
            // The rest of the character is in the next piece.
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
    fn stdout_becomes_a_json_value_or_a_string() {
        for (bytes, expected) in [
            (&b"42\n"[..], "42"),
            (b"{\"a\": 1.50}\n", "{\"a\": 1.50}"),
            (b"Hello\n", "\"Hello\""),
            (b"a\nb\n\n", "\"a\\nb\\n\""),
            (b"{} {}", "\"{} {}\""),
            // White space alone is text. Only JSON's own white space around a value is removed.
            (b" \n", "\" \""),
            (b"\n", "\"\""),
            (b"\xc2\xa042", "\"\u{a0}42\""),
            (b"\xef\xbb\xbf42", "\"\u{feff}42\""),
            (b"\0", "\"\\u0000\""),
            // JSON that cannot be stored without a change becomes a string.
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
    fn the_encoded_size_decides_whether_an_output_is_inline() {
        let plain = "x".repeat(INLINE_OUTPUT - 2);
        assert!(matches!(as_value(plain.as_bytes()), Value::Json(_)));
        let long = "x".repeat(INLINE_OUTPUT - 1);
        assert!(matches!(as_value(long.as_bytes()), Value::TooLong));
        let escaped = vec![1u8; INLINE_OUTPUT / 4];
        assert!(matches!(as_value(&escaped), Value::TooLong));
    }

    #[test]
    fn a_large_file_is_text_only_if_it_is_utf_8() {
        let is_text_of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            is_text(&file, bytes.len() as u64, Cut::default()).unwrap()
        };
        // Some characters of three bytes cross the end of a piece.
        let text = "€".repeat(100_000);
        assert!(is_text_of(text.as_bytes()));
        assert!(is_text_of(&[b"x", text.as_bytes()].concat()));
        assert!(!is_text_of(&text.as_bytes()[..299_999]));
        assert!(!is_text_of(&[text.as_bytes(), b"\xff"].concat()));

        // The middle of a log was cut out, with parts of two characters.
        let mut log = tempfile::tempfile().unwrap();
        log.write_all(text.as_bytes()).unwrap();
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&log, flags, 8192, 65_536).unwrap();
        let (from, to) = (8192, 8192 + 65_536);
        assert!(is_text(&log, 300_000, Cut { from, to }).unwrap());
        assert!(!is_text(&log, 300_000, Cut::default()).unwrap());
        // A copy of the log has zeroes in the cut, or the old bytes.
        let mut copy = tempfile::tempfile().unwrap();
        copy.write_all(text.as_bytes()).unwrap();
        copy.write_all_at(b"\xff", 10_000).unwrap();
        assert!(is_text(&copy, 300_000, Cut { from, to }).unwrap());
    }
}
