//! How a log is kept under its cap, and the record of what was cut out of it: `cut.json`.
//!
//! Not how logs are read (`logs.rs`) and not when a log is checked (`runner/growth.rs`). A hole alone is no
//! proof of a cut: a recipe may create holes, which are zeroes that it wrote, and a copy of a spool may have
//! no holes. Invariant: exactly the recorded range is missing from a log.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, Stream};
use crate::spool::disk::{Dir, IoError, IoResult, is_same_file};
use crate::spool::layout::{SMALL_FILE, name::CUT};
use crate::task::FORMAT_VERSION;

/// Bytes kept at each end of a log that exceeds its cap, unless the cap is too small for that.
const KEPT_AT_EACH_END: u64 = 8 << 20;
/// Holes are punched in whole blocks.
const BLOCK: u64 = 4096;
/// This many bytes before a cut are compared to see whether the log was restarted.
const EDGE: usize = 64;
/// The length of the record. It is constant, so that the record can be overwritten in place.
const RECORD_BYTES: usize = 256;
/// The number of times a reader reads a record that keeps changing. A recipe must not block a reader.
const MAX_READS: usize = 8;

/// The range of a log that was cut out; empty if nothing was.
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

    /// The end of the part that starts at `offset`: the start of the cut, or the end of the log.
    pub fn part_end(self, offset: u64, size: u64) -> u64 {
        if offset < self.from && self.from < self.to {
            self.from.min(size)
        } else {
            size
        }
    }

    /// The number of these bytes that are data. `offset` is in the cut, and the bytes may have been read
    /// while the cut was made. The missing part starts at the offset if there is a zero, else at the first
    /// block that is all zeroes.
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

/// The range that was cut out of one log of this attempt. An invalid record counts as none. The record is
/// read until two reads agree, because the runner may be writing it.
pub(super) fn read_cut(attempt: &Dir, stream: Stream) -> IoResult<Cut> {
    let mut bytes = attempt.read_own(CUT, SMALL_FILE)?.unwrap_or_default();
    for _ in 0..MAX_READS {
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

/// The size of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes that were written, including those that were cut out.
    pub written: u64,
    /// Bytes on the disk before this check cut anything out.
    pub on_disk: u64,
}

/// The cuts in the logs of a running attempt.
#[derive(Debug, Default)]
pub struct LogCuts {
    file: CutFile,
    /// The bytes right before the cut in stdout and in stderr.
    edges: [Vec<u8>; 2],
    /// The open `cut.json`. It is overwritten in place: on ext4 a rename over a file takes longer than the
    /// cut.
    record: Option<File>,
    /// The last write of the record failed, because the disk was full.
    is_unwritten: bool,
}

impl LogCuts {
    /// Cuts the middle out of a log that takes more than `cap` bytes on the disk. Without a cap nothing is
    /// cut.
    ///
    /// # Errors
    /// Fails also if the file system cannot punch holes. Then the log stays whole.
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
        if size.written < before.to || self.was_restarted(attempt, stream, log, before) {
            self.record(attempt, stream, Cut::default());
        } else if self.is_unwritten {
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

    /// Whether the recipe restarted a log that was cut, and the new one is as long again. A recipe that only
    /// writes into the hole has not restarted the log.
    fn was_restarted(&self, attempt: &Attempt, stream: Stream, log: &File, cut: Cut) -> bool {
        if cut == Cut::default() {
            return false;
        }
        let there = edge(attempt, stream, log, cut.from);
        there.is_some_and(|(before, hole)| {
            let known = &self.edges[stream as usize];
            (!known.is_empty() && before != *known) || hole.iter().any(|byte| *byte != 0)
        })
    }

    /// Cuts a range out. The record is written first, so that a reader does not take the hole for zeroes.
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
        if self.is_unwritten {
            // The hole has freed space for the record.
            self.record(attempt, stream, cut);
        }
        Ok(())
    }

    fn record(&mut self, attempt: &Attempt, stream: Stream, cut: Cut) {
        self.file.v = FORMAT_VERSION;
        *self.file.of(stream) = cut;
        let written = self.write(attempt);
        self.is_unwritten = written.is_err();
        if let Err(error) = written {
            tracing::debug!("{error}");
        }
    }

    fn write(&mut self, attempt: &Attempt) -> IoResult<()> {
        let record = match self.record.take() {
            Some(record) => record,
            None => {
                // The recipe may have created something of this name.
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

    /// The number of bytes that are missing from both logs.
    pub fn missing(&self) -> u64 {
        self.file.stdout.length() + self.file.stderr.length()
    }
}

/// The bytes around the start of a cut: the end of the part before it, and the start of what should be a
/// hole. `None` if they cannot be read. The log is opened again, because `log` is open for writing only.
fn edge(attempt: &Attempt, stream: Stream, log: &File, from: u64) -> Option<(Vec<u8>, Vec<u8>)> {
    let readable = attempt.log(stream).ok()??;
    is_same_file(&attempt.dir, stream.file_name(), log)
        .ok()
        .filter(|is_same| *is_same)?;
    let mut bytes = vec![0u8; EDGE + BLOCK as usize];
    let start = from.checked_sub(EDGE as u64)?;
    let read = readable.read_at(&mut bytes, start).ok()?;
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
