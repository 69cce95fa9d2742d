//! Which spool this is: `identity.json`, and what distinguishes a spool from its copies.
//!
//! Not why a spool is paused (`pause.rs`). A copy (`cp -a`, a snapshot, a restored backup) has the original's
//! identity, and its tasks may be running in the original. Invariants: a copy is paused first and then gets
//! an identity of its own. A spool that was only moved or mounted again keeps its identity.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::error::OpenError;
use super::pause::Pause;
use super::spool::Spool;
use crate::clock::BootId;
use crate::spool::disk::{Dir, IoResult, Which, random_bits, which};
use crate::spool::layout::{OURS_ONLY, SMALL_FILE, name};
use crate::task::{FORMAT_VERSION, to_pretty};

/// The content of `identity.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    v: u32,
    pub uuid: String,
    /// The inode of the root folder that this was written for. `device` and `path` are those it had in
    /// `boot`.
    pub inode: u64,
    /// The inode of `spool.lock`, which is never replaced. It identifies a spool on file systems whose
    /// folders get other inodes after a mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The path, if it is not text: each byte as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
}

/// Where a root folder is.
struct Here {
    inode: u64,
    lock_inode: Option<u64>,
    /// Whether folders of this file system get other inodes after a mount.
    renumbers: bool,
    device: u64,
    boot: String,
    path: PathBuf,
}

/// How an identity relates to the folder that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The identity of this folder.
    Own,
    /// The identity of this folder, but the folder was moved or mounted again, or the machine was booted.
    Moved,
    /// The identity of another folder, from which this one was copied.
    Copied,
}

/// Where a spool's path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathLeads {
    /// To this folder.
    Here,
    /// To another folder, or to nothing.
    Elsewhere,
    /// Not known: a folder above cannot be searched, or the kernel refuses for another reason.
    Unseen,
}

impl Here {
    fn of(root: &Dir) -> IoResult<Here> {
        let stat = root.own_stat()?;
        Ok(Here {
            inode: stat.st_ino,
            lock_inode: root.stat(name::ROOT_LOCK)?.map(|lock| lock.st_ino),
            renumbers: root.renumbers_folders()?,
            device: stat.st_dev,
            boot: BootId::current().kernel().to_owned(),
            // The path without links, so that a folder has one path.
            path: crate::proc::path_of(root).unwrap_or_else(|| root.path().to_owned()),
        })
    }

    fn which(&self) -> Which {
        (self.device, self.inode)
    }
}

impl Identity {
    fn new(uuid: String, here: Here) -> Identity {
        let path = here.path.to_str().map(str::to_owned);
        Identity {
            v: FORMAT_VERSION,
            uuid,
            inode: here.inode,
            lock_inode: here.lock_inode,
            device: Some(here.device),
            boot: Some(here.boot),
            path_bytes: match path {
                Some(_) => None,
                None => Some(here.path.as_os_str().as_bytes().to_vec()),
            },
            path,
        }
    }

    fn path(&self) -> Option<&Path> {
        let bytes = self.path_bytes.as_deref();
        let bytes = bytes.or(self.path.as_ref().map(String::as_bytes));
        bytes.map(|bytes| Path::new(OsStr::from_bytes(bytes)))
    }

    fn relation_to(&self, here: &Here) -> Relation {
        // A file or folder keeps its inode. The exception is a file system whose folders get new inodes at
        // each mount: there only the inode of the lock file counts.
        let is_other = match self.lock_inode {
            Some(lock) if here.renumbers => here.lock_inode != Some(lock),
            Some(_) | None => self.inode != here.inode,
        };
        if is_other {
            return Relation::Copied;
        }
        let (Some(device), Some(boot), Some(path)) = (self.device, &self.boot, self.path()) else {
            // An older program wrote only the inode.
            return Relation::Moved;
        };
        let is_same_boot = *boot == here.boot;
        if is_same_boot && device == here.device {
            // Several paths may lead to one folder, as with bind mounts.
            let is_known =
                *path == here.path || leads_to(path, here.which()) != PathLeads::Elsewhere;
            return if is_known {
                Relation::Own
            } else {
                Relation::Moved
            };
        }
        // The root folders of two file systems may have the same inode, and so do a snapshot and its
        // original. The device does not distinguish them: on overlayfs, btrfs and loop devices it changes
        // with each mount, and on all file systems it may change with a boot. So the path is checked for the
        // original.
        if self.is_elsewhere(path, here) {
            Relation::Copied
        } else {
            Relation::Moved
        }
    }

