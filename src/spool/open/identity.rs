//! Which spool this is: `identity.json`, and what tells a spool from its copies.
//!
//! A copy (`cp -a`, a snapshot, a restored backup) brings the original's identity along, and its
//! tasks may be at work in the original. Invariants: a copy gets an identity of its own and is
//! paused before it has it; a spool that was only moved or mounted anew stays itself.

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

/// What stands in `identity.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    v: u32,
    pub uuid: String,
    /// The root folder that this was made for: its inode, and the device and path it had in `boot`.
    pub inode: u64,
    /// The inode of `spool.lock`, which is never replaced: by it a spool is known where folders get other inodes
    /// by a mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The path where it is not text: each byte as a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
}

/// Where a root folder is.
struct Here {
    inode: u64,
    lock_inode: Option<u64>,
    /// Whether folders of this file system get other inodes by a mount.
    renumbers: bool,
    device: u64,
    boot: String,
    path: PathBuf,
}

/// What an identity is to the folder in which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Its own.
    Own,
    /// Its own, but the folder was moved or mounted anew, or the machine booted since.
    Moved,
    /// That of the folder it was copied from.
    Copied,
}

/// Where a spool's path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathLeads {
    /// To this very folder.
    Here,
    /// To another one or to nothing.
    Elsewhere,
    /// It cannot be seen: a folder above is shut, or the kernel refuses for another reason.
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
            // Without links, so that two ways to one folder are one path.
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
        // Nothing that keeps a file or folder the same one gives it another inode, but for a mount that numbers
        // folders anew: there the folder's says nothing.
        let is_other = match self.lock_inode {
            Some(lock) if here.renumbers => here.lock_inode != Some(lock),
            Some(_) | None => self.inode != here.inode,
        };
        if is_other {
            return Relation::Copied;
        }
        let (Some(device), Some(boot), Some(path)) = (self.device, &self.boot, self.path()) else {
            // An earlier program wrote no more than the inode.
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
        // The root folders of two file systems, and a snapshot and its original, have one inode. The
        // device does not tell them apart: overlayfs, btrfs and loop devices have another one after
        // each mount, and everything after a boot. The original itself does.
        if self.stands_elsewhere(path, here) {
            Relation::Copied
        } else {
            Relation::Moved
        }
    }

    /// Whether a folder with this identity stands at `path` and is not this one; where that cannot
    /// be seen, it may.
    fn stands_elsewhere(&self, path: &Path, here: &Here) -> bool {
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

/// Whether the kernel says by this that no folder stands at a path.
fn is_nothing(errno: Option<Errno>) -> bool {
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

impl Spool {
    /// Whether the identity is there and this folder's own, as [`Spool::open`] ensures.
    pub fn has_own_identity(&self) -> Result<bool, OpenError> {
        let here = Here::of(self.root_dir())?;
        let is_own = |it: Identity| it.relation_to(&here) != Relation::Copied;
        Ok(self.identity()?.is_some_and(is_own))
    }

    /// What stands in `identity.json`; `None` when there is none.
    pub(super) fn identity(&self) -> Result<Option<Identity>, OpenError> {
        let Some(bytes) = self.root_dir().read(name::IDENTITY, SMALL_FILE)? else {
            return Ok(None);
        };
        let path = self.root_dir().path_of(name::IDENTITY);
        let identity = serde_json::from_slice(&bytes);
        identity.map(Some).map_err(|e| OpenError::Settings {
            path,
            problem: e.to_string(),
        })
    }

    /// Makes the identity where there is none, and a new one where the one that is there belongs to
    /// another folder; the one that holds now. `known` is what was read before.
    pub(super) fn ensure_identity(&self, known: Option<Identity>) -> Result<Identity, OpenError> {
        let here = Here::of(self.root_dir())?;
        if let Some(known) = known
            && known.relation_to(&here) == Relation::Own
        {
            return Ok(known);
        }
        // Two commands may be the first ones at the same time: the second finds the first one's.
        let _lock = match self.lock_root() {
            // A backup is read as it is: nothing can be written there, so nothing can start there either.
            Err(error) if error.errno() == Some(Errno::ROFS) => {
                return self.identity()?.ok_or_else(|| error.into());
            }
            locked => locked?,
        };
        let root = self.root()?;
        let Some(found) = self.identity()? else {
            // A new spool, or one of which only the parts of value were put back.
            self.forget_index()?;
            return make(&root, new_uuid(), here);
        };
        match found.relation_to(&here) {
            Relation::Own => Ok(found),
            Relation::Moved => {
                let uuid = found.uuid.clone();
                // Only for the next comparison: a full or read-only disk must not stop anybody.
                Ok(make(&root, uuid, here).unwrap_or(found))
            }
            Relation::Copied => {
                // Before the new identity: without it the next command comes here again.
                self.pause_as(Pause::Copy)?;
                self.forget_index()?;
                make(&root, new_uuid(), here)
            }
        }
    }

    /// What was copied while it changed may lack entries of the index: it is made anew.
    fn forget_index(&self) -> IoResult<()> {
        let open = self.folder(name::OPEN)?;
        for entry in open.names()? {
            open.unlink(entry)?;
        }
        Ok(())
    }

    /// Where the spool's path leads by now.
    pub fn path_leads(&self) -> PathLeads {
        match self.root_dir().which() {
            Ok(ours) => leads_to(self.path(), ours),
            Err(_) => PathLeads::Unseen,
        }
    }

    /// Whether the spool's path is seen to lead to this folder. Else nothing is started and nothing
    /// refused: the spool's own recipes are found by its path.
    pub fn is_at_its_path(&self) -> bool {
        self.path_leads() == PathLeads::Here
    }

    /// Whether it was emptied where it stands.
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
    fn a_copy_is_reported_from_a_spool_that_was_moved() {
        let place = tempfile::tempdir().unwrap();
        let original = place.path();
        let stat = rustix::fs::stat(original).unwrap();
        let (inode, device) = (stat.st_ino, stat.st_dev);
        let gone = original.join("gone");
        // It was made in the original, which stands, or for a path where nothing stands any more.
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
            // By a bind mount.
            (&standing, here(inode, device, "b1", new), Own),
            (&moved, here(inode, device, "b1", new), Moved),
            // Another inode is a copy, whatever stands where.
            (&standing, here(other_inode, device, "b1", copy), Copied),
            (&moved, here(other_inode, device, "b1", copy), Copied),
            (&moved, here(other_inode, device, "b1", &gone), Copied),
            (&moved, here(other_inode, other_device, "b1", copy), Copied),
            (&standing, here(other_inode, device, "b2", copy), Copied),
            (&bare, here(other_inode, device, "b1", original), Copied),
            // An overlay that was mounted anew, or a copy in it: its lock is another file.
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
            // Mounted anew, or a snapshot beside its original.
            (&moved, here(inode, other_device, "b1", &gone), Moved),
            (&standing, here(inode, other_device, "b1", copy), Copied),
            // After a boot.
            (&standing, here(inode, device, "b2", original), Moved),
            (&moved, here(inode, other_device, "b2", new), Moved),
            (&standing, here(inode, other_device, "b2", copy), Copied),
            // Another spool stands there by now.
            (&other, here(inode, other_device, "b2", copy), Moved),
            (&bare, here(inode, device, "b1", original), Moved),
        ] {
            let what = (found.inode, found.device, &found.boot, &found.path);
            assert_eq!(identity.relation_to(&found), relation, "{what:?}");
        }
    }

    #[test]
    fn a_path_that_is_not_text_is_kept_to_the_byte() {
        for bytes in [&b"/a"[..], b"/a/\xff\xfe", b"/a/\xc3"] {
            let path = Path::new(OsStr::from_bytes(bytes));
            let identity = Identity::new("one".into(), here(1, 2, "b1", path));
            let read: Identity = serde_json::from_slice(&to_pretty(&identity)).unwrap();
            assert_eq!(read.path(), Some(path));
        }
    }
}
