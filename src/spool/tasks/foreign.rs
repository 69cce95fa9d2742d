//! A foreign `result.json`, which a recipe put into its own task's folder, is set aside.
//!
//! Left there, it would end the task for every reader, and the task could not be cancelled. Not how a real
//! result is written (`result.rs`). Invariant: only the holder of the task's lock calls this, so a result
//! that the holder did not write is foreign.

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::attempt::Attempt;
use super::lock::TaskLock;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::name::{self, FOREIGN, FOREIGN_BESIDE};

/// At most this many bytes of a foreign result are kept.
const KEPT: u64 = 1 << 20;

impl TaskLock {
    /// Moves a `result.json` that we did not write into the attempt's folder, whatever it is. If that folder
    /// is gone, it is renamed in the task's folder. An earlier foreign result is replaced. `false` if there
    /// is no `result.json`.
    pub fn set_foreign_result_aside(&self, attempt: Option<&Attempt>) -> IoResult<bool> {
        let task = &self.task.dir;
        if !task.has(name::RESULT)? {
            return Ok(false);
        }
        task.give_rights();
        let moved = attempt.map(|attempt| move_over(task, &attempt.dir, FOREIGN));
        // A folder that its owner may not write to can still be renamed within its parent.
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

    /// Truncates a foreign result that is too long. It may grow after it was set aside, because its writer
    /// may have it open.
    pub fn bound_foreign_result(&self, attempt: Option<&Attempt>) {
        // Errors are ignored: the foreign result is already out of the way.
        let _ = attempt.map(|attempt| cut_foreign(&attempt.dir, FOREIGN));
        let _ = cut_foreign(&self.task.dir, FOREIGN_BESIDE);
    }
}

fn move_over(task: &Dir, to: &Dir, aside: &str) -> IoResult<()> {
    to.give_rights();
    match task.rename_into(name::RESULT, to, aside) {
        // rename(2) does not replace a file by a folder, a folder by a file, or a folder that is not empty.
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
        // A file with a second link may be used elsewhere, so it is not truncated.
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
