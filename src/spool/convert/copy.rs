//! How a file is copied out of a folder in which others could write.
//!
//! Not which files (`task.rs`). Invariants: only a regular file of the owner is copied, never a mounted one.
//! Users who may not read a file may not read its copy. Holes stay holes, so a copy takes no more disk space
//! than the file.

use std::fs::{File, FileTimes};
use std::io::{Read as _, Seek as _, SeekFrom};

use rustix::fs::{Mode, SeekFrom as Place, Stat};
use rustix::io::Errno;

use super::{WRITABLE, is_file};
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::inbox::has_access_list;
use crate::spool::layout::{GROUP_READS, OURS_ONLY};

const GROUP_CAN_READ: u32 = 0o040;

/// A file that may be copied.
pub(super) struct Source {
    file: File,
    stat: Stat,
    /// For messages.
    path: std::path::PathBuf,
    /// Whether the group may certainly read it.
    pub is_for_group: bool,
}

/// Copies files of one user and group.
#[derive(Clone, Copy)]
pub(super) struct Copier {
    pub us: u32,
    pub gid: u32,
    /// Whether one sync at the end makes all new files durable.
    pub synced_at_once: bool,
}

impl Copier {
    /// Opens a file to copy it; `None` if it may not be copied or is longer than `most` bytes.
    pub fn source(&self, dir: &Dir, name: &str, most: u64) -> IoResult<Option<Source>> {
        let Some(file) = dir.find_file_here(name)? else {
            return Ok(None);
        };
        let path = dir.path_of(name);
        let stat = rustix::fs::fstat(&file).map_err(|errno| IoError::new("check", &path, errno))?;
        let is_ours = is_file(&stat) && stat.st_uid == self.us;
        if !is_ours || stat.st_size.unsigned_abs() > most {
            return Ok(None);
        }
        let is_for_group = stat.st_gid == self.gid
            && stat.st_mode & GROUP_CAN_READ != 0
            && !has_access_list(&file);
        // A backup with hard links gives all files a second name. But a private file with a second name may
        // have been put here by another user.
        if !is_for_group && stat.st_nlink > 1 {
            return Ok(None);
        }
        Ok(Some(Source {
            file,
            stat,
            path,
            is_for_group,
        }))
    }

    /// Copies a file, with its time of modification.
    pub fn copy(&self, source: &Source, to: &Dir, name: &str) -> IoResult<()> {
        let failed = |error| IoError::new("copy", &source.path, error);
        let copy = to.create(name)?;
        let done = source.copy_data(&copy).and_then(|()| {
            let times = FileTimes::new().set_modified(source.file.metadata()?.modified()?);
            copy.set_times(times)
        });
        let done = done
            .map_err(failed)
            .and_then(|()| self.close(&copy, to, name, source.mode()));
        if done.is_err() {
            // An incomplete copy is wrong, and takes space that may be missing.
            let _ = to.unlink(name);
        }
        done
    }

    /// Writes a file of ours.
    pub fn write(&self, to: &Dir, name: &str, bytes: &[u8], mode: Mode) -> IoResult<()> {
        let file = to.create_unsynced(name, bytes)?;
        self.close(&file, to, name, mode)
    }

    fn close(&self, file: &File, to: &Dir, name: &str, mode: Mode) -> IoResult<()> {
        rustix::fs::fchmod(file, mode)
            .map_err(|errno| IoError::new("set the mode of", to.path_of(name), errno))?;
        if self.synced_at_once {
            return Ok(());
        }
        file.sync_all()
            .map_err(|error| IoError::new("sync", to.path_of(name), error))
    }
}

impl Source {
    /// Whether others could not write it.
    pub fn is_closed(&self) -> bool {
        self.stat.st_mode & WRITABLE == 0
    }

    /// The mode of a copy.
    pub fn mode(&self) -> Mode {
        if self.is_for_group {
            GROUP_READS.file
        } else {
            OURS_ONLY.file
        }
    }

    /// The whole content, for short files.
    pub fn bytes(&self) -> IoResult<Vec<u8>> {
        let failed = |error| IoError::new("read", &self.path, error);
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.take(self.stat.st_size.unsigned_abs())
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }

    fn copy_data(&self, copy: &File) -> std::io::Result<()> {
        let size = self.stat.st_size.unsigned_abs();
        let (mut from, mut to) = (&self.file, copy);
        let mut at = 0;
        while let Some((start, end)) = self.next_data(at, size)? {
            from.seek(SeekFrom::Start(start))?;
            to.seek(SeekFrom::Start(start))?;
            std::io::copy(&mut from.take(end - start), &mut to)?;
            at = end;
        }
        copy.set_len(size)
    }

    /// The start and end of the next bytes that are not a hole.
    fn next_data(&self, at: u64, size: u64) -> std::io::Result<Option<(u64, u64)>> {
        if at >= size {
            return Ok(None);
        }
        let start = match rustix::fs::seek(&self.file, Place::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // The file system does not support it.
            Err(Errno::INVAL) => return Ok(Some((at, size))),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(&self.file, Place::Hole(start))?;
        Ok((start < size).then_some((start, end.min(size))))
    }
}
