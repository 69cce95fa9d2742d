//! An open spool: its root folder, its settings, and what every other file asks of it.
//!
//! Not how one is opened (`opening.rs`) or made (`init.rs`). Invariant: a [`Spool`] value is a folder of this
//! layout, of a version this program knows, on a file system whose locks count, owned by us or shared with us
//! through its group.

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
    /// Of the file that `file` was read from; `None` where it may have changed under the reading.
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

    /// What tells this spool from every other one.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What `spool.json` itself sets.
    pub fn settings_file(&self) -> &Map<String, Value> {
        &self.file
    }

    /// What was set outside `spool.json`.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// Whether we own it: only the owner runs, recovers and clears tasks.
    pub fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// The uid of its owner.
    pub fn owner(&self) -> IoResult<u32> {
        Ok(self.root.own_stat()?.st_uid)
    }

    /// The same for who asks whom recipes belong to; of a spool that cannot be looked at, us.
    pub fn owner_or_us(&self) -> u32 {
        self.owner()
            .unwrap_or_else(|_| rustix::process::geteuid().as_raw())
    }

    /// Whether a group shares it.
    pub fn is_group(&self) -> bool {
        self.sharing == Sharing::Group
    }

    /// In a group spool, for its owner: the user whose folders of tasks and attempts count. Another user's is as good as
    /// not there, also where others could write for a while.
    pub(in crate::spool) fn only_owner(&self) -> Option<u32> {
        (self.is_group() && self.is_owner).then(|| rustix::process::geteuid().as_raw())
    }

    /// The folder of a spool's own recipes.
    pub fn recipes_path(&self) -> PathBuf {
        self.root.path_of(name::RECIPES)
    }

    /// A new task id: this moment and randomness, rising within this process.
    pub fn new_id(&self) -> TaskId {
        let mut ids = self
            .ids
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ids.next(crate::clock::wall().unix_ms(), random_bits())
    }

    /// The file of events that this process writes into.
    pub(in crate::spool) fn event_log(&self) -> &EventLog {
        &self.events
    }

    /// Opens one of the root's folders.
    pub(in crate::spool) fn folder(&self, folder: &'static str) -> IoResult<Dir> {
        Ok(self.root.open_dir(folder)?.with_making(self.making(folder)))
    }

    /// The root itself, for the few files in it. Not by its path, which may lead elsewhere by now.
    pub(in crate::spool) fn root(&self) -> IoResult<Dir> {
        let root = self.root.open_dir(".")?.moved_to(self.path().to_owned());
        Ok(root.with_making(self.making(name::SETTINGS)))
    }

    /// The same to read in.
    pub(in crate::spool) fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// How things in a folder of this spool are made.
    pub(in crate::spool) fn making(&self, folder: &str) -> Making {
        let sync = self.settings.durability == Durability::Power;
        Making {
            sync,
            ..making_in(self.sharing, folder)
        }
    }

    /// How the files of an attempt are made: the owner's to write, the group's to read.
    pub(in crate::spool) fn attempt_making(&self) -> Making {
        self.making(name::ATTEMPTS)
    }

    /// The free room of the file system: bytes and inodes a normal user can still take.
    pub fn free_room(&self) -> IoResult<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.root)
            .map_err(|errno| IoError::new("look at the free space of", self.path(), errno))?;
        // File systems without inodes of their own (btrfs) report none at all.
        let inodes = if stat.f_files == 0 {
            u64::MAX
        } else {
            stat.f_favail
        };
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
    }
}
