//! `init`: how a spool is created, completed, or converted.
//!
//! Not the names of files and folders (`layout.rs`), nor what a conversion keeps (`convert/`). Invariants:
//! nothing in another user's folder is changed. A folder that others can write is refused unless it is empty.
//! `spool.json` is written last, so the next `init` continues one that was interrupted.

use std::path::Path;

use serde_json::Map;

use super::breach::{find_breach, is_open};
use super::error::OpenError;
use super::modes::{are_modes_right, group_of, mend_modes, set_mode_wholly};
use super::opening::{UNFINISHED, check_path, not_for_a_spool};
use super::root_lock::root_lock;
use super::settings_file::{read_older_settings, read_settings, stored_settings};
use super::spool::Spool;
use crate::config::Overrides;
use crate::spool::convert::{OPEN_FOLDERS, convert, renew_root_locks};
use crate::spool::disk::{Dir, Flock, IoError, IoResult};
use crate::spool::layout::{CLOSED, FOLDERS, GROUP_READS, OURS_ONLY, Sharing, folder_mode, name};
use crate::task::to_pretty;

impl Spool {
    /// Creates a spool in `path`, completes an existing one, or converts a spool of version 1. With `gid`
    /// the users of that group may submit to it.
    ///
    /// # Errors
    /// The folder belongs to another user or has other things in it, others can write in it, the spool is of
    /// another kind, this user is not in the group, or a system call fails.
    pub fn init(path: &Path, gid: Option<u32>, overrides: Overrides) -> Result<Spool, OpenError> {
        check_path(path)?;
        if let Some(gid) = gid {
            check_membership(gid)?;
        }
        if std::fs::symlink_metadata(path).is_err() {
            make_parents(path)?;
        }
        let root = Dir::open(path, OURS_ONLY)?;
        check_owner(&root)?;
        check_entries(&root)?;
        close_if_empty(&root)?;
        drop((make_ready(&root, gid)?, root));
        let spool = Spool::open(path, overrides)?;
        spool.complete_index()?;
        Ok(spool)
    }

    /// Creates the missing index entries of waiting tasks, after `open/` was replaced. A watcher does the
    /// same.
    fn complete_index(&self) -> IoResult<()> {
        if !self.is_group() || self.is_reconciled()? {
            return Ok(());
        }
        for id in self.unindexed_ids()?.into_iter().rev() {
            if let Err(error) = self.reconcile_entry(id) {
                tracing::warn!("{error}");
            }
        }
        self.record_reconciled()
    }

