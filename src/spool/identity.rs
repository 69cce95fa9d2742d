//! Which spool this is: `identity.json`, and what tells a spool from its copies.
//!
//! A copy (`cp -a`, a snapshot, a restored backup) brings the original's identity along, and its
//! tasks may be at work in the original. Invariants: a copy gets an identity of its own and is
//! paused before it has it; a spool that was only moved or mounted anew stays itself.

use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::durable::Dir;
use super::io_error::IoResult;
use super::layout::{OpenError, SMALL_FILE, Spool, name, pretty, random_bits};
use super::pause::Pause;
use crate::clock::BootId;
use crate::task::FORMAT_VERSION;

/// What stands in `identity.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    v: u32,
    pub uuid: String,
    /// The root folder that this was made for: its inode, and the device and path it had in `boot`.
    pub inode: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// Where a root folder is.
struct Here {
    inode: u64,
    device: u64,
    boot: String,
    path: String,
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

impl Here {
    fn of(root: &Dir) -> IoResult<Here> {
        let stat = root.own_stat()?;
        // Without links, so that two ways to one folder are one path.
        let path = crate::proc::path_of(root).unwrap_or_else(|| root.path().to_owned());
        Ok(Here {
            inode: stat.st_ino,
            device: stat.st_dev,
            boot: BootId::current().kernel().to_owned(),
            path: path.to_string_lossy().into_owned(),
        })
    }
}

impl Identity {
    fn new(uuid: String, here: Here) -> Identity {
        Identity {
            v: FORMAT_VERSION,
            uuid,
            inode: here.inode,
            device: Some(here.device),
            boot: Some(here.boot),
            path: Some(here.path),
        }
    }

    fn relation_to(&self, here: &Here) -> Relation {
        let is_same_inode = self.inode == here.inode;
        let by_inode = if is_same_inode {
            Relation::Moved
        } else {
            Relation::Copied
        };
        let (Some(device), Some(boot), Some(path)) = (self.device, &self.boot, &self.path) else {
            // An earlier program wrote no more than the inode.
            return by_inode;
        };
        if *boot != here.boot {
            // Device numbers are given anew at each boot.
            return by_inode;
        }
        if is_same_inode && device == here.device {
            // Several paths may lead to one folder, as with bind mounts.
            let is_known = *path == here.path || stands_at(path, device, self.inode);
            return if is_known {
                Relation::Own
            } else {
                Relation::Moved
            };
        }
        // overlayfs, btrfs and loop devices have another device number after each mount.
        if stands_at(path, device, self.inode) {
            Relation::Copied
        } else {
            Relation::Moved
        }
    }
}

/// Whether exactly this folder stands at a path; where that cannot be seen, it may.
fn stands_at(path: &str, device: u64, inode: u64) -> bool {
    match rustix::fs::stat(Path::new(path)) {
        Ok(stat) => (stat.st_dev, stat.st_ino) == (device, inode),
        Err(Errno::NOENT | Errno::NOTDIR) => false,
        Err(_) => true,
    }
}

impl Spool {
    /// Whether the identity is there and this folder's own, as [`Spool::open`] ensures.
    pub fn has_own_identity(&self) -> Result<bool, OpenError> {
        let here = Here::of(self.root_dir())?;
        let is_own =
            |it: Identity| it.inode == here.inode && it.relation_to(&here) != Relation::Copied;
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

    /// Whether the spool's path still leads to this folder. Where that cannot be seen, it does.
    pub fn is_at_its_path(&self) -> bool {
        let Ok(ours) = self.root_dir().own_stat() else {
            return true;
        };
        match rustix::fs::stat(self.path()) {
            Ok(there) => (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
            Err(_) => true,
        }
    }

    /// Whether it was emptied where it stands.
    pub fn is_emptied(&self) -> bool {
        let has = |entry| self.root_dir().has(entry).unwrap_or(true);
        !has(name::SETTINGS) && !has(name::TASKS)
    }
}

fn make(root: &Dir, uuid: String, here: Here) -> Result<Identity, OpenError> {
    let identity = Identity::new(uuid, here);
    root.replace_durably(name::IDENTITY, &pretty(&identity))?;
    Ok(identity)
}

fn new_uuid() -> String {
    let uuid = uuid::Builder::from_random_bytes(random_bits().to_le_bytes());
    uuid.into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(inode: u64, device: u64, boot: &str, path: &str) -> Here {
        Here {
            inode,
            device,
            boot: boot.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn a_copy_is_told_from_a_spool_that_was_moved() {
        let place = tempfile::tempdir().unwrap();
        let original = place.path().to_str().unwrap();
        let stat = rustix::fs::stat(original).unwrap();
        let (inode, device) = (stat.st_ino, stat.st_dev);
        let gone = format!("{original}/gone");
        // It was made in the original, which stands, or for a path where nothing stands any more.
        let standing = Identity::new(String::new(), here(inode, device, "b1", original));
        let moved = Identity::new(String::new(), here(inode, device, "b1", &gone));
        let bare = Identity {
            device: None,
            boot: None,
            path: None,
            ..standing.clone()
        };
        let (other_inode, other_device) = (inode + 1, device + 1);
        for (identity, found, relation) in [
            (
                &standing,
                here(inode, device, "b1", original),
                Relation::Own,
            ),
            (
                &standing,
                here(inode, device, "b1", "/bound"),
                Relation::Own,
            ),
            (
                &standing,
                here(other_inode, device, "b1", "/copy"),
                Relation::Copied,
            ),
            (
                &standing,
                here(inode, other_device, "b1", "/snap"),
                Relation::Copied,
            ),
            (&moved, here(inode, device, "b1", "/new"), Relation::Moved),
            (
                &moved,
                here(inode, other_device, "b1", &gone),
                Relation::Moved,
            ),
            (
                &moved,
                here(other_inode, other_device, "b1", &gone),
                Relation::Moved,
            ),
            (
                &standing,
                here(inode, other_device, "b2", original),
                Relation::Moved,
            ),
            (
                &standing,
                here(other_inode, device, "b2", "/copy"),
                Relation::Copied,
            ),
            (&bare, here(inode, device, "b1", original), Relation::Moved),
            (
                &bare,
                here(other_inode, device, "b1", original),
                Relation::Copied,
            ),
        ] {
            assert_eq!(
                identity.relation_to(&found),
                relation,
                "{} {} {} {}",
                found.inode,
                found.device,
                found.boot,
                found.path
            );
        }
    }
}
