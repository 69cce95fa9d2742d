//! The lock of a task: who works on it.
//!
//! It is a `flock` on the task's `lock` file, held by the process that does the work for as long as it works;
//! only its guard can write status and result. Not here: what the holder does. Invariants: a lock is released by
//! closing it, never by unlocking; a lock taken on a file that no longer stands under its path is no claim.

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

/// A prober holds a shared lock for an instant; a claimer that met one tries again
/// (SPOOL-SAFETY hazard 38).
const TRIES: u32 = 3;

/// What came of trying to lock a task.
#[derive(Debug)]
pub enum Claim {
    /// It is ours until the guard is dropped.
    Locked(TaskLock),
    /// A living process works on it.
    Busy(TaskDir),
    /// It was removed in the meantime.
    Gone,
}

/// What a look at a task's lock tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::spool) enum Holder {
    /// A living process works on the task.
    Somebody,
    /// None does.
    Nobody,
    /// It is another user's lock, and the kernel's table does not show who holds it.
    Unknown,
}

/// The claim on one task.
#[derive(Debug)]
pub struct TaskLock {
    pub(in crate::spool) task: TaskDir,
    _lock: Flock,
    /// The status that this lock's holder wrote last: what it writes next must be one that may follow.
    pub(super) last_written: Cell<Option<Status>>,
}

impl TaskDir {
    /// Tries to become the one process that works on this task.
    pub fn lock(self, spool: &Spool) -> IoResult<Claim> {
        let tasks = spool.folder(name::TASKS)?;
        self.lock_in(&tasks, name::REQUEST)
    }

    /// The same for a caller that has `tasks/` open. A lock that is missing is made anew where the
    /// file `if_there` stands.
    pub(in crate::spool) fn lock_in(self, tasks: &Dir, if_there: &str) -> IoResult<Claim> {
        for attempt in 0..TRIES {
            let file = match self.open_lock() {
                Ok(file) => file,
                Err(error) if error.is_absent() || (error.is_unusable() && !error.is_denied()) => {
                    if !is_same_file(tasks, &self.id.to_string(), &self.dir)?
                        || !self.dir.has(if_there)?
                    {
                        return Ok(Claim::Gone);
                    }
                    if self.runner_may_live()? {
                        return Ok(Claim::Busy(self));
                    }
                    match absent_is_none(self.make_lock_anew())? {
                        Some(file) => file,
                        None => return Ok(Claim::Gone),
                    }
                }
                // Shut, as a backup of other modes leaves it. It stays the file that others hold.
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

    /// One that its owner may not write, as in an archived task, can be locked all the same.
    fn open_lock(&self) -> IoResult<File> {
        match self.dir.open_writable(name::LOCK) {
            Err(error) if error.is_denied() => self.dir.open_file(name::LOCK),
            opened => opened,
        }
    }

    /// The lock is held; but is this still the task's folder? A removed folder's lock file keeps
    /// its link count, so inode and device are compared with what stands under the path now.
    fn locked(self, tasks: &Dir, lock: Flock, if_there: &str) -> IoResult<Claim> {
        let stands = is_same_file(tasks, &self.id.to_string(), &self.dir)?
            && is_same_file(&self.dir, name::LOCK, &lock)?;
        // A lock that was put in the place of the one that a living runner holds is nobody's claim. Who
        // only removes a finished task asks for its result, which says the same.
        if stands && if_there != name::RESULT && self.is_run_by_another()? {
            return Ok(Claim::Busy(self));
        }
        Ok(if stands {
            // Whoever works on it writes in it.
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

    /// Makes the lock of a task that has none. What stands there and cannot be locked, as a folder, is
    /// moved out of the way.
    fn make_lock_anew(&self) -> IoResult<File> {
        if !self.has_lock()? && self.dir.has(name::LOCK)? {
            let aside = format!(".{}.{:016x}", name::LOCK, random_bits() as u64);
            self.dir.rename_new(name::LOCK, &self.dir, aside)?;
        }
        self.dir.lock_file(name::LOCK)
    }

    /// Whether the runner of the last attempt may still be at work with a lock that somebody removed.
    fn runner_may_live(&self) -> IoResult<bool> {
        if self.has_result()? {
            return Ok(false);
        }
        let here = clock::BootId::current();
        self.any_attempt(|_, run| {
            Ok(if run.boot == here {
                // What cannot be told is taken for alive.
                crate::proc::is_alive(run.runner).unwrap_or(true)
            } else {
                // In another pid namespace its number says nothing.
                run.boot.kernel() == here.kernel()
            })
        })
    }

    /// Whether something is true of any attempt. The last one need not be the one
    /// that runs: a recipe can make a folder of a higher number.
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

    /// Whether the runner that made an attempt lives and has not ended it: then it works on the task,
    /// whatever the lock in the folder says.
    pub(super) fn is_run_by_another(&self) -> IoResult<bool> {
        if !self.may_have_begun()? || self.has_result()? {
            return Ok(false);
        }
        // Where it cannot be told, the lock that we hold says no, and whoever ends what is left of the attempt
        // waits for what cannot be looked at. In a copy it is the original's runner, which knows nothing of
        // this folder.
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

    /// Whether the task has its lock; one without it is given a new one by the next process that
    /// works on it.
    pub fn has_lock(&self) -> IoResult<bool> {
        let stat = self.dir.stat(name::LOCK)?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Whether users besides the owner can open the lock, and so hold it.
    pub fn is_lock_open(&self) -> IoResult<bool> {
        let stat = self.dir.stat(name::LOCK)?;
        Ok(stat.is_some_and(|stat| stat.st_mode & 0o077 != 0))
    }

    /// Whether a living process is known to work on the task. Without its lock nobody can be seen to.
    pub fn is_worked_on(&self) -> IoResult<bool> {
        Ok(self.holder()? == Holder::Somebody)
    }

    /// Whether a living process is known to hold the task.
    ///
    /// # Errors
    /// Also when there is no lock.
    pub fn is_held(&self) -> IoResult<bool> {
        Ok(self.test_lock()? == Holder::Somebody)
    }

    /// Whether a living process holds the task. Nobody does where there is no lock.
    pub(in crate::spool) fn holder(&self) -> IoResult<Holder> {
        if !self.has_lock()? {
            return Ok(Holder::Nobody);
        }
        Ok(absent_is_none(self.test_lock())?.unwrap_or(Holder::Nobody))
    }

    /// Tries a shared lock that is gone at once. A user of the group may not open the lock, and asks the
    /// kernel's table.
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

    /// The lock that stands in the folder now, where it is no longer the one that we hold, as after a
    /// recipe has removed it. `None` when somebody else holds that one, who then works on the task.
    pub(super) fn hold_anew(&self) -> IoResult<Option<Guard>> {
        let dir = &self.task.dir;
        if is_same_file(dir, name::LOCK, &self._lock)? {
            return Ok(Some(Guard::not_needed()));
        }
        dir.give_rights();
        let lock =
            dir.lock_exclusively(LockLevel::Task, self.task.make_lock_anew()?, name::LOCK)?;
        Ok(lock.map(Guard::from))
    }

    /// Keeps new readers away, where no reader holds the task: then it may be removed as long as the
    /// guard lives. `None` when one does.
    ///
    /// A reader locks the task's folder. In a group spool the group may open that one, and a reader of
    /// the owner's locks the file `readers` in it instead.
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

/// Whether only its owner can open a file, and so lock it.
fn is_private(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & 0o077 == 0)
}
