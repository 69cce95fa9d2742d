//! What lies where in a spool, and how one is opened.
//!
//! Every name of a file or folder in a spool is written down here and nowhere else. Not here: what
//! is in them, and how a spool is made (`init.rs`). Invariant: a [`Spool`] value is a folder of this layout, of a version this program
//! knows, on a file system whose locks count, owned by us or shared with us through its group.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use serde::Serialize;
use serde_json::{Map, Value};

use super::disk::{
    Dir, Flock, IoError, IoResult, Making, absent_is_none, network_kind, random_bits,
};
use super::events::EventLog;
use super::identity::Identity;
use super::settings_file::{Stamp, StoredSettings, read_settings, settings_of, stored_settings};
use crate::config::{Durability, Overrides, Settings};
use crate::task::{IdSequence, SPOOL_VERSION, TaskId, escape_path};

/// The names in a spool's root.
pub(super) mod name {
    pub const SETTINGS: &str = "spool.json";
    pub const IDENTITY: &str = "identity.json";
    pub const PAUSED: &str = "paused";
    pub const SWEEP: &str = "sweep.json";
    pub const SWEEP_LOCK: &str = "sweep.lock";
    /// Locked while a file of the root is made or replaced.
    pub const ROOT_LOCK: &str = "spool.lock";
    /// Locked while a link in `names/` is compared and moved.
    pub const NAMES_LOCK: &str = "names.lock";
    pub const INCOMING: &str = "incoming";
    pub const TASKS: &str = "tasks";
    pub const NAMES: &str = "names";
    pub const SESSIONS: &str = "sessions";
    pub const OPEN: &str = "open";
    pub const STAGING: &str = "staging";
    pub const TRASH: &str = "trash";
    pub const REJECTED: &str = "rejected";
    pub const SLOTS: &str = "slots";
    pub const WATCHERS: &str = "watchers";
    pub const RECIPES: &str = "recipes";
    pub const EVENTS: &str = "events";

    // In a task's folder.
    pub const REQUEST: &str = "request.json";
    pub const STATUS: &str = "status.json";
    pub const RESULT: &str = "result.json";
    pub const CANCEL: &str = "cancel";
    pub const LOCK: &str = "lock";
    pub const ORIGIN: &str = "origin.json";
    /// In a group spool, made and locked by a reader of the owner's who wants the task kept.
    pub const READERS: &str = "readers";
    pub const ENVIRONMENT: &str = "env.json";
    /// The bytes of `submit --attach`.
    pub const ATTACHMENT: &str = "attachment";
    pub const ATTEMPTS: &str = "attempts";

    // In a session's folder.
    pub const QUEUE: &str = "queue";
    pub const STATE: &str = "state";
}

/// The root's folders.
pub(super) const FOLDERS: [&str; 12] = [
    name::INCOMING,
    name::TASKS,
    name::NAMES,
    name::SESSIONS,
    name::OPEN,
    name::STAGING,
    name::TRASH,
    name::REJECTED,
    name::SLOTS,
    name::WATCHERS,
    name::RECIPES,
    name::EVENTS,
];

/// Larger than any settings or status file we write by hand or by program.
pub(super) const SMALL_FILE: usize = 4 << 20;

pub(super) const OURS_ONLY: Making = Making {
    file: Mode::from_bits_retain(0o600),
    dir: Mode::from_bits_retain(0o700),
    sync: true,
};
/// The owner writes, the group reads.
pub(super) const GROUP_READS: Making = Making {
    file: Mode::from_bits_retain(0o640),
    dir: Mode::from_bits_retain(0o2750),
    sync: true,
};
/// The one place that the group may write: its users put files in, but neither list them nor remove
/// those of others.
pub(super) const DROP_BOX: Mode = Mode::from_bits_retain(0o3730);

/// Mode bits by which others than the owner can write. An access list shows in the group's.
pub(super) const WRITABLE: u32 = 0o022;

