//! How a log is kept under its cap, and the record of what was cut out of it: `cut.json`.
//!
//! Not the reading (`logs.rs`) and not when to look (`runner/growth.rs`). A hole alone says nothing: a recipe may
//! make holes of its own, and those are zeroes that it wrote. A copy of a spool need not keep the holes either.
//! Invariant: what is missing from a log is the recorded range, and nothing else is.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, Stream};
use crate::spool::disk::{Dir, IoError, IoResult, is_same_file};
use crate::spool::layout::{SMALL_FILE, name::CUT};
use crate::task::FORMAT_VERSION;

/// What stays at each end of a log that went over its cap, unless the cap is too small for that.
const KEPT_AT_EACH_END: u64 = 8 << 20;
/// Holes are punched in whole blocks.
const BLOCK: u64 = 4096;
/// By so many bytes before a cut it is seen that the log is still the same.
const EDGE: usize = 64;
/// The record is always as long, so that it can be written over.
const RECORD_BYTES: usize = 256;
/// A recipe that writes it all the time keeps no reader.
const MOST_READINGS: usize = 8;

/// The range of a log that was cut out. Empty where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    pub from: u64,
    pub to: u64,
}

impl Cut {
    /// Whether the byte at this offset was cut out.
    pub fn contains(self, offset: u64) -> bool {
        (self.from..self.to).contains(&offset)
    }

    /// Where the part ends that begins at `offset`: at the cut, or at the end of the log.
    pub fn part_end(self, offset: u64, size: u64) -> u64 {
        if offset < self.from && self.from < self.to {
            self.from.min(size)
        } else {
            size
        }
    }

    /// How many of these bytes are data. They stand at an offset in the cut, and may have been read while it was
    /// made: what is cut out begins at a zero at the offset, or with a block that is all zeroes.
    pub fn data_from(self, offset: u64, bytes: &[u8]) -> u64 {
        if bytes.first() == Some(&0) {
            return 0;
        }
        let mut at = offset.next_multiple_of(BLOCK);
        let end = offset + bytes.len() as u64;
        while at < end.min(self.to) {
            let next = end.min(at + BLOCK);
            let block = &bytes[(at - offset) as usize..(next - offset) as usize];
            if block.iter().all(|byte| *byte == 0) {
                return at - offset;
            }
            at = next;
        }
        bytes.len() as u64
    }

    fn length(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// `attempts/<n>/cut.json`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct CutFile {
    v: u32,
    #[serde(default)]
    stdout: Cut,
    #[serde(default)]
    stderr: Cut,
}

impl CutFile {
    fn of(&mut self, stream: Stream) -> &mut Cut {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// What was cut out of one log of this attempt. A record that is not one counts as none. It is read until it stays
/// the same, because its runner may be writing it.
pub(super) fn read_cut(attempt: &Dir, stream: Stream) -> IoResult<Cut> {
    let mut bytes = attempt.read_own(CUT, SMALL_FILE)?.unwrap_or_default();
    for _ in 0..MOST_READINGS {
        if bytes.is_empty() {
            break;
        }
        let again = attempt.read_own(CUT, SMALL_FILE)?.unwrap_or_default();
        if again == bytes {
            break;
        }
        bytes = again;
    }
    let mut file: CutFile = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(*file.of(stream))
}

/// How large a log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes that were written, also those that were cut out.
    pub written: u64,
    /// Bytes of disk it took when it was looked at, before it was cut.
    pub on_disk: u64,
}

/// The logs of an attempt that runs, as its runner cuts them.
#[derive(Debug, Default)]
pub struct LogCuts {
    file: CutFile,
    /// What stands right before the cut of each log: of stdout, of stderr.
    edges: [Vec<u8>; 2],
    /// Where it is written: in place, because on ext4 a rename over a file takes longer than the cut.
    record: Option<File>,
    /// The record on the disk says something else, because there was no room for it.
    is_owed: bool,
}

impl LogCuts {
    /// Cuts the middle out of a log that takes more than `cap` bytes of disk, if it may be cut.
    ///
    /// # Errors
    /// Also where the file system cannot punch holes: then the log stays whole.
    pub fn cap(
        &mut self,
        attempt: &Attempt,
        stream: Stream,
        log: &File,
        cap: Option<u64>,
    ) -> std::io::Result<LogSize> {
        let stat = rustix::fs::fstat(log)?;
        let size = LogSize {
            written: stat.st_size.unsigned_abs(),
            on_disk: stat.st_blocks.unsigned_abs() * 512,
        };
        let before = *self.file.of(stream);
        if size.written < before.to || self.is_begun_anew(attempt, stream, log, before) {
            // The recipe has begun the log anew.
            self.record(attempt, stream, Cut::default());
        } else if self.is_owed {
            self.record(attempt, stream, before);
        }
        let Some(cap) = cap else { return Ok(size) };
        if size.written > cap && size.on_disk > cap {
            let from = KEPT_AT_EACH_END.min(cap / 4).next_multiple_of(BLOCK);
            let to = size.written.saturating_sub(from) / BLOCK * BLOCK;
            if to > from {
                self.cut(attempt, stream, log, Cut { from, to })?;
            }
        }
        Ok(size)
    }

