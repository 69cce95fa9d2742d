//! An attempt's progress file: reports that the recipe appends, read while it grows.
//!
//! Not what a report says (`runner/progress.rs`). The recipe may make this file anything at all, so
//! each look reads a bounded part, and what was read gives its disk back. Invariant: no look takes
//! longer for a longer file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, FileType, SeekFrom, Stat};

use super::attempt::Attempt;
use crate::spool::disk::which;
use crate::spool::layout::name;

/// At most so much is read in one look: the last part, since the latest report counts.
const AT_ONCE: u64 = 1 << 20;
/// A file that takes more disk than this loses what was read of it.
const KEPT: u64 = 4 << 20;
const BLOCK: u64 = 4096;

/// How far a progress file was read.
#[derive(Debug, Default)]
pub struct ProgressReader {
    offset: u64,
    /// The line at `offset` began before it, and its beginning was not read.
    is_inside_line: bool,
}

impl ProgressReader {
    /// Complete lines that came since the last look. Where more came than is read at once, only the
    /// last ones.
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

    /// Gives back disk of a file that grows fast, without reading it. Returns its size.
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

    /// The size of the file, where it is one. A file that became shorter is read from its beginning.
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
        // A hole holds no report. ENXIO: nothing but a hole is left.
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
                // A line that is longer than all that is read at once is not a report.
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

    /// Gives back the disk of what was read. Not that of a file with another name, and not through a
    /// mount: it is somebody's.
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
            // A file system that cannot punch holes keeps it whole.
            let _ = rustix::fs::fallocate(&file, flags, 0, end);
        }
    }
}

fn open(attempt: &Attempt) -> Option<File> {
    let file = attempt.dir.open_file(name::PROGRESS).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}
