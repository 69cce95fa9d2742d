//! The lock of a task: which process works on it.
//!
//! It is a `flock` on the task's `lock` file. The process that works on the task holds it the whole time, and
//! only its guard can write status and result. Not what the holder does. Invariants: a lock is released by
//! closing it, never by unlocking; a lock on a file that is no longer at its path does not count.

use std::cell::Cell;
use std::fs::File;
use std::time::Duration;

use rustix::fs::FileType;

use super::attempt::Attempt;
use super::run_record::RunFile;
use super::store::TaskDir;
use crate::clock;
use crate::spool::disk::{
    Dir, Flock, Guard, IoResult, LOCK_MODE, LockLevel, absent_is_none, is_same_file, lock_table,
    random_bits,
};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::Status;

/// A process that tests the lock holds a shared lock for an instant, so a process that wants the lock tries
/// again (docs/hazards.md, 38).
const TRIES: u32 = 3;

/// The outcome of trying to lock a task.
#[derive(Debug)]
pub enum Claim {
    /// The lock is held until the guard is dropped.
    Locked(TaskLock),
    /// Another process works on the task.
    Busy(TaskDir),
    /// The task was removed.
    Gone,
}

/// Whether a process holds a task's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Holder {
    /// A process works on the task.
    Somebody,
    /// No process does.
    Nobody,
    /// Another user owns the lock, and the kernel's lock table does not show whether it is held.
    Unknown,
}

/// The held lock of one task.
#[derive(Debug)]
pub struct TaskLock {
    pub(in crate::spool) task: TaskDir,
    _lock: Flock,
    /// The status that the holder of this lock wrote last, to check the next transition.
    pub(super) last_written: Cell<Option<Status>>,
}

impl TaskDir {
    /// Tries to lock this task, so that only this process works on it. Before the caller gets the lock, it is
    /// decided whether the task was accepted ([`Spool::check_marker`]): a task that was not is removed, and
    /// is `Gone`.
    pub fn lock(self, spool: &Spool) -> IoResult<Claim> {
        let tasks = spool.folder(name::TASKS)?;
        match self.lock_in(&tasks, name::REQUEST)? {
            Claim::Locked(lock) => spool.check_marker(&tasks, lock),
            claim => Ok(claim),
        }
    }

