//! The modes, groups and access lists of a group spool's root, and of the folders and files in it.
//!
//! What they should be, which ones are wrong, and how `init` sets them. Not the content of those folders, nor
//! modes that let others write (`breach.rs`).
//! Invariants: one list is used for checking and for setting. What does not belong to the owner is never
//! changed.

use std::path::PathBuf;

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;

use super::error::OpenError;
use super::spool::Spool;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::{FOLDERS, GROUP_READS, OURS_ONLY, Sharing, WRITABLE, folder_mode, name};

/// All bits of a mode.
const ALL: u32 = 0o7777;
/// Mode bits a folder needs so that its group can read it.
const OPEN_FOR_GROUP: u32 = 0o050;
/// Mode bits a folder needs so that other users can read it.
const OPEN_FOR_OTHERS: u32 = 0o005;

/// Something in the root of a spool that is not as `init` creates it.
#[derive(Clone, Debug)]
pub struct Strayed {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// Whether `init` can fix it: it belongs to the owner and can be opened.
    pub can_be_set: bool,
}

/// An entry of the root and its mode. The group of a lock does not matter, because it has no permissions.
pub(super) struct Entry {
    pub name: &'static str,
    mode: Mode,
    kind: FileType,
}

pub(super) fn entries() -> impl Iterator<Item = Entry> {
    let file = |name, mode| Entry {
        name,
        mode,
        kind: FileType::RegularFile,
    };
    let readable = [name::SETTINGS, name::IDENTITY].map(|entry| file(entry, GROUP_READS.file));
    let locks = [name::ROOT_LOCK, name::NAMES_LOCK, name::SWEEP_LOCK];
    let locks = locks.map(|entry| file(entry, OURS_ONLY.file));
    let folder = |name, mode| Entry {
        name,
        mode,
        kind: FileType::Directory,
    };
    let folders = FOLDERS.map(|entry| folder(entry, folder_mode(Sharing::Group, entry)));
    let root = [folder(".", GROUP_READS.dir)];
    root.into_iter().chain(folders).chain(readable).chain(locks)
}

impl Entry {
    fn has_right_mode(&self, stat: &Stat) -> bool {
        let mode = stat.st_mode & ALL;
        if self.name == name::RECIPES {
            // The owner may choose a stricter mode, and the folder may be mounted read-only from elsewhere.
            let opens = [OPEN_FOR_GROUP, OPEN_FOR_OTHERS];
            return mode & WRITABLE == 0 && opens.iter().any(|open| mode & open == *open);
        }
        mode == self.mode.as_raw_mode()
    }

    fn has_right_group(&self, stat: &Stat, gid: u32) -> bool {
        let is_for_all =
            self.name == name::RECIPES && stat.st_mode & OPEN_FOR_OTHERS == OPEN_FOR_OTHERS;
        let is_lock = self.mode == OURS_ONLY.file;
        stat.st_gid == gid || is_for_all || is_lock
    }

    /// The access list of recipes is not checked: what it allows shows in the mode.
    fn has_list_that_counts(&self, dir: &Dir) -> bool {
        self.name != name::RECIPES && dir.has_access_list()
    }

    fn problem(&self, stat: &Stat, owner: u32, gid: u32) -> Option<String> {
        if stat.st_uid != owner && self.name != name::RECIPES {
            Some(format!(
                "belongs to user {}, and the spool belongs to user {owner}",
                stat.st_uid
            ))
        } else if !self.has_right_group(stat, gid) {
            Some(format!(
                "belongs to group {}, and spool.json belongs to group {gid}",
                stat.st_gid
            ))
        } else if !self.has_right_mode(stat) {
            let (has, wanted) = (stat.st_mode & ALL, self.mode.as_raw_mode());
            Some(format!("has mode {has:04o} instead of {wanted:04o}"))
        } else {
            None
        }
    }
}

