//! The folders above a spool: whether somebody else could put another folder in its place.
//!
//! Not what lies in the spool (`layout.rs`). Who may write in a folder above may rename the spool and put
//! another one there, which the owner's recipes would then write into and take their programs from.
//! Invariant: the way up is taken from the open spool itself, and by the path that recipes are told.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};

use super::spool::Spool;
use crate::spool::disk::{IoError, IoResult, which};
use crate::task::escape_path;
use crate::way::{Place, places};

/// A folder above the spool in which others could put another one in its place.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} {why}, so another folder can be put in the spool's place: {}",
    escape_path(path),
    why.what_to_do()
)]
pub struct Exposed {
    /// The folder, or a link on the way.
    pub path: PathBuf,
    /// Who could.
    pub why: Exposure,
}

/// Who can rename what stands in a folder above, or replace a link on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exposure {
    /// A group, or who is named in an access list.
    #[error("is a folder above in which group {0} may write")]
    Group(u32),
    /// Everybody.
    #[error("is a folder above in which anybody may write")]
    Anybody,
    /// Its owner.
    #[error("leads to the spool and belongs to user {0}")]
    Owner(u32),
}

impl Exposure {
    fn what_to_do(self) -> &'static str {
        match self {
            Exposure::Group(_) | Exposure::Anybody => {
                "take the right from them (`chmod go-w`) or make the folder sticky (`chmod +t`)"
            }
            Exposure::Owner(_) => {
                "give it to this user or to root (`chown`), or move the spool elsewhere"
            }
        }
    }

    fn of(mode: u32, uid: u32, gid: u32, owner: u32) -> Option<Exposure> {
        let is_link = FileType::from_raw_mode(mode) == FileType::Symlink;
        let mode = Mode::from_raw_mode(mode);
        // In a sticky folder nobody renames what is not his own. The mode of a link means nothing.
        let is_guarded = mode.contains(Mode::SVTX) || is_link;
        if !is_guarded && mode.contains(Mode::WOTH) {
            Some(Exposure::Anybody)
        } else if !is_guarded && mode.contains(Mode::WGRP) {
            // An access list shows in the group's bits.
            Some(Exposure::Group(gid))
        } else if uid != 0 && uid != owner {
            Some(Exposure::Owner(uid))
        } else {
            None
        }
    }
}

impl Spool {
    /// The first folder above, or link on the way, by which somebody besides root and the owner could put
    /// another folder in the spool's place.
    ///
    /// # Errors
    /// A folder above cannot be looked at.
    pub fn exposed_above(&self) -> IoResult<Option<Exposed>> {
        let owner = self.root()?.own_stat()?.st_uid;
        // A recipe is told the path by which the spool was found, and a link on it may be replaced.
        let mut way = places(self.path());
        // The spool itself.
        way.pop();
        for Place { path, metadata } in way {
            let (uid, gid) = (metadata.uid(), metadata.gid());
            if let Some(why) = Exposure::of(metadata.mode(), uid, gid, owner) {
                return Ok(Some(Exposed { path, why }));
            }
        }
        const HIGHEST: usize = 4096;
        let root = self.root()?;
        let failed = |errno| IoError::new("look at the folders above", root.path(), errno);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = root.own_stat()?;
        let mut below = which(&own);
        let mut folder: Option<OwnedFd> = None;
        for _ in 0..HIGHEST {
            let here = folder.as_ref().map_or(root.as_fd(), AsFd::as_fd);
            let above = rustix::fs::openat(here, "..", flags, Mode::empty()).map_err(failed)?;
            let stat = rustix::fs::fstat(&above).map_err(failed)?;
            if which(&stat) == below {
                // The top is its own parent.
                break;
            }
            let exposure = Exposure::of(stat.st_mode, stat.st_uid, stat.st_gid, own.st_uid);
            if let Some(why) = exposure {
                let path = crate::proc::path_of(&above).unwrap_or_else(|| root.path_of(".."));
                return Ok(Some(Exposed { path, why }));
            }
            below = which(&stat);
            folder = Some(above);
        }
        Ok(None)
    }
}
