//! How much of `events/` is kept.
//!
//! Not the events (`events.rs`). Invariants: the newest lines are kept, however many lines a day has. A line
//! keeps its offset in its file, so writers, followers and cursors stay valid.

use rustix::fs::FallocateFlags;

use super::disk::{Dir, IoError, IoResult};
use super::events::{LONGEST_LINE, SUFFIX, day_of, days_in};
use super::layout::name;
use super::open::Spool;
use crate::task::Timestamp;

impl Spool {
    /// Removes the oldest events: first the files of days that ended before `before`, then as many files as
    /// are needed to keep at most `most_bytes`, and last the oldest lines of the newest file. Returns the
    /// number of bytes that were freed.
    pub fn sweep_events(&self, before: Timestamp, most_bytes: u64) -> IoResult<u64> {
        let dir = self.folder(name::EVENTS)?;
        let last_kept = day_of(before);
        let mut files = Vec::new();
        for day in days_in(&dir)? {
            let file = format!("{day}{SUFFIX}");
            let bytes = bytes_of(&dir, &file)?;
            files.push((day, file, bytes));
        }
        let mut bytes: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
        let newest = files.len().saturating_sub(1);
        let mut freed = 0;
        for (at, (day, file, its_bytes)) in files.into_iter().enumerate() {
            if day >= last_kept && bytes <= most_bytes {
                break;
            }
            if at == newest
                && day >= last_kept
                && most_bytes > 0
                && cut_beginning(&dir, &file, most_bytes)?
            {
                freed += its_bytes.saturating_sub(bytes_of(&dir, &file)?);
                break;
            }
            dir.unlink(&file)?;
            bytes -= its_bytes;
            freed += its_bytes;
        }
        Ok(freed)
    }
}

/// The bytes a file takes on the disk, and at most its length. A file that was cut takes less than its
/// length.
fn bytes_of(dir: &Dir, file: &str) -> IoResult<u64> {
    let stat = dir.stat(file)?;
    Ok(stat.map_or(0, |stat| {
        let taken = stat.st_blocks.unsigned_abs().saturating_mul(512);
        stat.st_size.unsigned_abs().min(taken)
    }))
}

/// Punches a hole into a file that leaves about `kept` bytes at its end and ends at the start of a line.
/// `false` if the file system does not support holes.
fn cut_beginning(dir: &Dir, name: &str, kept: u64) -> IoResult<bool> {
    let file = dir.open_to_cut(name)?;
    let failed = |source| IoError::new("shorten", dir.path_of(name), source);
    let size = file.metadata().map_err(failed)?.len();
    let from = size.saturating_sub(kept);
    let mut piece = vec![0; LONGEST_LINE];
    let read = std::os::unix::fs::FileExt::read_at(&file, &mut piece, from);
    let read = read.map_err(failed)?;
    let line = piece[..read].iter().position(|byte| *byte == b'\n');
    let end = from + line.map_or(0, |at| at as u64 + 1);
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, hole, 0, end) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        Err(errno) => Err(failed(errno.into())),
    }
}