impl Spool {
    /// The folders of the root that cannot be opened. In a group spool also the folders and files whose
    /// owner, group, mode or access list is not as `init` sets it. Only the owner can see all of them.
    ///
    /// # Errors
    /// The root cannot be read.
    pub fn strayed(&self) -> IoResult<Vec<Strayed>> {
        let root = self.root_dir();
        let (own, gid) = (root.own_stat()?, group_of(root)?);
        let mut strayed = Vec::new();
        for entry in entries() {
            let Some(stat) = root.stat(entry.name)? else {
                continue;
            };
            if entry.name == name::RECIPES && is_link(&stat) {
                // Who can change its target is checked for each recipe.
                continue;
            }
            let mut add = |problem, can_be_set| {
                let path = match entry.name {
                    "." => root.path().to_owned(),
                    name => root.path_of(name),
                };
                strayed.push(Strayed {
                    path,
                    problem,
                    can_be_set,
                });
            };
            let is_ours = stat.st_uid == own.st_uid;
            let problem = self
                .is_group()
                .then(|| entry.problem(&stat, own.st_uid, gid));
            if let Some(problem) = problem.flatten() {
                add(problem, is_ours);
            } else if entry.kind == FileType::Directory {
                match root.open_dir(entry.name) {
                    Err(error) => add(format!("cannot be opened: {error}"), false),
                    Ok(dir) if self.is_group() && entry.has_list_that_counts(&dir) => {
                        add("has an access list".to_owned(), is_ours);
                    }
                    Ok(_) => {}
                }
            }
        }
        Ok(strayed)
    }
}

/// The group of a group spool: the one that `init --group` gave to `spool.json`.
pub(super) fn group_of(root: &Dir) -> IoResult<u32> {
    let settings = root.stat(name::SETTINGS)?;
    settings.map_or_else(|| Ok(root.own_stat()?.st_gid), |stat| Ok(stat.st_gid))
}

/// An entry to fix, and the group to give it, if its group is wrong.
type ToSet = (Entry, Option<u32>);

/// Gives the root of a group spool, and its folders and files, the modes of the layout and the group `gid`.
/// Without `gid` the group of `spool.json` is used if the root has it too. Otherwise the groups are not
/// changed, because only a person knows which of the two is right.
pub(super) fn mend_modes(root: &Dir, gid: Option<u32>) -> Result<(), OpenError> {
    for (entry, gid) in wrong_modes(root, gid)? {
        match fix(root, &entry, gid) {
            // Recipes may be mounted read-only.
            Err(OpenError::Io(error))
                if entry.name == name::RECIPES
                    && matches!(error.errno(), Some(Errno::ROFS | Errno::PERM)) => {}
            fixed => fixed?,
        }
    }
    Ok(())
}

/// Whether [`mend_modes`] would find nothing to do.
pub(super) fn are_modes_right(root: &Dir, gid: Option<u32>) -> IoResult<bool> {
    Ok(wrong_modes(root, gid)?.is_empty())
}

fn wrong_modes(root: &Dir, gid: Option<u32>) -> IoResult<Vec<ToSet>> {
    let known = group_of(root)?;
    let is_sure = root.own_stat()?.st_gid == known;
    let gid = gid.or_else(|| is_sure.then_some(known));
    let us = rustix::process::geteuid().as_raw();
    let mut wrong = Vec::new();
    for entry in entries() {
        let Some(stat) = root.stat(entry.name)? else {
            continue;
        };
        let is_of_kind = FileType::from_raw_mode(stat.st_mode) == entry.kind;
        // `doctor` reports what is not ours.
        if stat.st_uid != us || !is_of_kind {
            continue;
        }
        let has_group = gid.is_none_or(|gid| entry.has_right_group(&stat, gid));
        let is_right = has_group && entry.has_right_mode(&stat);
        if is_right && entry.kind != FileType::Directory {
            continue;
        }
        let has_list = entry.kind == FileType::Directory
            && entry.has_list_that_counts(&root.open_dir(entry.name)?);
        if !is_right || has_list {
            wrong.push((entry, gid.filter(|_| !has_group)));
        }
    }
    Ok(wrong)
}

fn fix(root: &Dir, entry: &Entry, gid: Option<u32>) -> Result<(), OpenError> {
    if entry.kind == FileType::Directory {
        root.open_dir(entry.name)?.remove_access_lists()?;
    }
    if let Some(gid) = gid {
        root.set_group(entry.name, gid)?;
    }
    set_mode_wholly(root, entry.name, entry.mode)
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// Sets a mode and checks that it is set: the kernel silently drops the set-group-id bit if the caller is not
/// in the file's group.
pub(super) fn set_mode_wholly(dir: &Dir, entry: &str, mode: Mode) -> Result<(), OpenError> {
    dir.set_mode(entry, mode)?;
    match dir.stat(entry)? {
        Some(stat) if stat.st_mode & ALL != mode.as_raw_mode() => {
            Err(OpenError::NotInGroup { gid: stat.st_gid })
        }
        Some(_) => Ok(()),
        None => Err(IoError::new("set the mode of", dir.path_of(entry), Errno::NOENT).into()),
    }
}
