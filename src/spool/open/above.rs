//! The folders above a spool: whether another user could put another folder in its place.
//!
//! Not what is in the spool (`layout.rs`). A user who may write in a folder above can rename the spool and
//! put another one there. The owner's recipes would then write into that one and take their programs from it.
//! Invariant: both ways up are checked, the one from the open folder and the one by the path that recipes
//! get.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};

use super::spool::Spool;
use crate::spool::disk::{IoError, IoResult, which};
use crate::task::escape_path;
use crate::way::{Place, places};

/// A folder above the spool in which others could replace the spool.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{} {why}, so another folder can be put in the spool's place: {}",
    escape_path(path),
    why.what_to_do()
)]
pub struct Exposed {
    /// The folder, or a link on the way.
    pub path: PathBuf,
    /// Who could do it.
    pub why: Exposure,
}

/// Who can rename entries of a folder above, or replace a link on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exposure {
    /// A group, or users in an access list.
    #[error("is a folder above the spool in which group {0} may write")]
    Group(u32),
    /// All users.
    #[error("is a folder above the spool in which anybody may write")]
    Anybody,
    /// Its owner.
    #[error("leads to the spool and belongs to user {0}")]
    Owner(u32),
}

impl Exposure {
    fn what_to_do(self) -> &'static str {
        match self {
            Exposure::Group(_) | Exposure::Anybody => {
                "remove the permission (`chmod go-w`) or make the folder sticky (`chmod +t`)"
            }
            Exposure::Owner(_) => {
                "give it to this user or to root (`chown`), or move the spool elsewhere"
            }
        }
    }

    fn of(mode: u32, uid: u32, gid: u32, owner: u32) -> Option<Exposure> {
        let is_link = FileType::from_raw_mode(mode) == FileType::Symlink;
        let mode = Mode::from_raw_mode(mode);
        // In a sticky folder only the owner of an entry can rename it. The mode of a link has no effect.
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
    /// The first folder above, or link on the way, by which a user other than root and the owner could put
    /// another folder in the spool's place.
    ///
    /// # Errors
    /// A folder above cannot be checked.
    pub fn exposed_above(&self) -> IoResult<Option<Exposed>> {
        let owner = self.root()?.own_stat()?.st_uid;
        // Recipes get the path by which the spool was found, and a link on that path may be replaced.
        let mut way = places(self.path());
        // Without the spool itself.
        way.pop();
        for Place { path, metadata } in way {
            let (uid, gid) = (metadata.uid(), metadata.gid());
            if let Some(why) = Exposure::of(metadata.mode(), uid, gid, owner) {
                return Ok(Some(Exposed { path, why }));
            }
        }
        const HIGHEST: usize = 4096;
        let root = self.root()?;
        let failed = |errno| IoError::new("check the folders above", root.path(), errno);
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
