//! Where a drop is while it is admitted: in a folder of its own, named after the task it becomes.
//!
//! Not what becomes of it (`incoming.rs`). The folder is flocked by the watcher that is at it; one
//! that nobody holds is a dead watcher's, and is replayed. Invariant: a drop comes here by a rename
//! within one mount, so it is never in two places and never in none.

use std::ffi::OsStr;
use std::fs::File;

use fs2::FileExt;

use super::durable::Dir;
use super::io_error::IoResult;
use super::layout::{Spool, name};
use crate::task::TaskId;

const CLAIM_SUFFIX: &str = ".claim";

/// Where claim folders lie: in `staging/`, or, where the box is a mount of its own, from which
/// nothing can be renamed to there, under a hidden name in the box itself.
pub(super) struct ClaimPlace {
    pub parent: Dir,
    prefix: &'static str,
}

/// A drop's claim folder, flocked while its watcher is at it.
pub(super) struct HeldClaim {
    pub id: TaskId,
    pub dir: Dir,
    pub parent: Dir,
    folder: String,
    _lock: File,
}

impl HeldClaim {
    /// Takes the empty folder away.
    pub fn remove(&self) -> IoResult<()> {
        self.parent.remove_empty_dir(&self.folder).map(|_| ())
    }
}

impl ClaimPlace {
    pub fn folder(&self, id: TaskId) -> String {
        format!("{}{id}{CLAIM_SUFFIX}", self.prefix)
    }

    /// The claims that are here. In the box anybody may make a folder; only our own are claims.
    pub fn claims(&self) -> IoResult<Vec<TaskId>> {
        let mut claims = Vec::new();
        self.parent.each_name(|name, _| {
            let id = std::str::from_utf8(name).ok().and_then(|name| {
                let id = name.strip_prefix(self.prefix)?.strip_suffix(CLAIM_SUFFIX)?;
                id.parse::<TaskId>().ok()
            });
            claims.extend(id);
            true
        })?;
        if !self.prefix.is_empty() {
            let us = rustix::process::geteuid().as_raw();
            let mut ours = Vec::new();
            for id in claims {
                let stat = self.parent.stat(self.folder(id))?;
                ours.extend(stat.filter(|stat| stat.st_uid == us).map(|_| id));
            }
            return Ok(ours);
        }
        Ok(claims)
    }

    /// Removes what is left here of the drop of a task that stands, so that it cannot come back once
    /// the task is gone. The caller holds the task's lock.
    pub fn forget(&self, id: TaskId, trash: &Dir) -> IoResult<()> {
        if self.parent.has(self.folder(id))? {
            self.parent.remove_tree_by(self.folder(id), trash)?;
        }
        Ok(())
    }

    /// Moves a drop into a folder of its own here; `None` when somebody was faster.
    pub fn claim(
        &self,
        incoming: &Dir,
        file_name: &OsStr,
        id: TaskId,
    ) -> IoResult<Option<HeldClaim>> {
        let dir = self.parent.make_dir(self.folder(id))?;
        let Some(claim) = self.hold(dir, id)? else {
            return Ok(None);
        };
        match incoming.rename_new(file_name, &claim.dir, file_name) {
            Ok(()) => Ok(Some(claim)),
            Err(error) => {
                claim.remove()?;
                if error.is_absent() {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
        }
    }

    pub fn hold(&self, dir: Dir, id: TaskId) -> IoResult<Option<HeldClaim>> {
        let lock = super::claim::lockable(&dir)?;
        if FileExt::try_lock_exclusive(&lock).is_err() {
            return Ok(None);
        }
        Ok(Some(HeldClaim {
            id,
            dir,
            parent: self.parent.open_dir(".")?,
            folder: self.folder(id),
            _lock: lock,
        }))
    }
}

impl Spool {
    /// Where drops are claimed, the usual place first.
    pub(super) fn claim_places(&self) -> IoResult<Vec<ClaimPlace>> {
        let mut places = vec![ClaimPlace {
            parent: self.folder(name::STAGING)?,
            prefix: "",
        }];
        // Nobody else looks into the box of a group spool.
        if self.is_owner() {
            places.push(ClaimPlace {
                parent: self.folder(name::INCOMING)?,
                prefix: ".",
            });
        }
        Ok(places)
    }
}