    /// Creates the missing folders. A folder appears with its final mode and group, so an existing one is not
    /// checked.
    pub(super) fn make_missing_folders(&self) -> Result<(), OpenError> {
        for folder in FOLDERS {
            if self.root_dir().has(folder)? {
                continue;
            }
            let root = self.root()?.with_making(self.making(folder));
            if !self.is_group() {
                root.ensure_dir(folder)?;
            } else if let Err(error) = make_shared_folder(&root, folder)
                // Another first command may have created it.
                && !root.has(folder)?
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Creates, completes or converts the spool in a folder of ours that others cannot write. Returns the root's
/// lock. `None` for a finished spool: a service that calls `init` at each start does not wait for the lock.
fn make_ready(root: &Dir, gid: Option<u32>) -> Result<Option<Flock>, OpenError> {
    if is_finished(root, gid)? {
        return Ok(None);
    }
    let lock = lock_new(root, gid)?;
    // If two first commands run at once, the second must not see the unfinished spool of the first.
    check_entries(root)?;
    let sharing = match read_settings(root) {
        Ok(None) => make(root, gid)?,
        Ok(Some(stored)) => {
            check_kind(root, stored.sharing, gid)?;
            stored.sharing
        }
        Err(OpenError::Older { .. }) => {
            let sharing = read_older_settings(root)?.sharing;
            check_kind(root, sharing, gid)?;
            if sharing == Sharing::Group {
                check_membership(root.own_stat()?.st_gid)?;
            }
            convert(root)?;
            sharing
        }
        Err(error) => return Err(error),
    };
    if sharing == Sharing::Group {
        mend_modes(root, gid)?;
    }
    Ok(Some(lock))
}

/// Whether there is nothing to create, convert or fix. `init` writes `spool.json` and then sets the modes.
fn is_finished(root: &Dir, gid: Option<u32>) -> Result<bool, OpenError> {
    let Ok(Some(stored)) = read_settings(root) else {
        return Ok(false);
    };
    check_kind(root, stored.sharing, gid)?;
    Ok(match stored.sharing {
        Sharing::Private => true,
        Sharing::Group => are_modes_right(root, gid)?,
    })
}

/// Creates a new spool in an empty folder of ours.
fn make(root: &Dir, gid: Option<u32>) -> Result<Sharing, OpenError> {
    let (sharing, file) = match gid {
        None => (Sharing::Private, OURS_ONLY.file),
        Some(_) => (Sharing::Group, GROUP_READS.file),
    };
    root.set_mode(".", OURS_ONLY.dir)?;
    if let Some(gid) = gid {
        root.set_group(".", gid)?;
        set_mode_wholly(root, ".", GROUP_READS.dir)?;
    }
    let stored = stored_settings(sharing, &Map::new());
    root.replace_durably_as(name::SETTINGS, &to_pretty(&stored), file, gid)?;
    Ok(sharing)
}

/// Takes the root's lock. For a new group spool the access lists that the root has inherited are removed
/// first.
fn lock_new(root: &Dir, gid: Option<u32>) -> Result<Flock, OpenError> {
    if gid.is_some() && !root.has(name::SETTINGS)? {
        root.remove_access_lists()?;
    }
    renew_root_locks(root)?;
    Ok(root_lock(root)?)
}

fn make_shared_folder(root: &Dir, folder: &str) -> Result<(), OpenError> {
    let between = format!(".{folder}.new");
    root.ensure_dir(&between)?.remove_access_lists()?;
    root.set_group(&between, root.own_stat()?.st_gid)?;
    set_mode_wholly(root, &between, folder_mode(Sharing::Group, folder))?;
    let placed = root.rename_new(&between, root, folder);
    if placed.is_err() {
        let _ = root.remove_empty_dir(&between);
    }
    Ok(placed?)
}

/// Refuses a group to which this user cannot give files.
fn check_membership(gid: u32) -> Result<(), OpenError> {
    let is_ours = rustix::process::geteuid().is_root()
        || rustix::process::getegid().as_raw() == gid
        || rustix::process::getgroups()
            .is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == gid));
    if is_ours {
        Ok(())
    } else {
        Err(OpenError::NotInGroup { gid })
    }
}

/// Refuses to change the kind or group of a spool. If its root and `spool.json` have different groups, as
/// after a restore, either group is accepted.
fn check_kind(root: &Dir, sharing: Sharing, gid: Option<u32>) -> Result<(), OpenError> {
    let Some(wanted) = gid else { return Ok(()) };
    let has = root.own_stat()?.st_gid;
    let kind = match sharing {
        Sharing::Private => "a private spool".to_owned(),
        Sharing::Group if has != wanted && group_of(root)? != wanted => {
            format!("a spool of group {has}")
        }
        Sharing::Group => return Ok(()),
    };
    Err(OpenError::OtherKind {
        path: root.path().to_owned(),
        kind,
        wanted,
    })
}

fn check_owner(root: &Dir) -> Result<(), OpenError> {
    let owner = root.own_stat()?.st_uid;
    let us = rustix::process::geteuid().as_raw();
    if owner == us {
        return Ok(());
    }
    Err(OpenError::Foreign {
        path: root.path().to_owned(),
        owner,
        us,
    })
}

/// Closes an empty folder that others can write. If they put something into it before it is closed, it stays
/// closed and is refused, also by the next `init`.
fn close_if_empty(root: &Dir) -> Result<(), OpenError> {
    if !is_open(&root.own_stat()?) {
        return Ok(());
    }
    root.set_mode(".", CLOSED)?;
    if !root.is_empty()? {
        let path = root.path().to_owned();
        return Err(OpenError::OpenToOthers { path });
    }
    root.set_mode(".", OURS_ONLY.dir)?;
    Ok(())
}

/// Refuses four kinds of folders: a folder that has other things in it than a spool or an unfinished spool; a
/// folder in which one of our files belongs to another user; a group spool in which others can write; any
/// other folder that others can write, unless it is empty.
fn check_entries(root: &Dir) -> Result<(), OpenError> {
    let (sharing, passed) = match read_settings(root) {
        Err(OpenError::Older { .. }) => {
            (Some(read_older_settings(root)?.sharing), &OPEN_FOLDERS[..])
        }
        stored => (stored.ok().flatten().map(|stored| stored.sharing), &[][..]),
    };
    if let Some(sharing) = sharing
        && let Some(breach) = find_breach(root, sharing, passed)?
    {
        return Err(breach.into());
    }
    for file in UNFINISHED.into_iter().chain([name::SETTINGS]) {
        check_file(root, file)?;
    }
    if is_open(&root.own_stat()?) && !root.is_empty()? {
        let path = root.path().to_owned();
        return Err(OpenError::OpenToOthers { path });
    }
    if !root.has(name::SETTINGS)?
        && let Some(error) = not_for_a_spool(root)?
    {
        return Err(error);
    }
    Ok(())
}

fn check_file(root: &Dir, file: &str) -> Result<(), OpenError> {
    let us = rustix::process::geteuid().as_raw();
    match root.stat(file)? {
        Some(stat) if stat.st_uid != us => Err(OpenError::Planted {
            path: root.path_of(file),
            owner: stat.st_uid,
        }),
        _ => Ok(()),
    }
}

/// Creates the folder and the missing folders above it.
fn make_parents(path: &Path) -> IoResult<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| IoError::new("create the folder", path, source))
}
