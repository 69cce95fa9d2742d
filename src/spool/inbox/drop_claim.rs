//! Where a drop is while it is admitted: in a folder of its own, named after the task it becomes.
//!
//! Not what becomes of it (`incoming.rs`). The folder, `<id>.claim`, is flocked by the watcher that is at it;
//! one that nobody holds is a dead watcher's, and is replayed. In a group spool an empty file in it,
//! `.<inode>.<ms>`, says which file was claimed and when that one had last been changed, because the claim is
//! a change itself. Invariants: a drop comes here by a rename within one mount, so it is never in two places
//! and never in none; there is one claim of an id at a time, and who holds it alone decides about that id.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use super::box_entry::is_placeholder;
use super::drop_read::Fingerprint;
use crate::spool::disk::{
    Dir, Flock, IoError, IoResult, LockLevel, Making, absent_is_none, random_bits,
};
use crate::spool::layout::{
    CLAIM_FOLDER,
    name::{self, BUILDING, CLAIM_SUFFIX, REFUSING},
};
use crate::spool::open::Spool;
use crate::task::TaskId;

/// Where claim folders lie: in `staging/`, or, where the box of a private spool is a mount of its own, from
/// which nothing can be renamed to there, under a hidden name in the box itself.
pub(in crate::spool) struct ClaimPlace {
    pub parent: Dir,
    prefix: &'static str,
}

/// A file before it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LookedAt {
    /// When it was last changed, in milliseconds since the epoch.
    pub changed_ms: i64,
    /// Its inode.
    pub inode: u64,
}

impl LookedAt {
    pub fn of(seen: Fingerprint, (seconds, nanoseconds): (i64, u64)) -> LookedAt {
        LookedAt {
            changed_ms: ms_of(seconds, nanoseconds),
            inode: seen.inode(),
        }
    }

    fn file_name(self) -> String {
        format!(".{}.{}", self.inode, self.changed_ms)
    }

    /// The ids of ours under which the file may be refused, in order. They are the same for whoever refuses the
    /// file, so a refusal that was cut off goes on under the same id. Users can know them before.
    pub fn ids_of_refusal(self) -> impl Iterator<Item = TaskId> {
        const MOST: u128 = 16;
        let changed_ms = self.changed_ms.max(0).unsigned_abs();
        (0..MOST).map(move |n| TaskId::from_parts(changed_ms, u128::from(self.inode) | n << 64))
    }

