//! Folders of a task and of a session, and our files in them. A recipe can change them: it may have taken
//! away our permissions, or put something else in their place.
//!
//! Not the removal (`tree.rs`), which opens the folders of a tree itself. Invariant: only a folder or file
//! that belongs to this user gets another mode, and only if its mode keeps the owner out. What a recipe did
//! to one task or session does not affect others.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{Dir, LOCK_MODE, absent_is_none};
use super::error::IoResult;
use super::random::random_bits;

/// The mode bits that an owner needs to read a folder.
const TO_READ: u32 = 0o500;

impl Dir {
    /// Opens such a folder. If its owner may not read it, its mode is fixed first. If its owner may not write
    /// it, the mode stays. `None` if it does not exist or is not a folder.
    pub(in crate::spool) fn find_own(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        self.find_own_of(name, None)
    }

    /// Like [`Dir::find_own`]. Also `None` if the folder does not belong to `owner`.
    pub(in crate::spool) fn find_own_of(
        &self,
        name: impl AsRef<OsStr>,
        owner: Option<u32>,
    ) -> IoResult<Option<Dir>> {
        let name = name.as_ref();
        match self.find_dir(name) {
            Ok(Some(dir)) => {
                let stat = dir.own_stat()?;
                if owner.is_some_and(|owner| owner != stat.st_uid) {
                    return Ok(None);
                }
                if stat.st_mode & TO_READ != TO_READ {
                    dir.give_rights();
                }
                Ok(Some(dir))
            }
            Err(error) if error.is_denied() && self.open_up(name) => self.find_dir(name),
            found => found,
        }
    }

    /// Like [`Dir::find_own`], to write in the folder.
    pub(in crate::spool) fn find_own_to_write(
        &self,
        name: impl AsRef<OsStr>,
    ) -> IoResult<Option<Dir>> {
        let dir = self.find_own(name)?;
        if let Some(dir) = &dir {
            dir.give_rights();
        }
        Ok(dir)
    }

    /// Creates such a folder, or opens the existing one, to write in it. Anything else with this name is
    /// removed: it is not ours, and it would block every later task.
    pub(in crate::spool) fn ensure_own(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        let dir = match self.ensure_dir(name) {
            Err(error) if error.is_denied() && self.open_up(name) => self.open_dir(name)?,
            Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => {
                // A folder that another process creates at this moment is not removed.
                match self.unlink(name) {
                    Err(error) if error.errno() != Some(Errno::ISDIR) => return Err(error),
                    _ => self.ensure_dir(name)?,
                }
            }
            made => made?,
        };
        dir.give_rights();
        Ok(dir)
    }

    /// Opens or creates a lock file in such a folder. If its owner may not open it, its mode is fixed: it
    /// must stay the same file, because others may hold it. Anything else with this name is moved away.
    pub(in crate::spool) fn own_lock_file(&self, name: &str) -> IoResult<File> {
        let failed = match self.lock_file(name) {
            Err(error) if error.is_unusable() => error,
            made => return made,
        };
        let Some(stat) = self.stat(name)? else {
            return Err(failed);
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.set_mode(name, LOCK_MODE)?;
        } else {
            let aside = format!(".{name}.{:016x}", random_bits() as u64);
            absent_is_none(self.rename_new(name, self, aside))?;
        }
        self.lock_file(name)
    }

    /// Opens a file of ours in such a folder, to read it. If its owner may not open it, its mode is fixed
    /// first.
    pub(in crate::spool) fn open_own_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        let name = name.as_ref();
        match self.open_file(name) {
            Err(error) if error.is_denied() && self.open_up(name) => self.open_file(name),
            opened => opened,
        }
    }

    /// Reads such a file like [`Dir::read`].
    pub(in crate::spool) fn read_own(
        &self,
        name: impl AsRef<OsStr>,
        cap: usize,
    ) -> IoResult<Option<Vec<u8>>> {
        let name = name.as_ref();
        match self.read(name, cap) {
            Err(error) if error.is_denied() && self.open_up(name) => self.read(name, cap),
            read => read,
        }
    }

    /// Gives the owner all permissions for a folder or file that cannot be opened; `true` if the mode was
    /// changed. The mode is set through a handle of exactly this folder or file, because the name could
    /// become a link.
    fn open_up(&self, name: &OsStr) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(handle) = rustix::fs::openat(&self.fd, name, flags, Mode::empty()) else {
            return false;
        };
        let Ok(stat) = rustix::fs::fstat(&handle) else {
            return false;
        };
        let rights = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Mode::RWXU,
            FileType::RegularFile => Mode::RUSR | Mode::WUSR,
            _ => return false,
        };
        let mode = Mode::from_raw_mode(stat.st_mode);
        if stat.st_uid != rustix::process::geteuid().as_raw() || mode.contains(rights) {
            return false;
        }
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let mode = mode | rights;
        rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()).is_ok()
    }
}
