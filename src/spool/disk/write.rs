//! How a file is created, renamed and removed.
//!
//! Not opening and reading (`dir.rs`), and not what syncing guarantees on which file system
//! (`file_system.rs`). Invariant: a file appears complete under its final name or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::{Dir, LOCK_MODE};
use super::error::{IoError, IoResult};

impl Dir {
    /// Creates a file. It is an error if the name exists.
    pub fn create(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Creates an empty file, or opens the existing one.
    pub fn touch(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::RDWR | OFlags::CREATE)
    }

    /// Opens a lock file, and creates it if it does not exist. Only its owner may open it, also in a group
    /// spool: a process that can open a file can lock it.
    pub fn lock_file(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_as(name, OFlags::RDWR | OFlags::CREATE, LOCK_MODE)
    }

    /// Creates a lock file. It is an error if the name exists.
    pub fn create_lock(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_as(
            name,
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            LOCK_MODE,
        )
    }

    /// Creates or opens a file for appending.
    pub fn append(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        self.create_with(name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)
    }

    /// Creates a file for appending. It is an error if the name exists.
    pub fn create_log(&self, name: impl AsRef<OsStr>) -> IoResult<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
        self.create_with(name, flags)
    }

    fn create_with(&self, name: impl AsRef<OsStr>, flags: OFlags) -> IoResult<File> {
        self.create_as(name, flags, self.making.file)
    }

    fn create_as(&self, name: impl AsRef<OsStr>, flags: OFlags, mode: Mode) -> IoResult<File> {
        let name = name.as_ref();
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, mode)
            .map(File::from)
            .map_err(|errno| self.failed("create", name, errno))
    }

    /// Creates a file with this content, and syncs it if the spool is durable.
    pub fn write_new(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> IoResult<()> {
        let name = name.as_ref();
        let file = self.create_unsynced(name, bytes)?;
        self.sync_file(&file, name)
    }

    /// Creates a file with this content, without `fsync`: for content that can be derived or is synced later.
    pub fn create_unsynced(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> IoResult<File> {
        let name = name.as_ref();
        let mut file = self.create(name)?;
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        Ok(file)
    }

    /// Replaces a file's content atomically, without `fsync`: for content that can be derived.
    ///
    /// The caller must hold the lock that protects `name`: the temporary file has a fixed name, so that a
    /// crash leaves at most one.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.write_between(name, bytes, |between| {
            rustix::fs::renameat(&self.fd, between, &self.fd, name)
        })
    }

    /// Like [`Dir::replace`], for a file that is replaced once or twice. The old content stays under the name
    /// of the temporary file until the next call.
    ///
    /// On ext4 a rename over a file costs more than the rest of a short task (docs/design/0010), for two
    /// reasons: the new content is written to the disk immediately, and the deleted inode makes later
    /// creations in its group slower for a minute.
    pub fn exchange(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.write_between(name, bytes, |between| {
            let flags = RenameFlags::EXCHANGE;
            match rustix::fs::renameat_with(&self.fd, between, &self.fd, name, flags) {
                // There is no old file, or the file system cannot exchange.
                Err(Errno::NOENT | Errno::INVAL) => {
                    rustix::fs::renameat(&self.fd, between, &self.fd, name)
                }
                done => done,
            }
        })
    }

    /// Writes a temporary file, then moves it to its name with `place`.
    fn write_between(
        &self,
        name: &str,
        bytes: &[u8],
        place: impl FnOnce(&str) -> Result<(), Errno>,
    ) -> IoResult<()> {
        let between = format!(".{name}.new");
        let mut file = match self.create(&between) {
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                self.remove_anything(&between)?;
                self.create(&between)?
            }
            made => made?,
        };
        let written = file
            .write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))
            .and_then(|()| place(&between).map_err(|errno| self.failed("replace", name, errno)));
        if written.is_err() {
            // The incomplete file must not use space on a full disk.
            let _ = self.unlink(&between);
        }
        written
    }

    /// Replaces a file's content so that it survives a power cut: for settings.
    pub fn replace_durably(&self, name: &str, bytes: &[u8]) -> IoResult<()> {
        self.replace_durably_as(name, bytes, self.making.file, None)
    }

    /// Like [`Dir::replace_durably`], with a mode, regardless of the umask, and a group. The file gets both
    /// before it gets its name.
    pub(in crate::spool) fn replace_durably_as(
        &self,
        name: &str,
        bytes: &[u8],
        mode: Mode,
        gid: Option<u32>,
    ) -> IoResult<()> {
        let between = format!(".{name}.new");
        let _ = self.unlink(&between);
        let mut file = self.create(&between)?;
        if let Some(gid) = gid {
            self.set_group(&between, gid)?;
        }
        file.write_all(bytes)
            .map_err(|source| IoError::new("write", self.path_of(name), source))?;
        rustix::fs::fchmod(&file, mode)
            .map_err(|errno| self.failed("set the mode of", name, errno))?;
        file.sync_all()
            .map_err(|source| IoError::new("sync", self.path_of(name), source))?;
        rustix::fs::renameat(&self.fd, between.as_str(), &self.fd, name)
            .map_err(|errno| self.failed("replace", name, errno))?;
        self.sync_now()
    }

    /// Renames into another directory. It is an error if the new name exists: nothing is replaced. (A plain
    /// rename silently replaces an empty folder, as measured.)
    pub fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Dir,
        new_name: impl AsRef<OsStr>,
    ) -> IoResult<()> {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            Err(Errno::BUSY) => Err(super::tree_left::mounted("move", self.path_of(name))),
            moved => moved.map_err(|errno| to.failed("move into place", new_name, errno)),
        }
    }

    /// Renames into another directory, and replaces what has the new name.
    pub fn rename_into(&self, name: &str, to: &Dir, new_name: &str) -> IoResult<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|errno| to.failed("move into place", new_name, errno))
    }

    /// Creates an index entry: a hard link to an empty file of ours. A link takes no inode, and no inode is
    /// deleted when it is removed. If a link is not possible (another owner's file, a file system without
    /// links), an empty file is created. An existing entry is left.
    pub fn make_entry(&self, name: impl AsRef<OsStr>, from: &Dir, empty: &str) -> IoResult<()> {
        let name = name.as_ref();
        match rustix::fs::linkat(&from.fd, empty, &self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(_) => self.touch(name).map(|_| ()),
        }
    }

    /// Creates a symbolic link.
    pub fn symlink(&self, target: &str, name: impl AsRef<OsStr>) -> IoResult<()> {
        let name = name.as_ref();
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|errno| self.failed("create the link", name, errno))
    }

    /// Renames within this directory, and replaces what has the new name.
    pub fn rename_over(
        &self,
        name: impl AsRef<OsStr>,
        new_name: impl AsRef<OsStr>,
    ) -> IoResult<()> {
        let new_name = new_name.as_ref();
        rustix::fs::renameat(&self.fd, name.as_ref(), &self.fd, new_name)
            .map_err(|errno| self.failed("replace", new_name, errno))
    }

    /// Removes a file; `false` if it did not exist.
    pub fn unlink(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        self.remove(name.as_ref(), AtFlags::empty())
    }

    /// Removes what has this name, also if it is a folder.
    pub fn remove_anything(&self, name: &str) -> IoResult<()> {
        match self.unlink(name) {
            Err(error) if matches!(error.errno(), Some(Errno::ISDIR | Errno::PERM)) => {
                self.remove_tree(name).map(|_| ())
            }
            removed => removed.map(|_| ()),
        }
    }

    /// Removes an empty folder; `false` if it did not exist.
    pub fn remove_empty_dir(&self, name: impl AsRef<OsStr>) -> IoResult<bool> {
        self.remove(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn remove(&self, name: &OsStr, flags: AtFlags) -> IoResult<bool> {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed("remove", name, errno)),
        }
    }
}
