//! The folders above a spool: whether somebody else could put another folder in its place.
//!
//! Not what lies in the spool (`layout.rs`). Who may write in a folder above may rename the spool and put
//! another one there, which the owner's recipes would then write into and take their programs from.
//! Invariant: the way up is taken from the open spool itself, and by the path that recipes are told.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, Stat};

use super::io_error::{IoError, IoResult};
use super::layout::Spool;

/// A folder above the spool in which others may write.
#[derive(Debug, Clone, thiserror::Error)]
#[error("others may write in {}, a folder above, and so put another folder in its place: take the right from them (`chmod go-w`) or make it sticky (`chmod +t`)", path.display())]
pub struct Exposed {
    /// The folder.
    pub path: PathBuf,
}

impl Spool {
    /// The nearest folder above in which somebody besides root and the owner may rename what is not his own.
    ///
    /// # Errors
    /// A folder above cannot be looked at.
    pub fn exposed_above(&self) -> IoResult<Option<Exposed>> {
        let owner = self.root()?.own_stat()?.st_uid;
        // A recipe is told the path by which the spool was found, and a link on it may be turned.
        for folder in self.path().ancestors().skip(1) {
            let stat = rustix::fs::stat(folder);
            if stat.is_ok_and(|stat| may_others_rename(&stat, owner)) {
                let path = folder.to_owned();
                return Ok(Some(Exposed { path }));
            }
        }
        const HIGHEST: usize = 4096;
        let root = self.root()?;
        let failed = |errno| IoError::new("look at the folders above", root.path(), errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = root.own_stat()?;
        let mut below = (own.st_dev, own.st_ino);
        let mut folder: Option<OwnedFd> = None;
        for _ in 0..HIGHEST {
            let here = folder.as_ref().map_or(root.as_fd(), AsFd::as_fd);
            let above = rustix::fs::openat(here, "..", flags, Mode::empty()).map_err(failed)?;
            let stat = rustix::fs::fstat(&above).map_err(failed)?;
            if (stat.st_dev, stat.st_ino) == below {
                // The top is its own parent.
                break;
            }
            if may_others_rename(&stat, own.st_uid) {
                let path = crate::proc::path_of(&above).unwrap_or_else(|| root.path_of(".."));
                return Ok(Some(Exposed { path }));
            }
            below = (stat.st_dev, stat.st_ino);
            folder = Some(above);
        }
        Ok(None)
    }
}

fn may_others_rename(stat: &Stat, owner: u32) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    // An access list shows in the group's bits.
    let is_open = mode.intersects(Mode::WGRP | Mode::WOTH) && !mode.contains(Mode::SVTX);
    is_open || (stat.st_uid != 0 && stat.st_uid != owner)
}
