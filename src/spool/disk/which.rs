//! The identity of a file or folder, independent of its name: its device and inode.
//!
//! Not whether it has changed (`Stamp` and `Fingerprint`). Invariant: the file with a name is compared with
//! an open file, never with another name.

use std::os::fd::AsFd;

use rustix::fs::Stat;

use super::dir::Dir;
use super::error::{IoError, IoResult};

/// Device and inode of a file or folder.
pub(in crate::spool) type Which = (u64, u64);

pub(in crate::spool) fn which(stat: &Stat) -> Which {
    (stat.st_dev, stat.st_ino)
}

impl Dir {
    /// The identity of this folder.
    pub(in crate::spool) fn which(&self) -> IoResult<Which> {
        Ok(which(&self.own_stat()?))
    }
}

/// Whether an open file or folder is the one that has this name now.
pub(in crate::spool) fn is_same_file(dir: &Dir, name: &str, file: &impl AsFd) -> IoResult<bool> {
    let held =
        rustix::fs::fstat(file).map_err(|errno| IoError::new("check", dir.path_of(name), errno))?;
    let there = dir.stat(name)?;
    Ok(there.is_some_and(|there| which(&there) == which(&held)))
}
