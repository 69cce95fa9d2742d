//! Whether other users can write in a group spool: in its root, and in the folders and files of the root.
//!
//! Not modes that only give too little, or that only let others read (`modes.rs`), and not what is in those
//! folders. Invariants: nothing is changed. Nothing that others could write is trusted afterwards, so `init`,
//! a watcher and each command that writes refuse such a spool.

use std::path::PathBuf;

use rustix::fs::{FileType, Mode, Stat};

use super::error::OpenError;
use super::modes::{entries, group_of};
use super::spool::Spool;
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::{CLOSED, Sharing, WRITABLE, name};
use crate::task::escape_path;

/// How other users can write in a group spool.
#[derive(Clone, Debug)]
pub struct Breach {
    path: PathBuf,
    why: String,
    spool: PathBuf,
    gid: u32,
}

impl Breach {
    /// The first path that others can write, and why.
    pub fn problem(&self) -> String {
        format!("{} {}", escape_path(&self.path), self.why)
    }

    /// What the owner can do.
    pub fn fix(&self) -> String {
        format!(
            "create a new spool in a new folder with `agentspool init NEW --group {}`, copy the recipes and results that you trust there, and remove {}",
            self.gid,
            escape_path(&self.spool)
        )
    }
}

/// Whether others can write in a folder. A folder that an interrupted `init` closed counts too.
pub(super) fn is_open(stat: &Stat) -> bool {
    stat.st_mode & WRITABLE != 0 || stat.st_mode & 0o7777 == CLOSED.as_raw_mode()
}

/// The first entry of a group spool that others can write, without the entries in `passed`.
///
/// Whoever can write `spool.json` can turn a group spool into a private one, but cannot remove the
/// set-group-id bit of the root. So with that bit, the root and `spool.json` of a private spool are checked.
pub(super) fn find_breach(
    root: &Dir,
    sharing: Sharing,
    passed: &[&str],
) -> IoResult<Option<Breach>> {
    let own = root.own_stat()?;
    let is_private = sharing == Sharing::Private;
    if is_private && !Mode::from_raw_mode(own.st_mode).contains(Mode::SGID) {
        return Ok(None);
    }
    let gid = group_of(root)?;
    let names = entries().map(|entry| entry.name).chain([name::SWEEP]);
    let is_checked = |entry: &&str| match is_private {
        true => [".", name::SETTINGS].contains(entry),
        false => !passed.contains(entry),
    };
    for entry in names.filter(is_checked) {
        let Some(stat) = root.stat(entry)? else {
            continue;
        };
        let why = if entry == name::INCOMING {
            problem_of_box(root, &stat, &own, gid)
        } else {
            problem(&stat, &own)
        };
        if let Some(why) = why {
            let spool = root.path().to_owned();
            let path = match entry {
                "." => spool.clone(),
                entry => root.path_of(entry),
            };
            return Ok(Some(Breach {
                path,
                why,
                spool,
                gid,
            }));
        }
    }
    Ok(None)
}

fn problem(stat: &Stat, own: &Stat) -> Option<String> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    // The mode of a link has no effect. `recipes` may be one, and each recipe is checked before it is run.
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    if stat.st_uid != own.st_uid && stat.st_uid != 0 {
        Some(format!("belongs to user {}", stat.st_uid))
    } else if is_link || !is_open(stat) {
        None
    } else if mode.contains(Mode::WOTH) {
        Some("can be written by anybody".to_owned())
    } else if mode.contains(Mode::WGRP) {
        // An access list shows in the group's bits.
        let gid = stat.st_gid;
        Some(format!(
            "can be written by group {gid} or by users in an access list"
        ))
    } else {
        Some("could be written by others before an `init` closed it".to_owned())
    }
}

/// The group may write in the drop box. Its users must not be able to remove each other's files.
fn problem_of_box(root: &Dir, stat: &Stat, own: &Stat, gid: u32) -> Option<String> {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let for_group = mode.contains(Mode::WGRP) && !mode.contains(Mode::WOTH);
    if !for_group || stat.st_uid != own.st_uid {
        problem(stat, own)
    } else if !mode.contains(Mode::SVTX) {
        Some("is not sticky, so its users can remove each other's files".to_owned())
    } else if ![own.st_gid, gid].contains(&stat.st_gid) {
        Some(format!("can be written by group {}", stat.st_gid))
    } else {
        let has_list = root
            .open_dir(name::INCOMING)
            .is_ok_and(|incoming| incoming.has_access_list());
        has_list.then(|| "has an access list".to_owned())
    }
}

impl Spool {
    /// How other users can write in it, if they can and it is a group spool of this user.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn breach(&self) -> IoResult<Option<Breach>> {
        match self.is_owner {
            true => find_breach(self.root_dir(), self.sharing, &[]),
            false => Ok(None),
        }
    }

    /// Refuses a group spool of this user in which others can write.
    pub(super) fn refuse_breach(&self) -> Result<(), OpenError> {
        self.breach()?.map_or(Ok(()), |breach| Err(breach.into()))
    }
}
