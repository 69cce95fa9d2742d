//! Folders of a task and of a session, which the recipe runs beside, and our files in them: it may have shut them,
//! or put something else in their place.
//!
//! Not the removal (`tree.rs`), which opens what it removes by itself. Invariant: only a folder or file that
//! belongs to this user gets another mode, and only where that mode keeps its owner out. What a
//! recipe did to one task or session keeps nobody from any other.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd as _;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{Dir, LOCK_MODE, absent_is_none};
use super::error::IoResult;
use super::random::random_bits;

/// The rights without which an owner cannot see what is in a folder.
const TO_READ: u32 = 0o500;

impl Dir {
    /// Opens such a folder. One that is shut to its owner is opened up first; one that cannot be
    /// written only stays so. `None` where there is none, or no folder.
    pub(in crate::spool) fn find_own(&self, name: impl AsRef<OsStr>) -> IoResult<Option<Dir>> {
        self.find_own_of(name, None)
    }

    /// The same, and one that is not this user's is none.
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

    /// The same for who writes in it.
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

    /// Makes such a folder, or opens the one that is there, to write in it. What is no folder is
    /// removed: it is not ours, and it is in the way of every later task.
    pub(in crate::spool) fn ensure_own(&self, name: impl AsRef<OsStr>) -> IoResult<Dir> {
        let name = name.as_ref();
        let dir = match self.ensure_dir(name) {
            Err(error) if error.is_denied() && self.open_up(name) => self.open_dir(name)?,
            Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => {
                // Never a folder that somebody else makes there in this moment.
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

    /// A lock file in such a folder: one that is shut is opened up, and it stays the file that others
    /// hold. Something else in its place is moved away.
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

    /// Opens a file of ours in such a folder, to read it. One that is shut to its owner is opened up first.
    pub(in crate::spool) fn open_own_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        let name = name.as_ref();
        match self.open_file(name) {
            Err(error) if error.is_denied() && self.open_up(name) => self.open_file(name),
            opened => opened,
        }
    }

    /// Reads such a file, as [`Dir::read`] does.
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

    /// Gives its owner all rights in a folder that cannot even be opened, or in a file; whether it did. The mode
    /// is set through a handle of exactly this folder or file: a name could be a link by then.
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
