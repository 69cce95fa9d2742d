//! Why a folder cannot be used as a spool.
//!
//! Not when each of these is raised (the other files of this room). Invariant: every message names the folder
//! or file, and says what to do about it where something can be done.

use std::path::PathBuf;

use crate::spool::disk::IoError;
use crate::spool::layout::name;
use crate::task::{SPOOL_VERSION, escape_path};

/// Why a folder cannot be used as a spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such folder, or no `spool.json` in it.
    #[error("{} is no spool (there is no {} in it)", path.display(), name::SETTINGS)]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// It was one, and its settings file is gone.
    #[error(
        "{} is a spool without its {}: restore that file, or make it anew with {{\"v\": {SPOOL_VERSION}}} in it, or with {{\"v\": {SPOOL_VERSION}, \"shared\": true}} where a group shares the spool",
        escape_path(path),
        name::SETTINGS
    )]
    SettingsLost {
        /// The folder.
        path: PathBuf,
    },
    /// A folder with other things in it.
    #[error("{} is not empty and no spool: choose a new folder", escape_path(path))]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Made by an earlier program.
    #[error(
        "{} has format version 1, and this program works with version {SPOOL_VERSION}",
        escape_path(path)
    )]
    Older {
        /// The settings file.
        path: PathBuf,
    },
    /// A watcher or a task is at work while `init` is to make the spool's folders anew.
    #[error(
        "the folders of {} cannot be made anew while {by} runs",
        escape_path(path)
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// `a watcher`, or the task's id.
        by: String,
    },
    /// Made by a later program.
    #[error(
        "{} has format version {version}, and this program knows only {SPOOL_VERSION}: use a newer agentspool",
        escape_path(path)
    )]
    Newer {
        /// The settings file.
        path: PathBuf,
        /// What it says.
        version: u64,
    },
    /// The settings file cannot be understood.
    #[error("cannot use {}: {problem}", escape_path(path))]
    Settings {
        /// The settings file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, and this is user {us}: run the command as that user",
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
    /// Something that counts in the folder is another user's.
    #[error(
        "{} belongs to user {owner}, and only what is this user's is used: see what it is, remove it or `chown` it, and run `init` again",
        escape_path(path)
    )]
    Planted {
        /// What it is.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
    },
    /// Others could have put there what is in it.
    #[error(
        "{} is writable for others and not empty: make a new folder",
        escape_path(path)
    )]
    OpenToOthers {
        /// The folder.
        path: PathBuf,
    },
    /// A folder of the spool's that `init` is to make anew has something mounted on it.
    #[error(
        "cannot make {} anew, because something is mounted on it: unmount it (`umount`, as root where another user mounted it), and run `init` again",
        escape_path(path)
    )]
    Mounted {
        /// The folder.
        path: PathBuf,
    },
    /// It is a spool already, and not of the kind that was asked for.
    #[error(
        "{} is {kind}, and cannot become one of group {wanted}: leave out --group to use it as it is, or choose a new folder",
        escape_path(path)
    )]
    OtherKind {
        /// The folder.
        path: PathBuf,
        /// What it is.
        kind: String,
        /// The group that was asked for.
        wanted: u32,
    },
    /// Files cannot be given to a group that one is not in.
    #[error(
        "this user is not in group {gid}, so nothing can be shared with it: put the user into the group, log in again, and run `init` again"
    )]
    NotInGroup {
        /// The group.
        gid: u32,
    },
    /// Locks on this file system may not be seen by other machines.
    #[error(
        "{} is on a network file system ({kind}), where locks may not hold: move the spool to a local disk, or set \"allow_network_fs\": true in spool.json if only one machine ever uses it",
        escape_path(path)
    )]
    Network {
        /// The folder.
        path: PathBuf,
        /// Its kind.
        kind: &'static str,
    },
    /// Its path cannot be written into files, which are UTF-8, nor be given to recipes in them.
    #[error(
        "cannot use {path:?} as a spool: its path is not UTF-8 text; rename the folder or choose another one"
    )]
    NotText {
        /// The folder.
        path: PathBuf,
    },
    /// Nobody has such a group.
    #[error("no group is called {0}")]
    NoGroup(String),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}
