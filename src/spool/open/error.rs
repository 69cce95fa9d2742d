//! Why a folder cannot be used as a spool.
//!
//! Not when each of these occurs (the other files of this module). Invariant: every message names the folder
//! or file, and what to do, if something can be done.

use std::path::PathBuf;

use super::breach::Breach;
use crate::spool::disk::IoError;
use crate::spool::layout::name;
use crate::task::{SPOOL_VERSION, escape_path};

/// Why a folder cannot be used as a spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder does not exist, or it has no `spool.json`.
    #[error("{} is not a spool (it does not contain {})", path.display(), name::SETTINGS)]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was a spool, and its settings file is gone.
    #[error(
        "{} is a spool whose {} is missing: restore that file, or create it with {{\"v\": {SPOOL_VERSION}}} in it, or with {{\"v\": {SPOOL_VERSION}, \"shared\": true}} if a group shares the spool",
        escape_path(path),
        name::SETTINGS
    )]
    SettingsLost {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has other things in it.
    #[error(
        "{} is not empty and not a spool: choose a new folder",
        escape_path(path)
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Created by an older program.
    #[error(
        "{} has format version 1, and this program works with version {SPOOL_VERSION}",
        escape_path(path)
    )]
    Older {
        /// The settings file.
        path: PathBuf,
    },
    /// A watcher or a task is running while `init` should create the spool's folders again.
    #[error(
        "cannot create the folders of {} again, because it is in use by {by}",
        escape_path(path)
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// What is running: a watcher, a task, or a command that starts a watcher, with its process.
        by: String,
    },
    /// Created by a newer program.
    #[error(
        "{} has format version {version}, and this program knows only {SPOOL_VERSION}: use a newer agentspool",
        escape_path(path)
    )]
    Newer {
        /// The settings file.
        path: PathBuf,
        /// The version in it.
        version: u64,
    },
    /// The settings file cannot be understood.
    #[error("cannot use {}: {problem}", escape_path(path))]
    Settings {
        /// The settings file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The setting in the file that cannot be used, if it is only one.
        setting: Option<String>,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, and the command runs as user {us}: run it as user {owner}",
        escape_path(path)
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// Ours.
        us: u32,
    },
    /// A file of the spool belongs to another user.
    #[error(
        "{} belongs to user {owner}, and only files of the current user are used: check what it is, remove it or `chown` it, and run `init` again",
        escape_path(path)
    )]
    Planted {
        /// The file.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// Other users could have put its content there.
    #[error(
        "{} can be written by others and is not empty: choose a new folder",
        escape_path(path)
    )]
    OpenToOthers {
        /// The folder.
        path: PathBuf,
    },
    /// Other users can write in a group spool where they must not.
    #[error("{}, so nothing in this group spool can be trusted: {}", .0.problem(), .0.fix())]
    Breach(Box<Breach>),
    /// Something is mounted on a folder that `init` should create again.
    #[error(
        "cannot create {} again, because something is mounted on it: unmount it (`umount`, as root if another user mounted it), and run `init` again",
        escape_path(path)
    )]
    Mounted {
        /// The folder.
        path: PathBuf,
    },
    /// It is a spool already, and not of the requested kind.
    #[error(
        "{} is {kind}, and cannot become a spool of group {wanted}: leave out --group to use it as it is, or choose a new folder",
        escape_path(path)
    )]
    OtherKind {
        /// The folder.
        path: PathBuf,
        /// What it is.
        kind: String,
        /// The requested group.
        wanted: u32,
    },
    /// A user cannot give files to a group without being in it.
    #[error(
        "the current user is not in group {gid}, so nothing can be shared with it: add the user to the group, log in again, and run `init` again"
    )]
    NotInGroup {
        /// The group.
        gid: u32,
    },
    /// Other machines may not see locks on this file system.
    #[error(
        "{} is on a network file system ({kind}), where locks may not work: move the spool to a local disk, or set \"allow_network_fs\": true in spool.json if only one machine ever uses it",
        escape_path(path)
    )]
    Network {
        /// The folder.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// Its path is not UTF-8, so it cannot be written into the spool's files.
    #[error(
        "cannot use {path:?} as a spool, because its path is not UTF-8 text: rename the folder or choose another one"
    )]
    NotText {
        /// The folder.
        path: PathBuf,
    },
    /// The group does not exist.
    #[error("there is no group {0}")]
    NoGroup(String),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl From<Breach> for OpenError {
    fn from(breach: Breach) -> OpenError {
        OpenError::Breach(Box::new(breach))
    }
}
