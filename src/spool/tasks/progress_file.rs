//! An attempt's progress file: reports that the recipe appends, read while the file grows.
//!
//! Not the content of a report (`runner/progress.rs`). The recipe may write anything into this file, so each
//! read is bounded, and the disk space of what was read is freed. Invariant: a read takes no longer for a
//! longer file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, FileType, SeekFrom, Stat};

use super::attempt::Attempt;
use crate::spool::disk::which;
use crate::spool::layout::name;

/// At most this many bytes are read at once. It is the last part, because the latest report counts.
const AT_ONCE: u64 = 1 << 20;
/// If the file takes more bytes on the disk than this, the part that was read is freed.
const KEPT: u64 = 4 << 20;
const BLOCK: u64 = 4096;

/// Reads a progress file as it grows.
#[derive(Debug, Default)]
pub struct ProgressReader {
    offset: u64,
    /// The line at `offset` starts before it, and its start was not read.
    is_inside_line: bool,
}

impl ProgressReader {
    /// The complete lines added since the last call. If there is more than is read at once, only the last
    /// ones.
    pub fn lines(&mut self, attempt: &Attempt) -> String {
        let Some(size) = self.size(attempt) else {
            return String::new();
        };
        if size <= self.offset {
            return String::new();
        }
        let Some(file) = open(attempt) else {
            return String::new();
        };
        let lines = self.read(&file, size).unwrap_or_default();
        self.free(attempt, &file);
        lines
    }

    /// Frees disk space of a file that grows fast, without reading it. Returns the size of the file in bytes.
    pub fn bound(&mut self, attempt: &Attempt) -> u64 {
        let Some(size) = self.size(attempt) else {
            return 0;
        };
        if size.saturating_sub(self.offset) > KEPT
            && let Some(file) = open(attempt)
        {
            self.skip_to(size - AT_ONCE);
            self.free(attempt, &file);
        }
        size
    }

    /// The size of the file; `None` if it is not a regular file. A file that became shorter is read from its
    /// start again.
    fn size(&mut self, attempt: &Attempt) -> Option<u64> {
        let stat = attempt.dir.stat(name::PROGRESS).ok()??;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let size = stat.st_size.unsigned_abs();
        if size < self.offset {
            *self = ProgressReader::default();
        }
        Some(size)
    }

    fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
        self.is_inside_line = true;
    }

    fn read(&mut self, file: &File, size: u64) -> std::io::Result<String> {
        if size - self.offset > AT_ONCE {
            self.skip_to(size - AT_ONCE);
        }
        // A hole holds no report. ENXIO means that only a hole is left.
        let data = rustix::fs::seek(file, SeekFrom::Data(self.offset)).unwrap_or(size);
        if data > self.offset {
            self.offset = data;
            self.is_inside_line = false;
        }
        let mut bytes = vec![0u8; (size - self.offset.min(size)) as usize];
        let read = file.read_at(&mut bytes, self.offset)?;
        bytes.truncate(read);
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            if bytes.len() as u64 >= AT_ONCE {
                // A line that is longer than one read is not a report.
                self.skip_to(self.offset + bytes.len() as u64);
            }
            return Ok(String::new());
        };
        let mut whole = &bytes[..=end];
        if self.is_inside_line {
            let first = whole.iter().position(|byte| *byte == b'\n').unwrap_or(end);
            whole = &whole[first + 1..];
        }
        self.offset += end as u64 + 1;
        self.is_inside_line = false;
        Ok(String::from_utf8_lossy(whole).into_owned())
    }

    /// Frees the disk space of what was read. A file with a second link or on another mount is left alone,
    /// because it may be used elsewhere.
    fn free(&self, attempt: &Attempt, file: &File) {
        let is_large = |stat: &Stat| stat.st_nlink == 1 && stat.st_blocks as u64 * 512 > KEPT;
        let end = self.offset / BLOCK * BLOCK;
        if end > 0
            && let Ok(read) = rustix::fs::fstat(file)
            && is_large(&read)
            && let Ok(file) = attempt.dir.open_to_cut(name::PROGRESS)
            && rustix::fs::fstat(&file).is_ok_and(|stat| which(&stat) == which(&read))
        {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // If the file system cannot punch holes, the file stays whole.
            let _ = rustix::fs::fallocate(&file, flags, 0, end);
        }
    }
}

fn open(attempt: &Attempt) -> Option<File> {
    let file = attempt.dir.open_file(name::PROGRESS).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}
