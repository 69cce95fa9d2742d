//! Syncing, and what the file system of the spool guarantees.
//!
//! Not the files themselves (`write.rs`). Invariant: with `durability = power`, a change is on the disk
//! before it is reported to the caller.

use std::ffi::OsStr;
use std::fs::File;

use super::dir::Dir;
use super::error::{IoError, IoResult};

const EXT4: u32 = 0xef53;
const XFS: u32 = 0x5846_5342;
const BTRFS: u32 = 0x9123_683e;
const BCACHEFS: u32 = 0xca45_1a4e;
const F2FS: u32 = 0xf2f5_2010;
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;
const OVERLAYFS: u32 = 0x794c_7630;
const ZFS: u32 = 0x2fc1_2fc1;
const FUSE: u32 = 0x6573_5546;

impl Dir {
    /// `fsync` of a file in this directory, if the spool is to survive power cuts.
    pub fn sync_file(&self, file: &File, name: impl AsRef<OsStr>) -> IoResult<()> {
        if self.making.sync {
            file.sync_all()
                .map_err(|source| IoError::new("sync", self.path_of(name), source))?;
        }
        Ok(())
    }

    /// `fsync` of this directory, if the spool is to survive power cuts.
    pub fn sync(&self) -> IoResult<()> {
        if self.making.sync {
            self.sync_now()?;
        }
        Ok(())
    }

    /// `fsync` of this directory. After an error shut down XFS, nothing is written to the disk any more and
    /// `fsync` still returns 0. Then `fstat` of the folder fails.
    pub(in crate::spool) fn sync_now(&self) -> IoResult<()> {
        rustix::fs::fsync(&self.fd)
            .and_then(|()| rustix::fs::fstat(&self.fd))
            .map(|_| ())
            .map_err(|errno| self.failed("sync the folder", "", errno))
    }

    /// Whether [`Dir::sync_whole`] makes all files of this file system durable. That is known for the local
    /// ones. It is not true for FUSE, because `syncfs` does not reach the program that serves it.
    pub fn has_whole_sync(&self) -> IoResult<bool> {
        Ok([EXT4, XFS, BTRFS, F2FS].contains(&self.file_system()?))
    }

    /// Whether a file's `fsync` also makes its last rename durable. Measured with power cuts for ext4 and
    /// XFS, which have one log for both. No other file system was tested.
    pub fn keeps_renames_of_synced_files(&self) -> IoResult<bool> {
        Ok([EXT4, XFS].contains(&self.file_system()?))
    }

    /// Whether inode numbers are not unique in the file system, as with subvolumes of btrfs.
    pub fn repeats_inodes(&self) -> IoResult<bool> {
        Ok([BTRFS, BCACHEFS].contains(&self.file_system()?))
    }

    /// Whether a folder can get another inode number with a mount, while files keep theirs. Overlayfs does so
    /// if its layers are on several file systems (the kernel's overlayfs.rst, "Inode properties"). A FUSE
    /// file system may do so too.
    pub fn renumbers_folders(&self) -> IoResult<bool> {
        Ok([OVERLAYFS, FUSE].contains(&self.file_system()?))
    }

    /// The file system's magic number, as in statfs(2).
    fn file_system(&self) -> IoResult<u32> {
        let stat = rustix::fs::fstatfs(&self.fd)
            .map_err(|errno| self.failed("check the file system of", "", errno))?;
        Ok(stat.f_type as u32)
    }

    /// `syncfs` of the whole file system, also of files of others, instead of `fsync` for each of many files.
    /// From Linux 5.8 on it reports write errors.
    pub fn sync_whole(&self) -> IoResult<()> {
        if self.making.sync {
            rustix::fs::syncfs(&self.fd)
                .and_then(|()| rustix::fs::fstat(&self.fd))
                .map_err(|errno| self.failed("sync the file system of", "", errno))?;
        }
        Ok(())
    }
}

/// The network file system with this magic number, if there is one.
pub(in crate::spool) fn network_kind(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x00c3_6400 => "Ceph",
        0x5346_414f => "AFS",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        _ => return None,
    })
}

/// The other file system with this magic number, if it is known.
pub(in crate::spool) fn local_kind(magic: u32) -> Option<&'static str> {
    Some(match magic {
        EXT4 => "ext4",
        XFS => "xfs",
        BTRFS => "btrfs",
        TMPFS => "tmpfs",
        RAMFS => "ramfs",
        OVERLAYFS => "overlayfs",
        ZFS => "zfs",
        F2FS => "f2fs",
        FUSE => "fuse",
        _ => return None,
    })
}