    /// Whether another folder with this identity is at `path`. `true` if that cannot be read.
    fn is_elsewhere(&self, path: &Path, here: &Here) -> bool {
        match leads_to(path, here.which()) {
            PathLeads::Here => return false,
            PathLeads::Unseen => return true,
            PathLeads::Elsewhere => {}
        }
        let read = Dir::open(path, OURS_ONLY).and_then(|dir| dir.read(name::IDENTITY, SMALL_FILE));
        match read {
            Ok(bytes) => {
                let found = bytes.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
                found.is_some_and(|found| found.uuid == self.uuid)
            }
            Err(error) => !is_nothing(error.errno()),
        }
    }
}

/// Whether a path leads to the folder with this device and inode.
fn leads_to(path: &Path, folder: Which) -> PathLeads {
    match rustix::fs::stat(path) {
        Ok(stat) if which(&stat) == folder => PathLeads::Here,
        Ok(_) => PathLeads::Elsewhere,
        Err(errno) if is_nothing(Some(errno)) => PathLeads::Elsewhere,
        Err(_) => PathLeads::Unseen,
    }
}

/// Whether this error of the kernel means that there is no folder at a path.
fn is_nothing(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

impl Spool {
    /// Whether the identity exists and belongs to this folder, as [`Spool::open`] ensures.
    pub fn has_own_identity(&self) -> Result<bool, OpenError> {
        let here = Here::of(self.root_dir())?;
        let is_own = |it: Identity| it.relation_to(&here) != Relation::Copied;
        Ok(self.identity()?.is_some_and(is_own))
    }

    /// The content of `identity.json`; `None` if the file does not exist.
    pub(super) fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let Some(bytes) = self.root_dir().read(name::IDENTITY, SMALL_FILE)? else {
            return Ok(None);
        };
        let path = self.root_dir().path_of(name::IDENTITY);
        let identity = serde_json::from_slice(&bytes);
        identity.map(Some).map_err(|e| OpenError::Settings {
            path,
            problem: e.to_string(),
            setting: None,
        })
    }

    /// Creates the identity if it is missing, or a new one if the present one belongs to another folder.
    /// Returns the valid one. `known` is what was read before.
    pub(super) fn ensure_identity(&self, known: Option<Identity>) -> Result<Identity, OpenError> {
        let here = Here::of(self.root_dir())?;
        if let Some(known) = known
            && known.relation_to(&here) == Relation::Own
        {
            return Ok(known);
        }
        // Two first commands may run at the same time: the second one finds the identity of the first.
        let _lock = match self.lock_root() {
            // A read-only backup is read as it is: nothing can be written there, so no task can start there.
            Err(error) if error.errno() == Some(Errno::ROFS) => {
                return self.identity()?.ok_or_else(|| error.into());
            }
            locked => locked?,
        };
        let root = self.root()?;
        let Some(found) = self.identity()? else {
            // A new spool, or a backup without this file.
            self.forget_index()?;
            return make(&root, new_uuid(), here);
        };
        match found.relation_to(&here) {
            Relation::Own => Ok(found),
            Relation::Moved => {
                let uuid = found.uuid.clone();
                // This is only for the next comparison: a full or read-only disk must not be an error.
                Ok(make(&root, uuid, here).unwrap_or(found))
            }
            Relation::Copied => {
                // Pause before the new identity: if this is interrupted, the next command does it again.
                self.pause_as(Pause::Copy)?;
                self.forget_index()?;
                make(&root, new_uuid(), here)
            }
        }
    }

    /// Removes the index entries, so that they are created again. A copy of a changing spool may lack some.
    fn forget_index(&self) -> IoResult<()> {
        let open = self.folder(name::OPEN)?;
        for entry in open.names()? {
            open.unlink(entry)?;
        }
        Ok(())
    }

    /// Where the spool's path leads now.
    pub fn path_leads(&self) -> PathLeads {
        match self.root_dir().which() {
            Ok(ours) => leads_to(self.path(), ours),
            Err(_) => PathLeads::Unseen,
        }
    }

    /// Whether the spool's path is known to lead to this folder. If not, nothing is started and nothing is
    /// refused: the spool's own recipes are found by its path.
    pub fn is_at_its_path(&self) -> bool {
        self.path_leads() == PathLeads::Here
    }

    /// Whether the settings and the tasks were both removed from the folder.
    pub fn is_emptied(&self) -> bool {
        let has = |entry| self.root_dir().has(entry).unwrap_or(true);
        !has(name::SETTINGS) && !has(name::TASKS)
    }
}

