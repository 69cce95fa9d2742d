//! Logs: written by the recipe itself straight into files, kept under a cap, read in pieces.
//!
//! Nobody stands between a recipe and its log, so nobody can block it; the cap is kept by cutting
//! the middle out of the file while it grows. Invariant: the first and the last part of a log stay.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, SeekFrom};

use super::io_error::IoResult;
use super::store::TaskDir;

/// What stays at each end of a log that went over its cap, unless the cap is too small for that.
const KEPT_AT_EACH_END: u64 = 8 << 20;
/// Holes are punched in whole blocks.
const BLOCK: u64 = 4096;

/// Which of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// `stdout.log`
    Stdout,
    /// `stderr.log`
    Stderr,
}

/// How large a log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes that were written, also those that were cut out.
    pub written: u64,
    /// Bytes of disk it took when it was looked at, before it was cut.
    pub on_disk: u64,
}

/// Cuts the middle out of a log that takes more than `cap` bytes of disk.
///
/// # Errors
/// Also where the file system cannot punch holes: then the log stays whole.
pub fn cap_log(log: &File, cap: u64) -> std::io::Result<LogSize> {
    let stat = rustix::fs::fstat(log)?;
    let size = LogSize {
        written: stat.st_size.unsigned_abs(),
        on_disk: stat.st_blocks.unsigned_abs() * 512,
    };
    if size.written > cap && size.on_disk > cap {
        let kept = KEPT_AT_EACH_END.min(cap / 4).next_multiple_of(BLOCK);
        let end = size.written.saturating_sub(kept) / BLOCK * BLOCK;
        if end > kept {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(log, flags, kept, end - kept)?;
        }
    }
    Ok(size)
}

/// The bytes that are missing from a log of this size, from all its cuts.
pub fn cut_bytes(log: &File, cap: u64, written: u64) -> std::io::Result<u64> {
    if written <= cap {
        return Ok(0);
    }
    holes(log, written)
}

/// The bytes of a file that are holes. Not told by the blocks it takes: a file system may
/// compress, or not have written yet. The offset this moves is shared with the recipe, which always
/// appends.
fn holes(log: &File, size: u64) -> std::io::Result<u64> {
    let mut missing = 0;
    let mut at = 0;
    while at < size {
        let hole = rustix::fs::seek(log, SeekFrom::Hole(at))?.min(size);
        // ENXIO: only a hole is left.
        at = rustix::fs::seek(log, SeekFrom::Data(hole)).map_or(size, |data| data.min(size));
        missing += at - hole;
    }
    Ok(missing)
}

/// Where a file's data begins and ends, hole by hole.
fn data_parts(log: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        // ENXIO: only a hole is left.
        let Ok(data) = rustix::fs::seek(log, SeekFrom::Data(at)) else {
            break;
        };
        at = rustix::fs::seek(log, SeekFrom::Hole(data))?.min(size);
        if data < at {
            parts.push((data, at));
        }
    }
    Ok(parts)
}

/// A piece of a log.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes were cut out here.
    Gap(u64),
    /// Nothing more for now.
    End,
}

/// Reads one log from its beginning, as it grows.
#[derive(Debug)]
pub struct LogReader {
    file: File,
    offset: u64,
}

impl LogReader {
    /// Opens a log of an attempt; `None` when it is not there yet.
    pub fn open(task: &TaskDir, attempt: u32, stream: Stream) -> IoResult<Option<LogReader>> {
        let file = task.stream(attempt, stream == Stream::Stdout)?;
        Ok(file.map(|file| LogReader { file, offset: 0 }))
    }

    /// Goes to where the last `lines` lines begin.
    pub fn skip_to_last(&mut self, lines: usize) -> std::io::Result<()> {
        let size = self.file.metadata()?.len();
        if lines == 0 {
            self.offset = size;
            return Ok(());
        }
        self.offset = 0;
        let mut newlines = 0;
        let mut buffer = [0u8; 8192];
        // A hole holds no line, and reading through a large one would take for ever.
        for (begin, mut position) in data_parts(&self.file, size)?.into_iter().rev() {
            while position > begin {
                let start = position.saturating_sub(buffer.len() as u64).max(begin);
                let chunk = &mut buffer[..(position - start) as usize];
                self.file.read_exact_at(chunk, start)?;
                for (at, byte) in chunk.iter().enumerate().rev() {
                    let is_last_byte = start + at as u64 + 1 == size;
                    if *byte == b'\n' && !is_last_byte {
                        newlines += 1;
                        if newlines == lines {
                            self.offset = start + at as u64 + 1;
                            return Ok(());
                        }
                    }
                }
                position = start;
            }
        }
        Ok(())
    }

    /// The next piece.
    pub fn next_piece(&mut self) -> std::io::Result<Piece> {
        let size = self.file.metadata()?.len();
        if self.offset >= size {
            return Ok(Piece::End);
        }
        // Where the next data begins; ENXIO says that only a hole is left.
        let data = rustix::fs::seek(&self.file, SeekFrom::Data(self.offset)).unwrap_or(size);
        if data > self.offset {
            let gap = data - self.offset;
            self.offset = data;
            return Ok(Piece::Gap(gap));
        }
        let mut bytes = vec![0u8; 64 << 10];
        let read = self.file.read_at(&mut bytes, self.offset)?;
        bytes.truncate(read);
        if let Ok(hole) = rustix::fs::seek(&self.file, SeekFrom::Hole(self.offset)) {
            // A file's end counts as a hole; it cuts nothing that was read.
            bytes.truncate((hole - self.offset) as usize);
        }
        self.offset += bytes.len() as u64;
        Ok(if bytes.is_empty() {
            Piece::End
        } else {
            Piece::Bytes(bytes)
        })
    }
}
