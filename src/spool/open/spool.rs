//! An open spool: its root folder, its settings, and what all other files need of it.
//!
//! Not how a spool is opened (`opening.rs`) or created (`init.rs`). Invariant: a [`Spool`] value is a folder
//! of this layout, of a version this program knows, on a file system whose locks work, owned by us or shared
//! with us through its group.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::settings_file::Stamp;
use crate::config::{Durability, Overrides, Settings};
use crate::spool::disk::{Dir, IoError, IoResult, Making, random_bits};
use crate::spool::events::EventLog;
use crate::spool::layout::{Sharing, making_in, name};
use crate::task::{IdSequence, TaskId};

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    pub(super) root: Dir,
    pub(super) uuid: String,
    pub(super) file: Map<String, Value>,
    /// The stamp of the file that `file` was read from; `None` if it may have changed while it was read.
    pub(super) stamp: Option<Stamp>,
    pub(super) overrides: Overrides,
    pub(super) settings: Settings,
    pub(super) sharing: Sharing,
    pub(super) is_owner: bool,
    pub(super) ids: std::sync::Mutex<IdSequence>,
    pub(super) events: EventLog,
}

impl Spool {
    /// The spool's root folder, absolute.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The id that distinguishes this spool from all others.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The settings in effect.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings that are in `spool.json`.
    pub fn settings_file(&self) -> &Map<String, Value> {
        &self.file
    }

    /// The settings from outside `spool.json`.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Whether the current user owns it. Only the owner runs, recovers and clears tasks.
    pub fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// The uid of its owner.
    pub fn owner(&self) -> IoResult<u32> {
        Ok(self.root.own_stat()?.st_uid)
    }

    /// The uid of its owner, for checks of recipes. If it cannot be read: the uid of the current user.
    pub fn owner_or_us(&self) -> u32 {
        self.owner()
            .unwrap_or_else(|_| rustix::process::geteuid().as_raw())
    }

    /// Whether it is a group spool.
    pub fn is_group(&self) -> bool {
        self.sharing == Sharing::Group
    }

    /// In a group spool, for its owner: the uid that folders of tasks and attempts must belong to. A folder
    /// of another user is ignored. Others may have been able to write there for a while.
    pub(in crate::spool) fn only_owner(&self) -> Option<u32> {
        (self.is_group() && self.is_owner).then(|| rustix::process::geteuid().as_raw())
    }

    /// The path of the spool's own recipes.
    pub fn recipes_path(&self) -> PathBuf {
        self.root.path_of(name::RECIPES)
    }

    /// A new task id from the time and random bits. Ids of one process increase.
    pub fn new_id(&self) -> TaskId {
        let mut ids = self
            .ids
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ids.next(crate::clock::wall().unix_ms(), random_bits())
    }

    /// The events file that this process writes to.
    pub(in crate::spool) fn event_log(&self) -> &EventLog {
        &self.events
    }

    /// Opens one of the root's folders.
    pub(in crate::spool) fn folder(&self, folder: &'static str) -> IoResult<Dir> {
        Ok(self.root.open_dir(folder)?.with_making(self.making(folder)))
    }

    /// Opens the root, to write the files in it. It is not opened by its path, which may lead elsewhere now.
    pub(in crate::spool) fn root(&self) -> IoResult<Dir> {
        let root = self.root.open_dir(".")?.moved_to(self.path().to_owned());
        Ok(root.with_making(self.making(name::SETTINGS)))
    }

    /// The root, for reading.
    pub(in crate::spool) fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// The modes of new files and folders in a folder of this spool, and whether they are synced.
    pub(in crate::spool) fn making(&self, folder: &str) -> Making {
        let sync = self.settings.durability == Durability::Power;
        Making {
            sync,
            ..making_in(self.sharing, folder)
        }
    }

    /// The modes of new files of an attempt: the owner can write them, the group can read them.
    pub(in crate::spool) fn attempt_making(&self) -> Making {
        self.making(name::ATTEMPTS)
    }

    /// The free space of the file system: the bytes and inodes that a normal user can still use.
    pub fn free_room(&self) -> IoResult<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|errno| IoError::new("check the free space of", self.path(), errno))?;
        // File systems without a fixed number of inodes (btrfs) report 0.
        let inodes = if stat.f_files == 0 {
            u64::MAX
        } else {
            stat.f_favail
        };
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
    }
}
