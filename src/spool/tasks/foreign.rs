//! What stands where only we write while a task runs: set aside, so that it stops and fakes nothing.
//!
//! A recipe can write into its own task's folder. A `result.json` that it makes there would end the
//! task for every reader, and nobody could cancel it. Invariant: only the holder of the task's lock
//! comes here, so what it did not write itself is foreign.

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attempt::Attempt;
use super::lock::TaskLock;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::name::{self, FOREIGN, FOREIGN_BESIDE};

/// A foreign result keeps so many bytes.
const KEPT: u64 = 1 << 20;

impl TaskLock {
    /// Moves a `result.json` that was not written by us into the attempt's folder, whatever it is, or
    /// where that folder is gone, to another name beside it; `false` when there is none. An earlier one
    /// is replaced.
    pub fn set_foreign_result_aside(&self, attempt: Option<&Attempt>) -> IoResult<bool> {
        let task = &self.task.dir;
        if !task.has(name::RESULT)? {
            return Ok(false);
        }
        task.give_rights();
        let moved = attempt.map(|attempt| move_over(task, &attempt.dir, FOREIGN));
        // Also a folder that forbids its owner to write moves within the folder in which it stands.
        let moved = match moved {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => move_over(task, task, FOREIGN_BESIDE),
        };
        match moved {
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
            Ok(()) => {
                self.bound_foreign_result(attempt);
                Ok(true)
            }
        }
    }

    /// Cuts a foreign result that grew after it was set aside: its writer may have had it open.
    pub fn bound_foreign_result(&self, attempt: Option<&Attempt>) {
        // Best effort: what matters is that it is out of the way.
        let _ = attempt.map(|attempt| cut_foreign(&attempt.dir, FOREIGN));
        let _ = cut_foreign(&self.task.dir, FOREIGN_BESIDE);
    }
}

fn move_over(task: &Dir, to: &Dir, aside: &str) -> IoResult<()> {
    to.give_rights();
    match task.rename_into(name::RESULT, to, aside) {
        // A folder cannot replace a file nor the other way round, nor a folder that is not empty.
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::EXIST | Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY)
            ) =>
        {
            to.remove_tree(aside)?;
            task.rename_into(name::RESULT, to, aside)
        }
        moved => moved,
    }
}

fn cut_foreign(folder: &Dir, aside: &str) -> IoResult<()> {
    let is_long = |stat: Stat| {
        // With a second link it is somebody's file, which is not ours to cut.
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_nlink == 1
            && stat.st_size.unsigned_abs() > KEPT
    };
    if folder.stat(aside)?.is_some_and(is_long) {
        let file = folder.open_to_cut(aside)?;
        file.set_len(KEPT)
            .map_err(|source| IoError::new("cut", folder.path_of(aside), source))?;
    }
    Ok(())
}
