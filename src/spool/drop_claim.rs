//! Where a drop is while it is admitted: in a folder of its own, named after the task it becomes.
//!
//! Not what becomes of it (`incoming.rs`). The folder is flocked by the watcher that is at it; one
//! that nobody holds is a dead watcher's, and is replayed. Its name is `<id>.claim`; in a group spool, where
//! the id may be one that a user chose, `<id>.<inode>.<ms>.claim`: it also says which file was claimed and
//! when that one had last been changed, because the claim is a change itself.
//! Invariant: a drop comes here by a rename within one mount, so it is never in two places and never in
//! none.

use std::ffi::OsStr;
use std::fs::File;

use fs2::FileExt;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::durable::{Dir, Making};
use super::io_error::IoResult;
use super::layout::{Spool, name};
use crate::task::TaskId;

const CLAIM_SUFFIX: &str = ".claim";

/// Where claim folders lie: in `staging/`, or, where the box is a mount of its own, from which
/// nothing can be renamed to there, under a hidden name in the box itself.
pub(super) struct ClaimPlace {
    pub parent: Dir,
    prefix: &'static str,
    is_group: bool,
}

/// Of claim folders: a user of the group may ask whether a name is in one, but not open the folder,
/// because who can open it can lock it.
const CLOSED: Mode = Mode::from_bits_retain(0o710);

/// Which file a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The task it becomes.
    pub id: TaskId,
    /// In a group spool, the file that was looked at.
    pub file: Option<LookedAt>,
}

/// A file before it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LookedAt {
    /// When it was last changed, in milliseconds since the epoch.
    pub changed_ms: i64,
    /// Its inode.
    pub inode: u64,
}

/// A time stamp of the kernel's in milliseconds since the epoch.
pub(super) fn ms_of(seconds: i64, nanoseconds: u64) -> i64 {
    seconds * 1000 + (nanoseconds / 1_000_000) as i64
}

/// A drop's claim folder, flocked while its watcher is at it.
pub(super) struct HeldClaim {
    pub claimed: Claimed,
    pub dir: Dir,
    pub place: ClaimPlace,
    _lock: File,
}

impl HeldClaim {
    /// Takes the empty folder away.
    pub fn remove(&self) -> IoResult<()> {
        let folder = self.place.folder(self.claimed);
        self.place.parent.remove_empty_dir(folder).map(|_| ())
    }

    /// Whether an earlier drop of the same id is being admitted. Who learns of an id by its claim comes
    /// later.
    pub fn is_preceded(&self) -> IoResult<bool> {
        let is_before =
            |other: &Claimed| other.id == self.claimed.id && other.file < self.claimed.file;
        Ok(self.place.claims()?.iter().any(is_before))
    }
}

impl ClaimPlace {
    pub fn folder(&self, claimed: Claimed) -> String {
        let file = claimed.file.map_or(String::new(), |file| {
            format!(".{}.{}", file.inode, file.changed_ms)
        });
        format!("{}{}{file}{CLAIM_SUFFIX}", self.prefix, claimed.id)
    }

    fn parse(&self, name: &[u8]) -> Option<Claimed> {
        let name = std::str::from_utf8(name).ok()?;
        let name = name.strip_prefix(self.prefix)?.strip_suffix(CLAIM_SUFFIX)?;
        let (id, file) = match name.split_once('.') {
            None => (name, None),
            Some((id, file)) => {
                let (inode, changed_ms) = file.split_once('.')?;
                let file = LookedAt {
                    changed_ms: changed_ms.parse().ok()?,
                    inode: inode.parse().ok()?,
                };
                (id, Some(file))
            }
        };
        Some(Claimed {
            id: id.parse().ok()?,
            file,
        })
    }

    /// The claims that are here.
    pub fn claims(&self) -> IoResult<Vec<Claimed>> {
        let mut claims = Vec::new();
        self.parent.each_name(|name, _| {
            claims.extend(self.parse(name));
            true
        })?;
        if !self.prefix.is_empty() {
            // In the box others may make folders. One of ours that others may not write cannot have been
            // moved here by them: the kernel asks for the right to write a folder that changes its parent.
            let us = rustix::process::geteuid().as_raw();
            let mut ours = Vec::new();
            for claimed in claims {
                let stat = self.parent.stat(self.folder(claimed))?;
                let is_ours = stat.is_some_and(|it| it.st_uid == us && it.st_mode & 0o022 == 0);
                ours.extend(is_ours.then_some(claimed));
            }
            return Ok(ours);
        }
        Ok(claims)
    }

    /// Removes what is left here of the drop of a task that stands, so that it cannot come back once
    /// the task is gone. The caller holds the task's lock.
    pub fn forget(&self, id: TaskId, trash: &Dir) -> IoResult<()> {
        let plain = self.folder(Claimed { id, file: None });
        if !self.is_group {
            if self.parent.has(&plain)? {
                self.parent.remove_tree_by(plain, trash)?;
            }
            return Ok(());
        }
        for claimed in self.claims()?.into_iter().filter(|it| it.id == id) {
            self.parent.remove_tree_by(self.folder(claimed), trash)?;
        }
        Ok(())
    }

    /// Moves a drop into a folder of its own here; `None` when somebody was faster.
    pub fn claim(
        &self,
        incoming: &Dir,
        file_name: &OsStr,
        claimed: Claimed,
    ) -> IoResult<Option<HeldClaim>> {
        let making = self.parent.making();
        let closed = Making {
            dir: CLOSED,
            ..making
        };
        let parent = self.parent.open_dir(".")?.with_making(closed);
        let dir = match parent.make_dir(self.folder(claimed)) {
            // Another watcher has just claimed the same file. In the box itself it may be another user's
            // folder: an error, which sets the drop aside.
            Err(error) if error.errno() == Some(Errno::EXIST) && self.prefix.is_empty() => {
                return Ok(None);
            }
            made => made?,
        };
        let Some(claim) = self.hold(dir, claimed)? else {
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

    pub fn hold(&self, dir: Dir, claimed: Claimed) -> IoResult<Option<HeldClaim>> {
        let lock = super::claim::lockable(&dir)?;
        if FileExt::try_lock_exclusive(&lock).is_err() {
            return Ok(None);
        }
        Ok(Some(HeldClaim {
            claimed,
            dir,
            place: ClaimPlace {
                parent: self.parent.open_dir(".")?,
                prefix: self.prefix,
                is_group: self.is_group,
            },
            _lock: lock,
        }))
    }
}

impl Spool {
    /// Where drops are claimed, the usual place first. In the box of a group spool only where nothing
    /// can be renamed from it to the usual place: others put things there, and only its owner lists it.
    pub(super) fn claim_places(&self) -> IoResult<Vec<ClaimPlace>> {
        let is_group = self.is_group();
        let staging = self.folder(name::STAGING)?;
        let mut places = Vec::with_capacity(2);
        if self.is_owner() {
            let incoming = self.folder(name::INCOMING)?;
            if !is_group || incoming.mount()? != staging.mount()? {
                places.push(ClaimPlace {
                    parent: incoming,
                    prefix: ".",
                    is_group,
                });
            }
        }
        places.insert(
            0,
            ClaimPlace {
                parent: staging,
                prefix: "",
                is_group,
            },
        );
        Ok(places)
    }
}