/// Who may use a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Private,
    Group,
}

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
    /// An earlier program is at work while the spool is to be converted.
    #[error(
        "{} cannot be converted to version {SPOOL_VERSION} while {by} runs",
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

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    root: Dir,
    uuid: String,
    file: Map<String, Value>,
    /// Of the file that `file` was read from; `None` where it may have changed under the reading.
    stamp: Option<Stamp>,
    overrides: Overrides,
    settings: Settings,
    sharing: Sharing,
    is_owner: bool,
    ids: std::sync::Mutex<IdSequence>,
    events: EventLog,
}

impl Spool {
    /// Opens a spool. Folders that are missing (git and some backups keep no empty ones) are made
    /// when we own it.
    pub fn open(path: &Path, overrides: Overrides) -> Result<Spool, OpenError> {
        let (mut spool, known) = Spool::open_and_read(path, overrides)?;
        if spool.is_owner {
            spool.make_missing_folders()?;
            spool.check_box()?;
            spool.uuid = spool.ensure_identity(known)?.uuid;
        } else if spool.uuid.is_empty() {
            let identity = spool.identity()?.ok_or_else(|| OpenError::Absent {
                path: spool.path().to_owned(),
            })?;
            spool.uuid = identity.uuid;
        }
        Ok(spool)
    }

