//! The short name of an attempt's folder, for programs that create sockets in `TMPDIR`: the path of a
//! socket has at most 107 bytes, and the folder of an attempt alone may have more.
//!
//! Not the folder itself, which is removed with the task. The link is not in `$XDG_RUNTIME_DIR`, which is
//! removed when its user logs out, while tasks go on. Invariants: a name is recorded before the link is
//! created; a link is removed only in our folder, and only if it leads to this attempt or nowhere; it is
//! created only in a folder in which no other user can replace it. That folder is kept open and locked, so
//! what cleans `/tmp` leaves it (systemd-tmpfiles skips a locked folder), and a mount is never entered.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, lstat,
    mkdirat, openat, openat2, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

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

/// The folder of the links, once it was opened.
static FOLDER: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// A link that is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct TempLink {
    folder: Option<Arc<OwnedFd>>,
    name: String,
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
        Some(TempLink {
            folder: None,
            name: format!("{id}-{number}"),
            leads_to,
        })
    }

    /// Creates the link. `None` if that is not possible: then the folder has only its own path.
    pub fn make(mut self) -> Option<TempLink> {
        let folder = open_folder()?;
        if symlinkat(&self.leads_to, &*folder, &self.name).is_err() {
            // A link that leads nowhere belongs to a spool that was moved or removed.
            self.remove_from(&folder);
            symlinkat(&self.leads_to, &*folder, &self.name).ok()?;
        }
        self.folder = Some(folder);
        Some(self)
    }

    pub fn path(&self) -> PathBuf {
        Path::new(TEMPORARY).join(own_name()).join(&self.name)
    }

    fn remove_from(&self, folder: &OwnedFd) {
        let Ok(target) = readlinkat(folder, &self.name, Vec::new()) else {
            return;
        };
        let target = Path::new(OsStr::from_bytes(target.as_bytes()));
        if target == self.leads_to || lstat(target).is_err() {
            let _ = unlinkat(folder, &self.name, AtFlags::empty());
        }
    }
}

impl Drop for TempLink {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // Ours: its creation would have failed if the name had existed.
            let _ = unlinkat(&**folder, &self.name, AtFlags::empty());
        }
    }
}

/// Removes the link of an attempt whose runner was killed. Its name is the planned one: a record may come from
/// a copy or from another user.
pub(super) fn remove_recorded(run: &RunFile, attempt: &Attempt) {
    if run.temp_link.is_some()
        && let Some(link) = TempLink::plan(run.task_id, attempt)
        && let Some(folder) = open_folder()
    {
        link.remove_from(&folder);
    }
}

fn own_name() -> String {
    format!("agentspool-{}", rustix::process::geteuid().as_raw())
}

/// The folder of the links. `None` if there is no safe one.
fn open_folder() -> Option<Arc<OwnedFd>> {
    let mut known = FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = |folder: &OwnedFd| fstat(folder).is_ok_and(|stat| stat.st_nlink > 0);
    if known.as_ref().is_none_or(|folder| !is_there(folder)) {
        *known = find_or_make().map(Arc::new);
    }
    known.clone()
}

fn find_or_make() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let temporary = openat(CWD, TEMPORARY, flags, Mode::empty()).ok()?;
    let is_kept = |mode: u32| mode & STICKY != 0 || mode & WRITABLE == 0;
    if !fstat(&temporary).is_ok_and(|stat| is_kept(stat.st_mode)) {
        return None;
    }
    // Another user may have mounted a file system there that never answers.
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let open = || match openat2(&temporary, own_name(), flags, Mode::empty(), resolve) {
        // An old kernel, or a filter of system calls that does not know this one.
        Err(Errno::NOSYS | Errno::PERM) => openat(&temporary, own_name(), flags, Mode::empty()),
        opened => opened,
    };
    let folder = match open() {
        Err(Errno::NOENT) => {
            // Another runner may create it first.
            let _ = mkdirat(&temporary, own_name(), Mode::RWXU);
            open()
        }
        opened => opened,
    };
    let folder = folder.ok().filter(is_ours)?;
    // What cleans `/tmp` locks a folder exclusively before it removes something in it.
    let _ = flock(&folder, FlockOperation::NonBlockingLockShared);
    Some(folder)
}

/// Whether the folder belongs to this user alone.
fn is_ours(folder: &OwnedFd) -> bool {
    let us = rustix::process::geteuid().as_raw();
    fstat(folder).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && stat.st_uid == us
            && stat.st_mode & SHARED == 0
    })
}
