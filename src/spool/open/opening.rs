//! Opening a spool: by its owner, by a user of its group, or only to read it.
//!
//! Not how a new one is created (`init.rs`). Invariant: a folder is refused before anything in it is changed
//! if it is not a spool, belongs to another user, can be written by others, or is on a file system whose
//! locks may not work.

use std::path::Path;

use super::error::OpenError;
use super::identity::Identity;
use super::settings_file::{StoredSettings, read_settings, settings_of};
use super::spool::Spool;
use crate::config::Overrides;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none, network_kind};
use crate::spool::events::EventLog;
use crate::spool::layout::{OURS_ONLY, Sharing, name};

/// The files in the root after an `init` that was interrupted before it wrote `spool.json`.
pub(super) const UNFINISHED: [&str; 2] = [name::ROOT_LOCK, ".spool.json.new"];

impl Spool {
    /// Opens a spool. If it is ours, missing folders are created: git and some backups do not keep empty
    /// ones. A group spool of ours in which others can write is refused.
    pub fn open(path: &Path, overrides: Overrides) -> Result<Spool, OpenError> {
        let (spool, known) = Spool::open_and_read(path, overrides)?;
        spool.refuse_breach()?;
        spool.completed(known)
    }

    /// Like [`Spool::open`], for commands that only read. They may read a group spool in which others can
    /// write, and create nothing in it.
    pub fn open_to_read(path: &Path, overrides: Overrides) -> Result<Spool, OpenError> {
        let (spool, known) = Spool::open_and_read(path, overrides)?;
        match spool.breach()? {
            Some(_) => Ok(spool),
            None => spool.completed(known),
        }
    }

    fn completed(mut self, known: Option<Identity>) -> Result<Spool, OpenError> {
        if self.is_owner {
            self.make_missing_folders()?;
            self.check_box()?;
            self.uuid = self.ensure_identity(known)?.uuid;
        } else if self.uuid.is_empty() {
            let identity = self.identity()?.ok_or_else(|| OpenError::Absent {
                path: self.path().to_owned(),
            })?;
            self.uuid = identity.uuid;
        }
        Ok(self)
    }

    /// Opens a spool and creates nothing, for commands that only read. Files and folders may be missing.
    pub fn open_as_it_is(path: &Path, overrides: Overrides) -> Result<Spool, OpenError> {
        Ok(Spool::open_and_read(path, overrides)?.0)
    }

    fn open_and_read(
        path: &Path,
        overrides: Overrides,
    ) -> Result<(Spool, Option<Identity>), OpenError> {
        let absent = || OpenError::Absent {
            path: path.to_owned(),
        };
        // People and recipes get paths below this one, so it must work from any folder.
        let path = &std::path::absolute(path).map_err(|_| absent())?;
        check_path(path)?;
        let root = absent_is_none(Dir::open(path, OURS_ONLY))?.ok_or_else(absent)?;
        let StoredSettings {
            sharing,
            settings: file,
        } = match read_settings(&root)? {
            Some(stored) => stored,
            None => return Err(not_for_a_spool(&root)?.unwrap_or_else(absent)),
        };
        let settings = settings_of(&root, &file, &overrides)?;
        if !settings.allow_network_fs {
            refuse_network(&root)?;
        }
        let stat = root.own_stat()?;
        let us = rustix::process::geteuid().as_raw();
        let is_owner = stat.st_uid == us;
        if !is_owner && sharing == Sharing::Private {
            return Err(OpenError::Foreign {
                path: path.clone(),
                owner: stat.st_uid,
                us,
            });
        }
        let mut spool = Spool {
            root,
            uuid: String::new(),
            file,
            stamp: None,
            overrides,
            settings,
            sharing,
            is_owner,
            ids: std::sync::Mutex::default(),
            events: EventLog::default(),
        };
        let identity = spool.identity().ok().flatten();
        if let Some(identity) = &identity {
            spool.uuid.clone_from(&identity.uuid);
        }
        Ok((spool, identity))
    }
}

/// The error for a folder without settings in which `init` would not create a spool: it was a spool, or it has
/// other things in it.
pub(super) fn not_for_a_spool(root: &Dir) -> IoResult<Option<OpenError>> {
    let path = root.path().to_owned();
    if root.has(name::IDENTITY)? && root.has(name::TASKS)? {
        return Ok(Some(OpenError::SettingsLost { path }));
    }
    let names = root.names()?;
    let is_unfinished = |entry| UNFINISHED.iter().any(|known| entry == known);
    // Another `init` may have finished since.
    if names.iter().all(is_unfinished) || root.has(name::SETTINGS)? {
        return Ok(None);
    }
    Ok(Some(OpenError::Occupied { path }))
}

/// Refuses a path that is not text, also if only the current folder's path is not text.
pub(super) fn check_path(path: &Path) -> Result<(), OpenError> {
    let is_text = std::path::absolute(path).is_ok_and(|path| path.to_str().is_some());
    if is_text {
        return Ok(());
    }
    Err(OpenError::NotText {
        path: path.to_owned(),
    })
}

/// Refuses network file systems, by their magic numbers in statfs(2). 9p and virtiofs (FUSE) are not refused:
/// one machine uses the shared folder of a virtual machine, and flock works there.
fn refuse_network(root: &Dir) -> Result<(), OpenError> {
    let stat = rustix::fs::fstatfs(root)
        .map_err(|errno| IoError::new("check the file system of", root.path(), errno))?;
    match network_kind(stat.f_type as u32) {
        Some(kind) => Err(OpenError::Network {
            path: root.path().to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}
