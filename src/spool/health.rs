//! Checks whether a spool can do what it must, without changing it.
//!
//! Facts only: `cli/doctor` judges them and gives the advice. Invariant: nothing is created except a probe,
//! and the probe is removed again.

use std::io::Write;
use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, StatxFlags};
use rustix::io::Errno;

use super::disk::{Dir, IoError, IoResult, LockLevel, local_kind, network_kind, random_bits};
use super::layout::{FOLDERS, name};
use super::open::Spool;
use super::tasks::shown;
use crate::proc;
use crate::task::{Condition, TaskId};

/// The file system below a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its kind, such as `ext4`. If the kind is not known: its number in hexadecimal.
    pub kind: String,
    /// Whether it is a network file system.
    pub is_network: bool,
    /// Whether a power cut or a boot empties it.
    pub is_volatile: bool,
    /// Whether it is mounted read-only.
    pub is_read_only: bool,
}

impl Spool {
    /// Creates, locks, syncs and renames files in `staging/`, and removes them again.
    ///
    /// # Errors
    /// The first thing that does not work as the protocol needs it.
    pub fn probe(&self) -> IoResult<()> {
        let staging = self.folder(name::STAGING)?;
        let probe = format!("{}{:016x}", name::PROBE_PREFIX, random_bits() as u64);
        let folder = staging.make_dir(&probe)?;
        let tried = try_out(&folder);
        let removed = staging.remove_tree(&probe);
        tried.and(removed.map(|_| ()))
    }

    /// Whether this user may put files into the drop box.
    pub fn may_drop(&self) -> IoResult<bool> {
        let root = self.root()?;
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(&root, name::INCOMING, wanted, AtFlags::EACCESS) {
            Ok(()) => Ok(true),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(false),
            Err(errno) => Err(IoError::new("check", root.path_of(name::INCOMING), errno)),
        }
    }

    /// The file system of the root.
    pub fn file_system(&self) -> IoResult<FileSystem> {
        let root = self.root()?;
        let failed = |errno| IoError::new("check the file system of", self.path(), errno);
        let stat = rustix::fs::fstatfs(&root).map_err(failed)?;
        let flags = rustix::fs::fstatvfs(&root).map_err(failed)?.f_flag;
        let magic = stat.f_type as u32;
        let network = network_kind(magic);
        let kind = network.or(local_kind(magic));
        Ok(FileSystem {
            kind: kind.map_or_else(|| format!("{magic:#x}"), str::to_owned),
            is_network: network.is_some(),
            is_volatile: is_volatile(kind) || self.is_upper_volatile(&root),
            is_read_only: flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Whether the root is in an overlay whose upper layer is empty after a boot. A process in a container
    /// often cannot see that layer. The answer is `false` then.
    fn is_upper_volatile(&self, root: &Dir) -> bool {
        let stat = rustix::fs::statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        let mounts = proc::read_text("/proc/self/mountinfo").unwrap_or_default();
        let upper = stat
            .ok()
            .and_then(|stat| upper_of(&mounts, stat.stx_mnt_id));
        let stat = upper.and_then(|upper| rustix::fs::statfs(upper).ok());
        stat.is_some_and(|stat| is_volatile(local_kind(stat.f_type as u32)))
    }

    /// Folders of the layout that do not exist.
    pub fn missing_folders(&self) -> IoResult<Vec<&'static str>> {
        let root = self.root()?;
        let mut missing = Vec::new();
        for folder in FOLDERS {
            if !root.has(folder)? {
                missing.push(folder);
            }
        }
        Ok(missing)
    }

    /// Whether the task of an index entry neither exists nor is being created.
    pub fn is_stray_entry(&self, id: TaskId) -> IoResult<bool> {
        // In this order: a task moves from staging/ to tasks/ only.
        Ok(!self.is_being_staged(id)? && self.task(id)?.is_none())
    }

    /// What a person should know about a task that is not finished.
    pub fn condition_of(&self, id: TaskId) -> IoResult<Option<Condition>> {
        let viewed = self
            .task(id)
            .and_then(|task| task.map(|task| task.view()).transpose());
        let view = shown(id, viewed)?;
        Ok(view.and_then(|view| view.status.condition))
    }
}

fn is_volatile(kind: Option<&str>) -> bool {
    matches!(kind, Some("tmpfs" | "ramfs"))
}

/// The upper layer of an overlay, from `/proc/self/mountinfo`: `36 35 0:40 / /mnt rw - overlay overlay
/// rw,lowerdir=/l,upperdir=/u,workdir=/w`.
fn upper_of(mounts: &str, mount: u64) -> Option<PathBuf> {
    let id = |line: &&str| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount);
    let (_, super_block) = mounts.lines().find(id)?.split_once(" - overlay ")?;
    let options = super_block.split(' ').nth(1)?;
    let upper = options
        .split(',')
        .find_map(|option| option.strip_prefix("upperdir="))?;
    Some(proc::unescape(upper))
}

fn try_out(folder: &Dir) -> IoResult<()> {
    let (first, second) = ("first", "second");
    let mut file = folder.create_lock(first)?;
    file.write_all(b"probe")
        .map_err(|error| IoError::new("write", folder.path_of(first), error))?;
    folder.sync_file(&file, first)?;
    let unreliable = |doing| IoError::new(doing, folder.path(), Errno::NOTSUP);
    let lock = folder.lock_exclusively(LockLevel::Moment, file, first)?;
    if lock.is_none() || !folder.is_locked(folder.open_file(first)?, first)? {
        return Err(unreliable("test the locks of"));
    }
    folder.rename_new(first, folder, second)?;
    folder.create(first)?;
    match folder.rename_new(first, folder, second) {
        Err(error) if error.errno() == Some(Errno::EXIST) => {}
        Err(error) => return Err(error),
        Ok(()) => return Err(unreliable("test the renames of")),
    }
    folder.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_of_an_overlay() {
        let mounts = "35 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            36 35 0:40 / /m rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u\\040p,workdir=/w\n\
            37 35 0:41 / /r ro - overlay overlay ro,lowerdir=/l:/k\n";
        assert_eq!(upper_of(mounts, 36), Some(PathBuf::from("/u p")));
        for other in [35, 37, 38] {
            assert_eq!(upper_of(mounts, other), None, "{other}");
        }
    }
}
