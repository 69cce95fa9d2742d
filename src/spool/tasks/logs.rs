//! Logs: the recipe writes them directly into files, and readers read them in pieces.
//!
//! No process is between a recipe and its log, so none can block the recipe. Not how a log is kept under its
//! cap (`log_cut.rs`). Invariant: a reader gets every byte that was not cut out, and a gap for those that
//! were.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;

use super::attempt::{Attempt, Stream};
use super::log_cut::{Cut, read_cut};
use super::store::TaskDir;
use super::written_over::WrittenOver;
use crate::spool::disk::{IoError, IoResult, is_same_file};

/// The number of bytes read at once.
const PIECE: usize = 64 << 10;
/// This many of the last bytes read are compared to see whether a log was restarted.
const REMEMBERED: usize = 64;

/// The ranges of a file that are data, not holes.
fn data_parts(log: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        // ENXIO means that only a hole is left.
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

fn leading_zeroes(bytes: &[u8]) -> u64 {
    bytes.iter().take_while(|byte| **byte == 0).count() as u64
}

/// A piece of a log.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// This number of zeroes. They are a hole in the file, which may be larger than the memory.
    Zeroes(u64),
    /// This number of bytes was cut out here.
    Gap(u64),
    /// The recipe restarted the log: the log is read again from its start.
    Anew,
    /// No more bytes for now.
    End,
}

/// What was found at the offset of a reader.
struct Found {
    size: u64,
    /// The offset of the next data.
    data: u64,
    read: usize,
    /// Whether all bytes read are zeroes.
    is_zero: bool,
}

/// Reads one log from its start, as it grows.
#[derive(Debug)]
pub struct LogReader {
    attempt: Attempt,
    stream: Stream,
    file: File,
    offset: u64,
    /// The bytes right before the offset, as they were read.
    seen: Vec<u8>,
    /// Set if overwritten text is left out.
    written_over: Option<WrittenOver>,
    /// The next piece, which follows bytes that were held back.
    after: Option<Piece>,
}

impl LogReader {
    /// Opens a log of an attempt; `None` if it does not exist yet.
    pub fn open(task: &TaskDir, attempt: u32, stream: Stream) -> IoResult<Option<LogReader>> {
        let Some(attempt) = task.attempt(attempt)? else {
            return Ok(None);
        };
        Ok(attempt.log(stream)?.map(|file| LogReader {
            attempt,
            stream,
            file,
            offset: 0,
            seen: Vec::new(),
            written_over: None,
            after: None,
        }))
    }

    /// Skips to the last `lines` lines. From there on, overwritten text is left out.
    pub fn skip_to_last(&mut self, lines: usize) -> IoResult<()> {
        self.written_over = Some(WrittenOver::default());
        self.find_last(lines)
            .map_err(|source| self.unreadable(source))
    }

