//! How the folder of an attempt is closed, with all in it.
//!
//! Not which attempts are kept (`task.rs`). A recipe of version 1 could leave files and folders there that the
//! group could write. Invariants: what others could open to write, or gave another name, is a new file
//! afterwards, because a mode takes nothing from who has the old one; a folder is closed before it is entered.

use std::ffi::OsStr;

use rustix::fs::Mode;

use super::task::Tasks;
use super::{WRITABLE, is_dir, is_file};
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::OURS_ONLY;

/// A new file has this name until it is whole.
const BETWEEN: &str = ".anew";
/// Nobody but the owner gets into a folder without these.
const OPEN_TO_OTHERS: u32 = 0o077;
/// A folder that lies deeper than this is not kept.
const MOST_DEPTH: usize = 64;

impl Tasks<'_> {
    /// Closes what lies in a folder that is closed itself; `false` where something of another user's has to stay.
    pub(super) fn close_all_in(&self, dir: &Dir, depth: usize) -> IoResult<bool> {
        let mut is_closed = true;
        for entry in dir.names()? {
            let Some(stat) = dir.stat(&entry)? else {
                continue;
            };
            let is_too_deep = is_dir(&stat) && depth == MOST_DEPTH;
            if stat.st_uid != self.us || is_too_deep {
                is_closed &= self.is_away(dir, &entry)?;
            } else if is_file(&stat) && (stat.st_mode & WRITABLE != 0 || stat.st_nlink > 1) {
                self.make_file_anew(dir, &entry, stat.st_mode, stat.st_gid)?;
            } else if is_dir(&stat) && stat.st_mode & OPEN_TO_OTHERS != 0 {
                let mode = Mode::from_raw_mode(stat.st_mode & !WRITABLE) | OURS_ONLY.dir;
                dir.set_mode(&entry, mode)?;
                let within = dir.open_dir(&entry)?;
                within.remove_access_lists()?;
                is_closed &= self.close_all_in(&within, depth + 1)?;
            }
        }
        Ok(is_closed)
    }

    /// Writes a file's content into a new one that nobody else can write.
    fn make_file_anew(&self, dir: &Dir, entry: &OsStr, mode: u32, gid: u32) -> IoResult<()> {
        let failed = |source| IoError::new("copy", dir.path_of(entry), source);
        let mode = Mode::from_raw_mode(mode & 0o755);
        if !mode.contains(Mode::RUSR) {
            dir.set_mode(entry, OURS_ONLY.file)?;
        }
        let mut old = dir.open_file(entry)?;
        let again = dir.open_dir(".")?.moved_to(dir.path().to_owned());
        let again = again.with_making(OURS_ONLY);
        again.unlink(BETWEEN)?;
        let mut new = again.create(BETWEEN)?;
        std::io::copy(&mut old, &mut new).map_err(failed)?;
        let has_group = again.set_group(BETWEEN, gid).is_ok();
        let kept = if has_group { mode } else { mode & Mode::RWXU };
        again.set_mode(BETWEEN, kept)?;
        if !self.synced_at_once {
            new.sync_all().map_err(failed)?;
        }
        again.rename_over(BETWEEN, entry)
    }
}