fn make(root: &Dir, uuid: String, here: Here) -> Result<Identity, OpenError> {
    let identity = Identity::new(uuid, here);
    root.replace_durably(name::IDENTITY, &to_pretty(&identity))?;
    Ok(identity)
}

/// A random UUID (RFC 9562, version 4) as text.
fn new_uuid() -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = (random_bits() & !(VERSION | VARIANT)) | (4 << 76) | (0b10 << 62);
    let part = |from: u32, digits: u32| (bits >> from) & ((1 << (4 * digits)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_form() {
        let uuid = new_uuid();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
        assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
        assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        assert_ne!(uuid, new_uuid());
    }

    fn here(inode: u64, device: u64, boot: &str, path: &Path) -> Here {
        Here {
            inode,
            lock_inode: Some(7),
            renumbers: false,
            device,
            boot: boot.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_copy_is_distinguished_from_a_spool_that_was_moved() {
        let place = tempfile::tempdir().unwrap();
        let original = place.path();
        let stat = rustix::fs::stat(original).unwrap();
        let (inode, device) = (stat.st_ino, stat.st_dev);
        let gone = original.join("gone");
        // Written in the original folder, which exists, or for a path at which nothing exists now.
        let standing = Identity::new("one".into(), here(inode, device, "b1", original));
        let moved = Identity::new("one".into(), here(inode, device, "b1", &gone));
        let bare = Identity {
            device: None,
            boot: None,
            path: None,
            ..standing.clone()
        };
        let folder = Dir::open(original, OURS_ONLY).unwrap();
        let written = folder.replace_durably(name::IDENTITY, &to_pretty(&standing));
        written.unwrap();
        let other = Identity {
            uuid: "two".into(),
            ..standing.clone()
        };
        let (other_inode, other_device) = (inode + 1, device + 1);
        let on_overlay = |here: Here, lock_inode| Here {
            renumbers: true,
            lock_inode,
            ..here
        };
        let (new, copy) = (Path::new("/new"), Path::new("/copy"));
        use Relation::{Copied, Moved, Own};
        for (identity, found, relation) in [
            (&standing, here(inode, device, "b1", original), Own),
            // With a bind mount.
            (&standing, here(inode, device, "b1", new), Own),
            (&moved, here(inode, device, "b1", new), Moved),
            // Another inode means a copy, whatever is at the old path.
            (&standing, here(other_inode, device, "b1", copy), Copied),
            (&moved, here(other_inode, device, "b1", copy), Copied),
            (&moved, here(other_inode, device, "b1", &gone), Copied),
            (&moved, here(other_inode, other_device, "b1", copy), Copied),
            (&standing, here(other_inode, device, "b2", copy), Copied),
            (&bare, here(other_inode, device, "b1", original), Copied),
            // An overlay that was mounted again, and a copy in it, whose lock is another file.
            (
                &moved,
                on_overlay(here(other_inode, other_device, "b2", &gone), Some(7)),
                Moved,
            ),
            (
                &moved,
                on_overlay(here(other_inode, device, "b1", copy), Some(7)),
                Moved,
            ),
            (
                &moved,
                on_overlay(here(inode, device, "b1", &gone), Some(8)),
                Copied,
            ),
            (
                &moved,
                on_overlay(here(other_inode, device, "b1", &gone), Some(8)),
                Copied,
            ),
            (
                &moved,
                on_overlay(here(other_inode, device, "b1", &gone), None),
                Copied,
            ),
            // Mounted again, or a snapshot next to its original.
            (&moved, here(inode, other_device, "b1", &gone), Moved),
            (&standing, here(inode, other_device, "b1", copy), Copied),
            // After a boot.
            (&standing, here(inode, device, "b2", original), Moved),
            (&moved, here(inode, other_device, "b2", new), Moved),
            (&standing, here(inode, other_device, "b2", copy), Copied),
            // Another spool is there now.
            (&other, here(inode, other_device, "b2", copy), Moved),
            (&bare, here(inode, device, "b1", original), Moved),
        ] {
            let what = (found.inode, found.device, &found.boot, &found.path);
            assert_eq!(identity.relation_to(&found), relation, "{what:?}");
        }
    }

    #[test]
    fn a_path_that_is_not_text_is_stored_as_bytes() {
        for bytes in [&b"/a"[..], b"/a/\xff\xfe", b"/a/\xc3"] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let identity = Identity::new("one".into(), here(1, 2, "b1", path));
            let read: Identity = serde_json::from_slice(&to_pretty(&identity)).unwrap();
            assert_eq!(read.path(), Some(path));
        }
    }
}
