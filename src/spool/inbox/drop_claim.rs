//! The claim of a drop: the folder that holds it while it is admitted, named after the task it becomes.
//!
//! Not what is done with the drop (`incoming.rs`). The watcher that works on the claim locks its folder,
//! `<id>.claim`. If it is not locked, its watcher was killed, and it is replayed. In a group spool an empty
//! file in the folder, `.<inode>.<ms>`, records which file was claimed and when it was last changed, because
//! the claim itself changes the file. Invariants: a drop is moved here by a rename within one mount, so it is
//! always in exactly one place; there is one claim of an id at a time, and only its holder decides about that
//! id.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use super::box_entry::{is_placeholder, is_slow_to_free};
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

/// The folder that holds claims: `staging/`. If the box of a private spool is a mount of its own, nothing can
/// be renamed from there to `staging/`, and the claims have hidden names in the box itself.
pub(in crate::spool) struct ClaimPlace {
    pub parent: Dir,
    prefix: &'static str,
}

/// A file in the box, as it was before it was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenFile {
    /// When it was last changed, in milliseconds since the epoch.
    pub changed_ms: i64,
    /// Its inode.
    pub inode: u64,
}

impl SeenFile {
    pub fn of(seen: Fingerprint, (seconds, nanoseconds): (i64, u64)) -> SeenFile {
        SeenFile {
            changed_ms: ms_of(seconds, nanoseconds),
            inode: seen.inode(),
        }
    }

    fn file_name(self) -> String {
        format!(".{}.{}", self.inode, self.changed_ms)
    }

    /// Ids derived from the file, under which it may be refused, in order. Each watcher derives the same ids,
    /// so an interrupted refusal continues under the same id. Users of the group can predict them.
    pub fn ids_of_refusal(self) -> impl Iterator<Item = TaskId> {
        const MAX_IDS: u128 = 16;
        let changed_ms = self.changed_ms.max(0).unsigned_abs();
        (0..MAX_IDS).map(move |n| TaskId::from_parts(changed_ms, u128::from(self.inode) | n << 64))
    }

    fn parse(name: &OsStr) -> Option<SeenFile> {
        let (inode, changed_ms) = name.to_str()?.strip_prefix('.')?.split_once('.')?;
        Some(SeenFile {
            changed_ms: changed_ms.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }
}

/// A name in the trash for a claim, or for a file of the box.
pub(super) fn trash_name() -> String {
    format!("claim.{:016x}", random_bits() as u64)
}

/// A kernel time stamp in milliseconds since the epoch.
pub(super) fn ms_of(seconds: i64, nanoseconds: u64) -> i64 {
    seconds * 1000 + (nanoseconds / 1_000_000) as i64
}

/// The claim folder of a drop, locked by this process.
pub(super) struct HeldClaim {
    /// The id of the task that the drop becomes.
    pub id: TaskId,
    /// In a group spool, the file as it was before the claim.
    pub file: Option<SeenFile>,
    pub dir: Dir,
    pub place: ClaimPlace,
    _lock: Flock,
}

impl HeldClaim {
    /// Removes the folder if no drop is in it. A drop that is a mount stays there with its records until it
    /// is unmounted.
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

    /// Removes the drop and the folder. If that may take long, the whole folder is left to the sweeper.
    pub fn discard(&self, file_name: &OsStr, trash: &Dir) -> IoResult<()> {
        if self
            .dir
            .look(file_name)?
            .is_some_and(|it| is_slow_to_free(&it))
        {
            match self.place.put_away(self.id, trash) {
                // In the box of a private spool. There its owner waits only for files of his own.
                Err(error) if error.is_immovable() => {}
                moved => return moved.map(|_| ()),
            }
        }
        self.dir.unlink(file_name)?;
        self.remove()
    }

    /// The name of the drop in it; `None` if the drop was not moved here yet, or was already moved away.
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

    /// Records that the task is being built.
    pub fn start_building(&self) -> IoResult<()> {
        self.dir.touch(BUILDING).map(|_| ())
    }

    /// Records that the drop is being refused under its chosen id.
    pub fn start_refusing(&self) -> IoResult<()> {
        self.dir.touch(REFUSING).map(|_| ())
    }

    /// Whether a refusal under its chosen id was started.
    pub fn is_refusing(&self) -> IoResult<bool> {
        self.dir.has(REFUSING)
    }

    /// Whether the building of its task was started.
    pub fn is_building(&self) -> IoResult<bool> {
        self.dir.has(BUILDING)
    }
}

/// Whether an entry of a claim is a record, not the drop.
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

    /// The ids of all claims here.
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

    /// Removes the claim that is left of a published task's drop, so that a replay cannot create the task
    /// again after it was removed. The caller holds the task's lock. The claim is removed in one step.
    pub fn forget(&self, id: TaskId, trash: &Dir) -> IoResult<()> {
        match self.put_away(id, trash) {
            Ok(trash_name) => {
                // The sweeper removes what cannot be removed now.
                let _ = trash.remove_tree(&trash_name);
                Ok(())
            }
            Err(error) if error.is_absent() => Ok(()),
            Err(error) if error.is_immovable() => {
                let folder = self.folder(id);
                self.parent.remove_tree_by(folder, trash).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    /// Moves a claim to the trash with the drop in it, and returns its name there.
    fn put_away(&self, id: TaskId, trash: &Dir) -> IoResult<String> {
        let name = trash_name();
        self.parent.rename_new(self.folder(id), trash, &name)?;
        Ok(name)
    }

    /// Moves a drop into a claim folder here; `None` if another watcher was faster, or if there is a claim of
    /// another drop with this id.
    pub(super) fn claim(
        &self,
        incoming: &Dir,
        file_name: &OsStr,
        id: TaskId,
        seen: Option<SeenFile>,
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
        // A watcher that replays claims may have removed the folder before it was locked. Then no file can be
        // created in it.
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
        let file = dir.names()?.iter().find_map(|it| SeenFile::parse(it));
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
    /// The folders for claims, the usual one first.
    pub(in crate::spool) fn claim_places(&self) -> IoResult<Vec<ClaimPlace>> {
        let mut places = vec![ClaimPlace {
            parent: self.folder(name::STAGING)?,
            prefix: "",
        }];
        // Not in the box of a group spool, because other users can write there.
        if !self.is_group() {
            places.push(ClaimPlace {
                parent: self.folder(name::INCOMING)?,
                prefix: ".",
            });
        }
        Ok(places)
    }

    /// Fails for a group spool whose box is a mount of its own. Nothing can be renamed from there to a folder
    /// that only the owner can write, so no drop could be taken safely.
    pub(in crate::spool) fn check_box(&self) -> IoResult<()> {
        if !self.is_group() {
            return Ok(());
        }
        let root = self.root_dir();
        let incoming = root.open_dir_to_ask(name::INCOMING)?;
        if incoming.mount()? == root.mount()? {
            return Ok(());
        }
        let why = "it is a mount of its own, which a group spool does not support: unmount it, or move the whole spool to that file system";
        let why = std::io::Error::other(why);
        Err(IoError::new("use the drop box", incoming.path(), why))
    }
}