    fn parse(name: &OsStr) -> Option<LookedAt> {
        let (inode, changed_ms) = name.to_str()?.strip_prefix('.')?.split_once('.')?;
        Some(LookedAt {
            changed_ms: changed_ms.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// A time stamp of the kernel's in milliseconds since the epoch.
pub(super) fn ms_of(seconds: i64, nanoseconds: u64) -> i64 {
    seconds * 1000 + (nanoseconds / 1_000_000) as i64
}

/// A drop's claim folder, flocked while its watcher is at it.
pub(super) struct HeldClaim {
    /// The task it becomes.
    pub id: TaskId,
    /// In a group spool, the file that was looked at.
    pub file: Option<LookedAt>,
    pub dir: Dir,
    pub place: ClaimPlace,
    _lock: Flock,
}

impl HeldClaim {
    /// Takes the folder away, once no drop is in it. A drop on which somebody mounted something stays there with all
    /// that is known of it, until that is gone.
    pub fn remove(&self) -> IoResult<()> {
        if self.drop_name()?.is_some() {
            return Ok(());
        }
        for entry in self.dir.names()? {
            if is_note(&entry) {
                self.dir.unlink(&entry)?;
            }
        }
        let folder = self.place.folder(self.id);
        self.place.parent.remove_empty_dir(folder).map(|_| ())
    }

    /// The name of the drop in it; `None` where it was not moved here yet, or is done with.
    pub fn drop_name(&self) -> IoResult<Option<OsString>> {
        for entry in self.dir.names()? {
            if is_note(&entry) {
                continue;
            }
            if self
                .dir
                .look(&entry)?
                .is_some_and(|stat| is_placeholder(&stat))
            {
                self.dir.unlink(&entry)?;
                continue;
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }

    /// Says that the task is being built now.
    pub fn begin_building(&self) -> IoResult<()> {
        self.dir.touch(BUILDING).map(|_| ())
    }

    /// Says that the drop is refused under the id that it brought.
    pub fn begin_refusing(&self) -> IoResult<()> {
        self.dir.touch(REFUSING).map(|_| ())
    }

    /// Whether a refusal under the id that it brought was begun.
    pub fn is_refusing(&self) -> IoResult<bool> {
        self.dir.has(REFUSING)
    }

    /// Whether its task was built before, as far as that went.
    pub fn is_building(&self) -> IoResult<bool> {
        self.dir.has(BUILDING)
    }
}

/// Whether something in a claim is not the drop.
fn is_note(entry: &OsStr) -> bool {
    entry.as_encoded_bytes().starts_with(b".")
}

impl ClaimPlace {
    pub fn folder(&self, id: TaskId) -> String {
        format!("{}{id}{CLAIM_SUFFIX}", self.prefix)
    }

    fn parse(&self, name: &[u8]) -> Option<TaskId> {
        let name = std::str::from_utf8(name).ok()?;
        let id = name.strip_prefix(self.prefix)?.strip_suffix(CLAIM_SUFFIX)?;
        id.parse().ok()
    }

    /// The claims that are here.
    pub fn claims(&self) -> IoResult<Vec<TaskId>> {
        let mut claims = Vec::new();
        self.parent.each_name(|name, _| {
            claims.extend(self.parse(name));
            true
        })?;
        Ok(claims)
    }

    /// Whether a drop is being admitted under this id.
    pub fn has(&self, id: TaskId) -> IoResult<bool> {
        self.parent.has(self.folder(id))
    }

    /// Removes what is left here of the drop of a task that stands, so that it cannot come back once
    /// the task is gone. The caller holds the task's lock. Whatever is in the claim, it goes in one step.
    pub fn forget(&self, id: TaskId, trash: &Dir) -> IoResult<()> {
        let folder = self.folder(id);
        let trash_name = format!("claim.{:016x}", random_bits() as u64);
        match self.parent.rename_new(&folder, trash, &trash_name) {
            Ok(()) => {
                // What cannot be removed now is left to the sweeper.
                let _ = trash.remove_tree(&trash_name);
                Ok(())
            }
            Err(error) if error.is_absent() => Ok(()),
            Err(error) if error.is_immovable() => {
                self.parent.remove_tree_by(&folder, trash).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Moves a drop into a folder of its own here; `None` when somebody was faster, or has another drop
    /// of this id.
    pub(super) fn claim(
        &self,
        incoming: &Dir,
        file_name: &OsStr,
        id: TaskId,
        seen: Option<LookedAt>,
    ) -> IoResult<Option<HeldClaim>> {
        let making = self.parent.making();
        let closed = Making {
            dir: CLAIM_FOLDER,
            ..making
        };
        let parent = self.parent.open_dir(".")?.with_making(closed);
        let dir = match parent.make_dir(self.folder(id)) {
            Err(error) if error.errno() == Some(Errno::EXIST) || error.is_absent() => {
                return Ok(None);
            }
            made => made?.with_making(making),
        };
        let Some(mut claim) = self.hold(dir, id)? else {
            return Ok(None);
        };
        // Who replays claims may have taken the folder away before it was held: then nothing can be made
        // in it.
        if let Some(seen) = seen
            && absent_is_none(claim.dir.touch(seen.file_name()))?.is_none()
        {
            return Ok(None);
        }
        claim.file = seen;
        match incoming.take_file(file_name, &claim.dir, file_name) {
            Ok(true) => Ok(Some(claim)),
            Ok(false) => claim.remove().map(|()| None),
            Err(error) => {
                claim.remove()?;
                Err(error)
            }
        }
    }

    pub(super) fn hold(&self, dir: Dir, id: TaskId) -> IoResult<Option<HeldClaim>> {
        let Some(lock) = dir.lock_exclusively(LockLevel::Claim, dir.to_lock()?, "")? else {
            return Ok(None);
        };
        let file = dir.names()?.iter().find_map(|it| LookedAt::parse(it));
        Ok(Some(HeldClaim {
            id,
            file,
            dir,
            place: ClaimPlace {
                parent: self.parent.open_dir(".")?,
                prefix: self.prefix,
            },
            _lock: lock,
        }))
    }
}

impl Spool {
    /// Where drops are claimed, the usual place first.
    pub(in crate::spool) fn claim_places(&self) -> IoResult<Vec<ClaimPlace>> {
        let mut places = vec![ClaimPlace {
            parent: self.folder(name::STAGING)?,
            prefix: "",
        }];
        // Never in the box of a group spool: others put things there.
        if !self.is_group() {
            places.push(ClaimPlace {
                parent: self.folder(name::INCOMING)?,
                prefix: ".",
            });
        }
        Ok(places)
    }

    /// Refuses a group spool whose box is a mount of its own. Nothing can be renamed from there to where
    /// only the owner writes, so no drop could be taken safely.
    pub(in crate::spool) fn check_box(&self) -> IoResult<()> {
        if !self.is_group() {
            return Ok(());
        }
        let root = self.root_dir();
        let incoming = root.open_dir_to_ask(name::INCOMING)?;
        if incoming.mount()? == root.mount()? {
            return Ok(());
        }
        let why = "it is a mount of its own, which a group spool cannot have: unmount it, or move the whole spool to that file system";
        let why = std::io::Error::other(why);
        Err(IoError::new("use the drop box", incoming.path(), why))
    }
}