    /// Whether a log that was cut is another one by now, and again as long. A recipe that only writes into the
    /// hole has not begun it anew.
    fn is_begun_anew(&self, attempt: &Attempt, stream: Stream, log: &File, cut: Cut) -> bool {
        if cut == Cut::default() {
            return false;
        }
        let there = edge(attempt, stream, log, cut.from);
        there.is_some_and(|(before, hole)| {
            let known = &self.edges[stream as usize];
            (!known.is_empty() && before != *known) || hole.iter().any(|byte| *byte != 0)
        })
    }

    /// The record comes first: whoever reads the log meanwhile must not take the hole for zeroes.
    fn cut(
        &mut self,
        attempt: &Attempt,
        stream: Stream,
        log: &File,
        cut: Cut,
    ) -> std::io::Result<()> {
        let before = *self.file.of(stream);
        self.record(attempt, stream, cut);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(errno) = rustix::fs::fallocate(log, flags, cut.from, cut.length()) {
            self.record(attempt, stream, before);
            return Err(errno.into());
        }
        let edge = edge(attempt, stream, log, cut.from);
        self.edges[stream as usize] = edge.map(|(before, _)| before).unwrap_or_default();
        if self.is_owed {
            // The hole has made room for it.
            self.record(attempt, stream, cut);
        }
        Ok(())
    }

    fn record(&mut self, attempt: &Attempt, stream: Stream, cut: Cut) {
        self.file.v = FORMAT_VERSION;
        *self.file.of(stream) = cut;
        let written = self.write(attempt);
        self.is_owed = written.is_err();
        if let Err(error) = written {
            tracing::debug!("{error}");
        }
    }

    fn write(&mut self, attempt: &Attempt) -> IoResult<()> {
        let record = match self.record.take() {
            Some(record) => record,
            None => {
                // The recipe may have put something there.
                attempt.dir.remove_anything(CUT)?;
                attempt.dir.create(CUT)?
            }
        };
        let mut bytes = serde_json::to_vec(&self.file).unwrap_or_default();
        bytes.resize(RECORD_BYTES - 1, b' ');
        bytes.push(b'\n');
        let written = record.write_all_at(&bytes, 0);
        self.record = Some(record);
        written.map_err(|source| IoError::new("write", attempt.dir.path_of(CUT), source))
    }

    /// The bytes that are missing from both logs.
    pub fn missing(&self) -> u64 {
        self.file.stdout.length() + self.file.stderr.length()
    }
}

/// What stands at the beginning of a cut: the end of what was kept before it, and what should be a hole.
/// `None` where that cannot be read. The log that is cut is open for writing alone.
fn edge(attempt: &Attempt, stream: Stream, log: &File, from: u64) -> Option<(Vec<u8>, Vec<u8>)> {
    let readable = attempt.log(stream).ok()??;
    is_same_file(&attempt.dir, stream.file_name(), log)
        .ok()
        .filter(|is_same| *is_same)?;
    let mut bytes = vec![0u8; EDGE + BLOCK as usize];
    let begin = from.checked_sub(EDGE as u64)?;
    let read = readable.read_at(&mut bytes, begin).ok()?;
    bytes.truncate(read);
    let hole = bytes.split_off(EDGE.min(read));
    Some((bytes, hole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_at_the_cut_or_at_the_end() {
        let cut = Cut { from: 10, to: 20 };
        let parts = [(0, 30, 10), (9, 5, 5), (20, 30, 30), (25, 30, 30)];
        for (offset, size, end) in parts {
            assert_eq!(cut.part_end(offset, size), end, "{offset} of {size}");
        }
        assert_eq!(Cut::default().part_end(0, 30), 30);
        let inside = [9, 10, 19, 20].map(|offset| cut.contains(offset));
        assert_eq!(inside, [false, true, true, false]);
    }
}
