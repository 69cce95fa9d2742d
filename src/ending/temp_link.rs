//! The short name of an attempt's folder, for programs that create sockets in `TMPDIR`: the path of a
//! socket has at most 107 bytes, and the folder of an attempt alone may have more.
//!
//! Not the folder itself, which is removed with the task. The link is not in `$XDG_RUNTIME_DIR`, which is
//! removed when its user logs out, while tasks go on. Invariants: a name is recorded before the link is
//! created; a link is removed only if it leads to this attempt or nowhere; it is created only in a folder
//! in which no other user can replace it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode, lstat, mkdir, readlink, stat, symlink, unlink};

use crate::spool::{Attempt, RunFile};
use crate::task::TaskId;

const TEMPORARY: &str = "/tmp";
/// A path of at most this many bytes leaves space for what programs append to it: Python's multiprocessing, the
/// longest known, appends 32 bytes, and the path of a socket has at most 107.
const SHORT: usize = 75;
/// Rights for group and others, which a folder of ours never has.
const SHARED: u32 = 0o077;
const STICKY: u32 = 0o1000;
const WRITABLE: u32 = 0o022;

/// A link that is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct TempLink {
    path: PathBuf,
    leads_to: PathBuf,
}

impl TempLink {
    /// The link that the attempt's folder is to have, if its own path is long.
    pub fn plan(id: TaskId, attempt: &Attempt) -> Option<TempLink> {
        let leads_to = attempt.work_path();
        if leads_to.as_os_str().len() <= SHORT {
            return None;
        }
        let (id, number) = (id.to_string(), attempt.number());
        let id = id.strip_prefix("task_").unwrap_or(&id);
        let path = own_folder().join(format!("{id}-{number}"));
        Some(TempLink { path, leads_to })
    }

    /// Creates the link. `None` if that is not possible: then the folder has only its own path.
    pub fn make(self) -> Option<TempLink> {
        // Nobody else can replace a folder that was safe once, so a process checks it once.
        static IS_SAFE: OnceLock<()> = OnceLock::new();
        if IS_SAFE.get().is_some() && symlink(&self.leads_to, &self.path).is_ok() {
            return Some(self);
        }
        let folder = self.path.parent()?;
        if !is_safe(folder) {
            // Another runner may create it first.
            let _ = mkdir(folder, Mode::RWXU);
            if !is_safe(folder) {
                return None;
            }
        }
        let _ = IS_SAFE.set(());
        // A link that leads nowhere belongs to a spool that was moved or removed.
        remove(&self.path, &self.leads_to);
        symlink(&self.leads_to, &self.path).ok()?;
        Some(self)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempLink {
    fn drop(&mut self) {
        // Ours: its creation would have failed if the name had existed.
        let _ = unlink(&self.path);
    }
}

/// Removes the link of an attempt whose runner was killed.
pub(super) fn remove_recorded(run: &RunFile, attempt: &Attempt) {
    if let Some(path) = &run.temp_link {
        remove(Path::new(path), &attempt.work_path());
    }
}

fn remove(path: &Path, leads_to: &Path) {
    let Ok(target) = readlink(path, Vec::new()) else {
        return;
    };
    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
    if target == leads_to || lstat(target).is_err() {
        let _ = unlink(path);
    }
}

fn own_folder() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    Path::new(TEMPORARY).join(format!("agentspool-{uid}"))
}

/// Whether the folder belongs to this user alone and no other user can rename it.
fn is_safe(folder: &Path) -> bool {
    let us = rustix::process::geteuid().as_raw();
    let is_ours = lstat(folder).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && stat.st_uid == us
            && stat.st_mode & SHARED == 0
    });
    let is_kept = |mode: u32| mode & STICKY != 0 || mode & WRITABLE == 0;
    is_ours && stat(TEMPORARY).is_ok_and(|stat| is_kept(stat.st_mode))
}