    /// Opens a spool and makes nothing: for those who only look. What is missing may be missing.
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
        // Everything below is told to people and to recipes as a path that works from anywhere.
        let path = &std::path::absolute(path).map_err(|_| absent())?;
        check_path(path)?;
        let root = absent_is_none(Dir::open(path, OURS_ONLY))?.ok_or_else(absent)?;
        let StoredSettings {
            sharing,
            settings: file,
        } = match read_settings(&root)? {
            Some(stored) => stored,
            None => return Err(lost_settings(&root)?.unwrap_or_else(absent)),
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

    pub(super) fn event_log(&self) -> &EventLog {
        &self.events
    }

    /// The right to replace a file of the root; one process at a time has it.
    pub(super) fn lock_root(&self) -> IoResult<Flock> {
        root_lock(&self.root)
    }

    /// Reads `spool.json` again, if it is another one than before. On an error the old settings stay
    /// in force.
    pub fn reload(&mut self) -> Result<bool, OpenError> {
        let stamp = Stamp::of(&self.root)?;
        if stamp.is_some() && stamp == self.stamp {
            return Ok(false);
        }
        let StoredSettings { settings: file, .. } =
            read_settings(&self.root)?.ok_or_else(|| OpenError::Absent {
                path: self.path().to_owned(),
            })?;
        let is_other = file != self.file;
        if is_other {
            self.settings = settings_of(&self.root, &file, &self.overrides)?;
            self.file = file;
        }
        self.stamp = stamp;
        Ok(is_other)
    }

    /// Writes one setting into `spool.json`; `None` takes it out again.
    pub fn set(&mut self, key: &str, value: Option<Value>) -> Result<(), OpenError> {
        // Two writers at once must not lose each other's setting.
        let _lock = root_lock(&self.root)?;
        self.reload()?;
        let mut file = self.file.clone();
        match value {
            Some(value) => file.insert(key.to_owned(), value),
            None => file.remove(key),
        };
        let settings = settings_of(&self.root, &file, &self.overrides)?;
        let stored = stored_settings(self.sharing, &file);
        let bytes = pretty(&stored);
        if bytes.len() > SMALL_FILE {
            let problem = format!(
                "with this value it would have {} bytes, and at most {SMALL_FILE} are read; it is left as it was",
                bytes.len()
            );
            let path = self.root.path_of(name::SETTINGS);
            return Err(OpenError::Settings { path, problem });
        }
        self.root()?.replace_durably(name::SETTINGS, &bytes)?;
        (self.file, self.settings) = (file, settings);
        Ok(())
    }

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

    /// Opens one of the root's folders.
    pub(super) fn folder(&self, folder: &'static str) -> IoResult<Dir> {
        Ok(self.root.open_dir(folder)?.with_making(self.making(folder)))
    }

    /// The root itself, for the few files in it. Not by its path, which may lead elsewhere by now.
    pub(super) fn root(&self) -> IoResult<Dir> {
        let root = self.root.open_dir(".")?.moved_to(self.path().to_owned());
        Ok(root.with_making(self.making(name::SETTINGS)))
    }

    /// The same to read in.
    pub(super) fn root_dir(&self) -> &Dir {
        &self.root
    }

    /// How things in a folder of this spool are made.
    pub(super) fn making(&self, folder: &str) -> Making {
        let sync = self.settings.durability == Durability::Power;
        Making {
            sync,
            ..making_in(self.sharing, folder)
        }
    }

    /// How the files of an attempt are made: the owner's to write, the group's to read.
    pub(super) fn attempt_making(&self) -> Making {
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

/// The error for a folder without settings that was a spool.
pub(super) fn lost_settings(root: &Dir) -> IoResult<Option<OpenError>> {
    let was_spool = root.has(name::IDENTITY)? && root.has(name::TASKS)?;
    Ok(was_spool.then(|| OpenError::SettingsLost {
        path: root.path().to_owned(),
    }))
}

/// How things in a folder of such a spool are made.
fn making_in(sharing: Sharing, folder: &str) -> Making {
    match (sharing, folder) {
        (Sharing::Private, _) => OURS_ONLY,
        // What is locked in them a user of the group must not be able to open.
        (Sharing::Group, name::SLOTS | name::SESSIONS) => OURS_ONLY,
        (Sharing::Group, name::WATCHERS) => Making {
            file: OURS_ONLY.file,
            ..GROUP_READS
        },
        (Sharing::Group, _) => GROUP_READS,
    }
}

/// The mode of one of the root's folders.
pub(super) fn folder_mode(sharing: Sharing, folder: &str) -> Mode {
    if sharing == Sharing::Group && folder == name::INCOMING {
        DROP_BOX
    } else {
        making_in(sharing, folder).dir
    }
}

pub(super) fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// How long to wait for another command that makes or replaces a file of the root.
const ROOT_PATIENCE: Duration = Duration::from_secs(10);

/// The right to make or replace a file of the root: one process at a time has it, until the file is
/// closed.
pub(super) fn root_lock(root: &Dir) -> IoResult<Flock> {
    let path = || root.path_of(name::ROOT_LOCK);
    let busy = || IoError::new("lock", path(), std::io::ErrorKind::WouldBlock);
    root.lock_within(name::ROOT_LOCK, ROOT_PATIENCE)?
        .ok_or_else(busy)
}

/// Refuses a path that is not text, also where only the current folder's part of it is not.
pub(super) fn check_path(path: &Path) -> Result<(), OpenError> {
    let is_text = std::path::absolute(path).is_ok_and(|path| path.to_str().is_some());
    if is_text {
        return Ok(());
    }
    Err(OpenError::NotText {
        path: path.to_owned(),
    })
}

/// Network file systems by their magic numbers in statfs(2). 9p and virtiofs (FUSE) are not
/// refused: a virtual machine's own shared folder is used by one machine, and flock holds there.
fn refuse_network(root: &Dir) -> Result<(), OpenError> {
    let stat = rustix::fs::fstatfs(root)
        .map_err(|errno| IoError::new("look at the file system of", root.path(), errno))?;
    match network_kind(stat.f_type as u32) {
        Some(kind) => Err(OpenError::Network {
            path: root.path().to_owned(),
            kind,
        }),
        None => Ok(()),
    }
}

/// The number of a group by its name, from `/etc/group`.
pub fn group_id(name: &str) -> Result<u32, OpenError> {
    match name.parse() {
        // To the kernel it means: leave the group as it is.
        Ok(u32::MAX) => return Err(OpenError::NoGroup(name.to_owned())),
        Ok(gid) => return Ok(gid),
        Err(_) => {}
    }
    let table = crate::proc::read_text("/etc/group").unwrap_or_default();
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| OpenError::NoGroup(name.to_owned()))
}