    /// Locks a task, but decides nothing about it. For a caller that has `tasks/` open. A missing lock file
    /// is created again if the task has the file `if_there`.
    pub(in crate::spool) fn lock_in(self, tasks: &Dir, if_there: &str) -> IoResult<Claim> {
        for attempt in 0..TRIES {
            let file = match self.open_lock() {
                Ok(file) => file,
                Err(error) if error.is_absent() || (error.is_unusable() && !error.is_denied()) => {
                    if !is_same_file(tasks, &self.id.to_string(), &self.dir)?
                        || !(self.dir.has(if_there)? || self.has_marker()?)
                    {
                        return Ok(Claim::Gone);
                    }
                    if self.runner_may_live()? {
                        return Ok(Claim::Busy(self));
                    }
                    match absent_is_none(self.replace_lock())? {
                        Some(file) => file,
                        None => return Ok(Claim::Gone),
                    }
                }
                // A restored backup may have other modes. The file stays the same, because it may be locked.
                Err(error) if error.is_denied() && attempt == 0 && self.has_lock()? => {
                    self.dir.set_mode(name::LOCK, LOCK_MODE)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(lock) = self
                .dir
                .lock_exclusively(LockLevel::Task, file, name::LOCK)?
            {
                return self.locked(tasks, lock, if_there);
            }
            if attempt + 1 < TRIES {
                let jitter = random_bits() as u64 % 8;
                std::thread::sleep(Duration::from_millis(2 + jitter));
            }
        }
        Ok(Claim::Busy(self))
    }

    /// Opens the lock file. A read-only one, as in an archived task, can be locked too.
    fn open_lock(&self) -> IoResult<File> {
        match self.dir.open_writable(name::LOCK) {
            Err(error) if error.is_denied() => self.dir.open_file(name::LOCK),
            opened => opened,
        }
    }

    /// Checks a lock that was just taken: is this still the task's folder? The lock file of a removed folder
    /// keeps its link count, so device and inode are compared with those at the path now.
    fn locked(self, tasks: &Dir, lock: Flock, if_there: &str) -> IoResult<Claim> {
        let is_current = is_same_file(tasks, &self.id.to_string(), &self.dir)?
            && is_same_file(&self.dir, name::LOCK, &lock)?;
        // If the lock file of a running runner was replaced, the new lock does not count. A caller that
        // removes a finished task needs no such check, because it requires a result.
        if is_current && if_there != name::RESULT && self.is_run_by_another()? {
            return Ok(Claim::Busy(self));
        }
        Ok(if is_current {
            // The holder writes in the folder.
            self.dir.give_rights();
            Claim::Locked(TaskLock {
                task: self,
                _lock: lock,
                last_written: Cell::new(None),
            })
        } else {
            Claim::Gone
        })
    }

    /// Creates a missing lock file. Anything else of that name, such as a folder, is renamed first.
    fn replace_lock(&self) -> IoResult<File> {
        if !self.has_lock()? && self.dir.has(name::LOCK)? {
            let aside = format!(".{}.{:016x}", name::LOCK, random_bits() as u64);
            self.dir.rename_new(name::LOCK, &self.dir, aside)?;
        }
        self.dir.lock_file(name::LOCK)
    }

    /// Whether a runner may still work on the task although its lock file was removed.
    fn runner_may_live(&self) -> IoResult<bool> {
        if self.has_result()? {
            return Ok(false);
        }
        let here = clock::BootId::current();
        self.any_attempt(|_, run| {
            Ok(if run.boot == here {
                // If this cannot be determined, the runner counts as running.
                crate::proc::is_alive(run.runner).unwrap_or(true)
            } else {
                // Process ids of another pid namespace cannot be checked.
                run.boot.kernel() == here.kernel()
            })
        })
    }

    /// Whether a condition holds for any attempt. The running attempt need not have the highest number,
    /// because a recipe can create a folder with a higher one.
    fn any_attempt(&self, is_so: impl Fn(&Attempt, &RunFile) -> IoResult<bool>) -> IoResult<bool> {
        for number in self.attempt_numbers()? {
            if let Some(attempt) = self.attempt(number)?
                && let Some(run) = attempt.run()
                && is_so(&attempt, &run)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the runner of an attempt is running and has not ended the attempt. Then it works on the task,
    /// even if the lock file in the folder is not locked.
    pub(super) fn is_run_by_another(&self) -> IoResult<bool> {
        if !self.may_have_begun()? || self.has_result()? {
            return Ok(false);
        }
        // If it cannot be determined, the answer is no, because we hold the lock; ending the attempt waits
        // for processes that cannot be checked. In a copied spool the runner belongs to the original.
        let here = clock::BootId::current();
        self.any_attempt(|attempt, run| {
            let (device, inode) = attempt.which()?;
            let is_of_this_folder = run.tag.ends_with(&format!("/{device}:{inode}"));
            Ok(is_of_this_folder
                && run.boot == here
                && run.lost_at.is_none()
                && run.runner != crate::proc::own_key()
                && crate::proc::is_alive(run.runner).unwrap_or(false))
        })
    }

    /// Whether the task has its lock file. If not, the next process that works on the task creates it.
    pub fn has_lock(&self) -> IoResult<bool> {
        let stat = self.dir.stat(name::LOCK)?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Whether other users can open the lock file, and so lock it.
    pub fn is_lock_open(&self) -> IoResult<bool> {
        let stat = self.dir.stat(name::LOCK)?;
        Ok(stat.is_some_and(|stat| stat.st_mode & 0o077 != 0))
    }

    /// Whether a process is known to work on the task; `false` if there is no lock file.
    pub fn is_worked_on(&self) -> IoResult<bool> {
        Ok(self.holder()? == Holder::Somebody)
    }

    /// Whether a process is known to hold the task's lock.
    ///
    /// # Errors
    /// Fails also if there is no lock file.
    pub fn is_held(&self) -> IoResult<bool> {
        Ok(self.test_lock()? == Holder::Somebody)
    }

    /// Whether a process holds the task's lock; [`Holder::Nobody`] if there is no lock file.
    pub(in crate::spool) fn holder(&self) -> IoResult<Holder> {
        if !self.has_lock()? {
            return Ok(Holder::Nobody);
        }
        Ok(absent_is_none(self.test_lock())?.unwrap_or(Holder::Nobody))
    }

    /// Takes a shared lock and releases it at once. A user of the group cannot open the lock file, so the
    /// kernel's lock table is read instead.
    fn test_lock(&self) -> IoResult<Holder> {
        let file = match self.dir.open_file(name::LOCK) {
            Err(error) if error.is_denied() => {
                return Ok(match lock_table::is_locked(&self.dir, name::LOCK)? {
                    Some(true) => Holder::Somebody,
                    Some(false) | None => Holder::Unknown,
                });
            }
            opened => opened?,
        };
        Ok(match self.dir.is_locked(file, name::LOCK)? {
            true => Holder::Somebody,
            false => Holder::Nobody,
        })
    }
}

impl TaskLock {
    /// The task.
    pub fn task(&self) -> &TaskDir {
        &self.task
    }

    /// Locks the lock file that is in the folder now, if it is not the one that we hold, as after a recipe
    /// removed it. `None` if another process holds it and so works on the task.
    pub(super) fn hold_current_lock(&self) -> IoResult<Option<Guard>> {
        let dir = &self.task.dir;
        if is_same_file(dir, name::LOCK, &self._lock)? {
            return Ok(Some(Guard::not_needed()));
        }
        dir.give_rights();
        let lock = dir.lock_exclusively(LockLevel::Task, self.task.replace_lock()?, name::LOCK)?;
        Ok(lock.map(Guard::from))
    }

    /// Keeps new readers out while the guard is held, so that the task may be removed. `None` if a reader
    /// holds the task.
    ///
    /// A reader locks the task's folder. In a group spool the group can open the folder, so the owner's
    /// readers lock the file `readers` in it instead.
    pub fn without_readers(&self, spool: &Spool) -> IoResult<Option<Guard>> {
        let held = if spool.is_group() {
            match absent_is_none(self.task.dir.open_file(name::READERS))? {
                Some(file) if is_private(&file) => file,
                Some(_) | None => return Ok(Some(Guard::not_needed())),
            }
        } else {
            self.task.dir.to_lock()?
        };
        let lock = self
            .task
            .dir
            .lock_exclusively(LockLevel::Readers, held, "")?;
        Ok(lock.map(Guard::from))
    }
}

/// Whether only the owner can open a file, and so lock it.
fn is_private(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & 0o077 == 0)
}