    fn find_last(&mut self, lines: usize) -> std::io::Result<()> {
        let size = self.file.metadata()?.len();
        if lines == 0 {
            self.offset = size;
            return Ok(());
        }
        self.offset = 0;
        let mut newlines = 0;
        let mut buffer = [0u8; 8192];
        // Holes hold no lines and may be very large, so they are skipped.
        for (part_start, mut position) in data_parts(&self.file, size)?.into_iter().rev() {
            while position > part_start {
                let start = position.saturating_sub(buffer.len() as u64).max(part_start);
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
    pub fn next_piece(&mut self) -> IoResult<Piece> {
        if let Some(piece) = self.after.take() {
            return Ok(piece);
        }
        loop {
            let piece = self.piece_of_file()?;
            let Some(written_over) = &mut self.written_over else {
                return Ok(piece);
            };
            let (whole, after) = match piece {
                Piece::Bytes(bytes) => (written_over.take(&bytes), None),
                Piece::Zeroes(_) | Piece::Gap(_) | Piece::Anew | Piece::End => {
                    (written_over.flush(), Some(piece))
                }
            };
            match after {
                Some(piece) if whole.is_empty() => return Ok(piece),
                None if whole.is_empty() => {}
                after => {
                    self.after = after;
                    return Ok(Piece::Bytes(whole));
                }
            }
        }
    }

    fn piece_of_file(&mut self) -> IoResult<Piece> {
        match self.piece() {
            Err(error) if error.is_denied() => {
                // The recipe removed the folder's permissions.
                self.attempt.dir.give_rights();
                self.piece()
            }
            piece => piece,
        }
    }

    fn piece(&mut self) -> IoResult<Piece> {
        let mut bytes = vec![0u8; PIECE];
        let found = self.read_here(&mut bytes);
        let found = found.map_err(|source| self.unreadable(source))?;
        if self.was_restarted(found.size)? {
            self.offset = 0;
            self.seen.clear();
            return Ok(Piece::Anew);
        }
        if self.offset >= found.size {
            return self.follow_to_another_file();
        }
        // The record is read after the bytes. It is written before a cut, so zeroes of a cut are recognized.
        let cut = self.cut()?;
        let mut end = cut.part_end(self.offset, found.size);
        if cut.contains(self.offset) {
            let here = &bytes[..found.read];
            let data = cut.data_from(self.offset, here);
            if data == 0 {
                let end = self.gap_end(here, cut.to.min(found.size));
                let end = end.map_err(|source| self.unreadable(source))?;
                let gap = end - self.offset;
                self.offset = end;
                self.seen.clear();
                return Ok(Piece::Gap(gap));
            }
            // These bytes were not cut out: the recipe wrote them later, or they were read before the cut.
            end = self.offset + data;
        }
        let zeroes = found.data.min(end).saturating_sub(self.offset);
        if zeroes > PIECE as u64 {
            self.offset += zeroes;
            self.seen.clear();
            return Ok(Piece::Zeroes(zeroes));
        }
        let room = usize::try_from(end - self.offset).unwrap_or(found.read);
        bytes.truncate(found.read.min(room));
        self.offset += bytes.len() as u64;
        let end = &bytes[bytes.len().saturating_sub(REMEMBERED)..];
        self.seen.clear();
        self.seen.extend(end);
        Ok(if bytes.is_empty() {
            Piece::End
        } else {
            Piece::Bytes(bytes)
        })
    }

    /// The offset of the first byte that is not zero, at most `to`. The reader is in a cut, at a zero byte.
    fn gap_end(&self, here: &[u8], to: u64) -> std::io::Result<u64> {
        let mut end = self.offset + leading_zeroes(here);
        let mut bytes = vec![0u8; PIECE];
        while end < to {
            // ENXIO means that only a hole is left.
            end = rustix::fs::seek(&self.file, SeekFrom::Data(end)).unwrap_or(to);
            let read = self.file.read_at(&mut bytes, end)?;
            let zeroes = leading_zeroes(&bytes[..read]);
            end += zeroes;
            if zeroes < PIECE as u64 {
                break;
            }
        }
        Ok(end.min(to))
    }

    /// Whether the log no longer has the bytes that were read: a recipe can truncate its log and continue.
    fn was_restarted(&self, size: u64) -> IoResult<bool> {
        if size < self.offset {
            return Ok(true);
        }
        let mut there = vec![0u8; self.seen.len()];
        let from = self.offset - there.len() as u64;
        let read = self.file.read_exact_at(&mut there, from);
        if read.is_ok() && there == self.seen {
            return Ok(false);
        }
        let cut = self.cut()?;
        let is_cut_out = (from..self.offset).any(|at| cut.contains(at));
        Ok(!is_cut_out)
    }

    /// Called at the end of the file: the recipe may have replaced it by another file.
    fn follow_to_another_file(&mut self) -> IoResult<Piece> {
        let (dir, name) = (&self.attempt.dir, self.stream.file_name());
        if is_same_file(dir, name, &self.file)? {
            return Ok(Piece::End);
        }
        let Ok(Some(file)) = self.attempt.log(self.stream) else {
            return Ok(Piece::End);
        };
        if !file.metadata().is_ok_and(|there| there.is_file()) {
            return Ok(Piece::End);
        }
        (self.file, self.offset) = (file, 0);
        self.seen.clear();
        Ok(Piece::Anew)
    }

    fn read_here(&self, bytes: &mut [u8]) -> std::io::Result<Found> {
        let size = self.file.metadata()?.len();
        let mut found = Found {
            size,
            data: self.offset,
            read: 0,
            is_zero: false,
        };
        if self.offset < size {
            found.read = self.file.read_at(bytes, self.offset)?;
            found.is_zero = bytes[..found.read].iter().all(|byte| *byte == 0);
            if found.is_zero {
                // ENXIO means that only a hole is left.
                let data = rustix::fs::seek(&self.file, SeekFrom::Data(self.offset));
                found.data = data.unwrap_or(size);
            }
        }
        Ok(found)
    }

    fn cut(&self) -> IoResult<Cut> {
        read_cut(&self.attempt.dir, self.stream)
    }

    fn unreadable(&self, source: std::io::Error) -> IoError {
        let path = self.attempt.dir.path_of(self.stream.file_name());
        IoError::new("read", path, source)
    }
}
