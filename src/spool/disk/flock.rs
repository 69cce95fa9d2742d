//! Locks: flock(2) on a separate descriptor, held as long as a guard exists.
//!
//! Not which lock protects what (docs/architecture.md). Invariants: a lock that another process holds is an
//! answer (`None`), and any other failure is an error. No wait is without a limit. A lock is released by
//! closing its file, never by unlocking it, so a child that inherited the file holds the lock until it exits.
//! Locks are taken in one order (`lock_order.rs`).

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};

use super::lock_order::{Held, LockLevel, check};
use super::{Dir, IoError, IoResult};

/// The pause between two tries: longer than most locks are held.
const PAUSE: Duration = Duration::from_millis(2);

/// A lock that this process holds.
#[derive(Debug)]
pub struct Flock {
    file: File,
    _held: Held,
}

/// The permission to continue: a lock, or nothing if no lock is needed.
#[derive(Debug)]
#[must_use]
pub struct Guard {
    lock: Option<Flock>,
}

impl Flock {
    fn new(file: File, level: LockLevel) -> Flock {
        let _held = Held::new(level);
        Flock { file, _held }
    }

    /// The locked file, for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The locked file, for a child that will hold the lock.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Turns a shared lock into an exclusive one; `false` if others hold it too. The kernel may release the
    /// shared lock for this, so after `false` the caller must not rely on it.
    pub fn upgrade(&self) -> std::io::Result<bool> {
        taken(self.file.try_lock_exclusive())
    }
}

impl AsFd for Flock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Guard {
    /// The guard if nothing has to be locked.
    pub fn not_needed() -> Guard {
        Guard { lock: None }
    }

    /// Whether something is locked.
    pub fn is_lock(&self) -> bool {
        self.lock.is_some()
    }
}

impl From<Flock> for Guard {
    fn from(lock: Flock) -> Guard {
        Guard { lock: Some(lock) }
    }
}

/// `false` if another process holds the lock.
fn taken(answer: std::io::Result<()>) -> std::io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

impl Dir {
    /// Takes an exclusive lock on an open file of this folder; `None` if another process holds it.
    pub fn lock_exclusively(
        &self,
        level: LockLevel,
        file: File,
        name: impl AsRef<OsStr>,
    ) -> IoResult<Option<Flock>> {
        check(level);
        let is_taken = self.is_taken(file.try_lock_exclusive(), name)?;
        Ok(is_taken.then(|| Flock::new(file, level)))
    }

    /// Takes a shared lock on an open file of this folder; `None` if another process holds it exclusively.
    pub fn lock_shared(
        &self,
        level: LockLevel,
        file: File,
        name: impl AsRef<OsStr>,
    ) -> IoResult<Option<Flock>> {
        check(level);
        let is_taken = self.is_taken(FileExt::try_lock_shared(&file), name)?;
        Ok(is_taken.then(|| Flock::new(file, level)))
    }

    fn is_taken(&self, answer: std::io::Result<()>, name: impl AsRef<OsStr>) -> IoResult<bool> {
        taken(answer).map_err(|error| IoError::new("lock", self.path_of(name), error))
    }

    /// Takes the lock of a lock file, which is created if it is missing; `None` if another process holds it.
    pub fn try_lock(&self, level: LockLevel, name: impl AsRef<OsStr>) -> IoResult<Option<Flock>> {
        let name = name.as_ref();
        self.lock_exclusively(level, self.lock_file(name)?, name)
    }

    /// Like [`Dir::try_lock`], and waits for at most `patience`.
    pub fn lock_within(
        &self,
        level: LockLevel,
        name: impl AsRef<OsStr>,
        patience: Duration,
    ) -> IoResult<Option<Flock>> {
        let name = name.as_ref();
        let started = Instant::now();
        loop {
            let lock = self.try_lock(level, name)?;
            if lock.is_some() || started.elapsed() >= patience {
                return Ok(lock);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether a process holds the lock of an open file of this folder. It takes a shared lock and releases
    /// it immediately.
    pub fn is_locked(&self, file: File, name: impl AsRef<OsStr>) -> IoResult<bool> {
        Ok(!self.is_taken(FileExt::try_lock_shared(&file), name)?)
    }

    /// Opens this folder again as a file that can be locked: a lock belongs to one open file, and this handle
    /// stays open.
    pub fn to_lock(&self) -> IoResult<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(self, ".", flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| IoError::new("open the folder", self.path(), errno))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Making;
    use super::*;

    const LEVEL: LockLevel = LockLevel::Moment;

    fn folder() -> (tempfile::TempDir, Dir) {
        let place = tempfile::tempdir().unwrap();
        let making = Making {
            file: Mode::from_bits_retain(0o600),
            dir: Mode::from_bits_retain(0o700),
            sync: false,
        };
        let dir = Dir::open(place.path(), making).unwrap();
        (place, dir)
    }

    #[test]
    fn a_lock_is_free_after_its_guard_is_dropped() {
        let (_place, dir) = folder();
        let held = dir.try_lock(LEVEL, "lock").unwrap().unwrap();
        assert!(dir.try_lock(LEVEL, "lock").unwrap().is_none());
        let patience = Duration::from_millis(5);
        assert!(dir.lock_within(LEVEL, "lock", patience).unwrap().is_none());
        drop(held);
        assert!(dir.try_lock(LEVEL, "lock").unwrap().is_some());
    }

    #[test]
    fn the_lock_of_a_folder_is_released_while_the_folder_stays_open() {
        let (_place, dir) = folder();
        let held = dir
            .lock_exclusively(LEVEL, dir.to_lock().unwrap(), "")
            .unwrap();
        assert!(held.is_some());
        assert!(dir.is_locked(dir.to_lock().unwrap(), "").unwrap());
        drop(held);
        assert!(!dir.is_locked(dir.to_lock().unwrap(), "").unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_locked_is_an_error() {
        let (_place, dir) = folder();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, ".", flags, Mode::empty()).unwrap();
        assert!(dir.lock_shared(LEVEL, file.into(), "").is_err());
    }
}
