//! Logs: written by the recipe itself straight into files, read in pieces.
//!
//! Nobody stands between a recipe and its log, so nobody can block it. Not how a log is kept under its cap
//! (`log_cut.rs`). Invariant: a reader gets every byte that was not cut out, and is told where bytes were.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;

use super::attempt::{Attempt, Stream};
use super::log_cut::{Cut, read_cut};
use super::store::TaskDir;
use super::written_over::WrittenOver;
use crate::spool::disk::{IoError, IoResult, is_same_file};

/// How much is read at once.
const PIECE: usize = 64 << 10;
/// By so many bytes it is seen that a log is still the same.
const REMEMBERED: usize = 64;

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

fn leading_zeroes(bytes: &[u8]) -> u64 {
    bytes.iter().take_while(|byte| **byte == 0).count() as u64
}

/// A piece of a log.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many zeroes, which take no room in the file: a recipe can make more of them than anybody can hold.
    Zeroes(u64),
    /// So many bytes were cut out here.
    Gap(u64),
    /// The recipe has begun the log anew: what follows is all of it.
    Anew,
    /// Nothing more for now.
    End,
}

/// What stands where a reader is.
struct Look {
    size: u64,
    /// Where the next data begins.
    data: u64,
    read: usize,
    /// Whether all that was read is zeroes.
    is_zero: bool,
}

/// Reads one log from its beginning, as it grows.
#[derive(Debug)]
pub struct LogReader {
    attempt: Attempt,
    stream: Stream,
    file: File,
    offset: u64,
    /// What stood right before the offset when it was read.
    seen: Vec<u8>,
    /// Where only the end of lines is wanted that were written over.
    written_over: Option<WrittenOver>,
    /// What comes next, behind bytes that were held back.
    after: Option<Piece>,
}

impl LogReader {
    /// Opens a log of an attempt; `None` when it is not there yet.
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

    /// Goes to where the last `lines` lines begin. From there on only the end of a line comes that was written over.
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
                // The recipe has shut the folder meanwhile.
                self.attempt.dir.give_rights();
                self.piece()
            }
            piece => piece,
        }
    }

    fn piece(&mut self) -> IoResult<Piece> {
        let mut bytes = vec![0u8; PIECE];
        let look = self.look(&mut bytes);
        let look = look.map_err(|source| self.unreadable(source))?;
        if self.is_begun_anew(look.size)? {
            self.offset = 0;
            self.seen.clear();
            return Ok(Piece::Anew);
        }
        if self.offset >= look.size {
            return self.follow_to_another_file();
        }
        // Asked after the look: bytes that are cut out meanwhile look like zeroes, and the record stands first.
        let cut = self.cut()?;
        let mut end = cut.part_end(self.offset, look.size);
        if cut.contains(self.offset) {
            let here = &bytes[..look.read];
            let data = cut.data_from(self.offset, here);
            if data == 0 {
                let end = self.gap_end(here, cut.to.min(look.size));
                let end = end.map_err(|source| self.unreadable(source))?;
                let gap = end - self.offset;
                self.offset = end;
                self.seen.clear();
                return Ok(Piece::Gap(gap));
            }
            // What is there was not cut out: the recipe wrote it later, or it was read before the cut.
            end = self.offset + data;
        }
        let zeroes = look.data.min(end).saturating_sub(self.offset);
        if zeroes > PIECE as u64 {
            self.offset += zeroes;
            self.seen.clear();
            return Ok(Piece::Zeroes(zeroes));
        }
        let room = usize::try_from(end - self.offset).unwrap_or(look.read);
        bytes.truncate(look.read.min(room));
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

    /// Where the first byte after the offset is that is not zero, at most `to`. The offset stands in a cut, before
    /// a byte that is zero.
    fn gap_end(&self, here: &[u8], to: u64) -> std::io::Result<u64> {
        let mut end = self.offset + leading_zeroes(here);
        let mut bytes = vec![0u8; PIECE];
        while end < to {
            // ENXIO: only a hole is left.
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

    /// Whether the log no longer has what was read of it: a recipe can cut its log off and go on.
    fn is_begun_anew(&self, size: u64) -> IoResult<bool> {
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

    /// At the end of this file: the recipe may have put another one in its place.
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

    fn look(&self, bytes: &mut [u8]) -> std::io::Result<Look> {
        let size = self.file.metadata()?.len();
        let mut look = Look {
            size,
            data: self.offset,
            read: 0,
            is_zero: false,
        };
        if self.offset < size {
            look.read = self.file.read_at(bytes, self.offset)?;
            look.is_zero = bytes[..look.read].iter().all(|byte| *byte == 0);
            if look.is_zero {
                // ENXIO: only a hole is left.
                let data = rustix::fs::seek(&self.file, SeekFrom::Data(self.offset));
                look.data = data.unwrap_or(size);
            }
        }
        Ok(look)
    }

    fn cut(&self) -> IoResult<Cut> {
        read_cut(&self.attempt.dir, self.stream)
    }

    fn unreadable(&self, source: std::io::Error) -> IoError {
        let path = self.attempt.dir.path_of(self.stream.file_name());
        IoError::new("read", path, source)
    }
}
