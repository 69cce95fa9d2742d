//! Locks: who works on a task, how many work at once, whose turn it is in a session.
//!
//! The claim on a task is a `flock` on its `lock` file, held by the process that does the work for
//! as long as it works; only its guard can write status and result. Not here: what the holder
//! does. Invariants: a lock is released by closing it, never by unlocking; a lock taken on a file
//! that no longer stands under its path is no claim.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::attempt::{Attempt, RunFile};
use super::disk::{Dir, Flock, Guard, IoError, IoResult, LOCK_MODE, absent_is_none, lock_table};
use super::layout::{Spool, name};
use super::store::{TaskDir, pending_status};
use crate::clock;
use crate::task::{Name, Request, ResultFile, StatusFile, TaskId, task_of_session};

/// A prober holds a shared lock for an instant; a claimer that met one tries again
/// (SPOOL-SAFETY hazard 38).
const TRIES: u32 = 3;
/// How long to wait for somebody who is about to take an empty folder away. It does two system
/// calls.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

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
pub(super) enum Holder {
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
    pub(super) task: TaskDir,
    pub(super) _lock: Flock,
}

/// One of the places that count the concurrency limit; held while a task runs.
#[derive(Debug)]
pub struct Slot {
    _lock: Flock,
}

/// The folder of the state a session's tasks share; nobody takes it away while this is held.
#[derive(Debug)]
pub struct SessionState {
    path: PathBuf,
    sessions: Dir,
    folder: Dir,
    hold: Flock,
}

impl SessionState {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets it go; nothing of the task uses it any more. A folder that was left empty, as most are
    /// that were made for one task, is taken away here, where it stands open.
    pub fn let_go(self) {
        if self.hold.upgrade().unwrap_or(false) {
            // rmdir removes only what is empty, so nothing can be lost here.
            let _ = self.folder.remove_empty_dir(name::STATE);
            let _ = self.sessions.remove_empty_dir(self.folder.name());
        }
    }
}

/// Whose turn it is in a session.
#[derive(Debug)]
pub enum SessionTurn {
    /// This task's; the guard, where there is one, keeps others out.
    Ours(Guard),
    /// An earlier task of the session is not finished.
    NotYet,
}

impl TaskDir {
    /// Tries to become the one process that works on this task.
    pub fn lock(self, spool: &Spool) -> IoResult<Claim> {
        let tasks = spool.folder(name::TASKS)?;
        self.lock_in(&tasks, name::REQUEST)
    }

    /// The same for a caller that has `tasks/` open. A lock that is missing is made anew where the
    /// file `if_there` stands.
    pub(super) fn lock_in(self, tasks: &Dir, if_there: &str) -> IoResult<Claim> {
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
            if let Some(lock) = self.dir.lock_exclusively(file, name::LOCK)? {
                return self.locked(tasks, lock, if_there);
            }
            if attempt + 1 < TRIES {
                let jitter = super::disk::random_bits() as u64 % 8;
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
            })
        } else {
            Claim::Gone
        })
    }

    /// Makes the lock of a task that has none. What stands there and cannot be locked, as a folder, is
    /// moved out of the way.
    fn make_lock_anew(&self) -> IoResult<File> {
        if !self.has_lock()? && self.dir.has(name::LOCK)? {
            let aside = format!(".{}.{:016x}", name::LOCK, super::disk::random_bits() as u64);
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
            let is_of_this_folder = run.mark.ends_with(&format!("/{device}:{inode}"));
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
    pub(super) fn holder(&self) -> IoResult<Holder> {
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

/// Whether an open file or folder is the one that stands under this name now.
pub(super) fn is_same_file(dir: &Dir, name: &str, file: &impl AsFd) -> IoResult<bool> {
    let held = rustix::fs::fstat(file)
        .map_err(|errno| IoError::new("look at", dir.path_of(name), errno))?;
    let there = dir.stat(name)?;
    Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)))
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
        let lock = dir.lock_exclusively(self.task.make_lock_anew()?, name::LOCK)?;
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
        let lock = self.task.dir.lock_exclusively(held, "")?;
        Ok(lock.map(Guard::from))
    }

    /// The folder of the state a session's tasks share, made when it is not there, and held: an
    /// empty one is taken away by whoever ends last, never from under a task.
    pub fn session_state(&self, spool: &Spool, session: &Name) -> IoResult<SessionState> {
        let sessions = spool.folder(name::SESSIONS)?;
        let begun = Instant::now();
        loop {
            let held = sessions.ensure_own(session.as_str()).and_then(hold_state);
            match held {
                Ok(Some((folder, hold))) => {
                    return Ok(SessionState {
                        path: folder.path_of(name::STATE),
                        sessions,
                        folder,
                        hold,
                    });
                }
                // It is just being taken away.
                Ok(None) => {}
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
            if begun.elapsed() > STATE_PATIENCE {
                let path = sessions.path_of(session.as_str());
                let kind = std::io::ErrorKind::TimedOut;
                return Err(IoError::new("hold the state of", path, kind));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes where the task stands. Best effort by design: it can be derived.
    pub fn write_status(&self, status: &StatusFile) -> IoResult<()> {
        let status = StatusFile {
            updated_at: clock::wall(),
            ..status.clone()
        };
        self.task.dir.exchange(name::STATUS, &status.to_bytes())
    }

    /// The status of a task of which only the request is known: what an attempt begins with.
    pub fn first_status(&self, request: &Request) -> StatusFile {
        pending_status(self.task.id, request)
    }

    /// The status to go on from: what stands there, else what the request alone says.
    pub fn current_status(&self, request: &Request) -> StatusFile {
        self.task
            .status_file()
            .unwrap_or_else(|| pending_status(self.task.id, request))
    }

    /// Brings status and hints in line with a result that stands: also the repair after a crash
    /// between result and status. `before` is the status to go on from, where the caller knows it.
    pub fn settle(
        &self,
        spool: &Spool,
        result: &ResultFile,
        before: Option<StatusFile>,
    ) -> IoResult<()> {
        let id = self.task.id;
        let mut status = before
            .or_else(|| self.task.status_file())
            .or_else(|| Some(pending_status(id, &self.task.request().ok()?)))
            .unwrap_or_else(|| pending_status(id, &Request::new(unreadable_recipe(result))));
        status.ended_by(result);
        // The result is durable: from here on nothing may fail the task, only leave work for later.
        let written = self.write_status(&status);
        let cleaned = [name::ENVIRONMENT, name::ATTACHMENT]
            .map(|only_until_the_end| self.task.dir.remove_anything(only_until_the_end));
        spool.remove_hints(id, result.session_id.as_ref())?;
        cleaned.into_iter().fold(written, IoResult::and)
    }
}

/// Holds a session's state folder; `None` when somebody takes it away in this moment.
fn hold_state(folder: Dir) -> IoResult<Option<(Dir, Flock)>> {
    let state = folder.ensure_own(name::STATE)?.into_file();
    let Some(hold) = folder.lock_shared(state, name::STATE)? else {
        return Ok(None);
    };
    let stands = is_same_file(&folder, name::STATE, &hold)?;
    Ok(stands.then_some((folder, hold)))
}

/// Whether only its owner can open a file, and so lock it.
fn is_private(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & 0o077 == 0)
}

/// Whether no task of a session is at its state folder; as long as the guard lives none gets at it.
pub(super) fn unused_state(folder: &Dir) -> IoResult<Option<Guard>> {
    let Some(state) = folder.find_own(name::STATE)? else {
        return Ok(Some(Guard::not_needed()));
    };
    let lock = folder.lock_exclusively(state.into_file(), name::STATE)?;
    Ok(lock.map(Guard::from))
}

/// How many places behind the limit are held: by tasks that began before it was lowered.
fn held_beyond(slots: &Dir, prefix: &str, limit: u32) -> IoResult<u32> {
    let mut beyond = Vec::new();
    slots.each_name(|name, _| {
        let name = std::str::from_utf8(name).unwrap_or_default();
        let k = name
            .strip_prefix(prefix)
            .and_then(|k| k.parse::<u32>().ok());
        if k.is_some_and(|k| k >= limit) {
            beyond.push(name.to_owned());
        }
        true
    })?;
    let mut held = 0;
    for file in beyond {
        held += u32::from(slots.is_locked(slots.lock_file(&file)?, &file)?);
    }
    Ok(held)
}

/// A recipe name to build a status from when even the request cannot be read; `settle` overwrites
/// it with what the result says.
fn unreadable_recipe(result: &ResultFile) -> Name {
    result
        .recipe
        .clone()
        .unwrap_or_else(|| crate::task::session_of(result.task_id))
}

impl Spool {
    /// Takes one of the first `limit` places of a kind, `None` when all are taken. The kernel
    /// counts, so the limit holds over several watchers and over their deaths.
    pub fn take_slot(&self, recipe: Option<&Name>, limit: u32) -> IoResult<Option<Slot>> {
        let slots = self.folder(name::SLOTS)?;
        let prefix = recipe.map_or(String::new(), |recipe| format!("recipe.{recipe}."));
        let beyond = held_beyond(&slots, &prefix, limit)?;
        let own = rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let mut taken = None;
        let mut held = beyond;
        for k in 0..limit {
            // Runners begin at different places, so that they rarely meet.
            let k = (k + own) % limit;
            let file = format!("{prefix}{k}");
            match slots.try_lock(&file)? {
                Some(lock) if beyond == 0 => return Ok(Some(Slot { _lock: lock })),
                Some(lock) => taken = taken.or(Some(Slot { _lock: lock })),
                None => held += 1,
            }
        }
        // Two that come here at once may both go away; none of them ever is one too many.
        Ok(taken.filter(|_| held < limit))
    }

    /// Asks whether it is this task's turn in its session. A session's order is that of the ids in
    /// its queue; the first task of a made session stands in no queue and is known by its name.
    pub fn session_turn(&self, session: &Name, id: TaskId) -> IoResult<SessionTurn> {
        if let Some(first) = task_of_session(session)
            && first < id
            && let Some(task) = self.task(first)?
            && !task.has_result()?
        {
            return Ok(SessionTurn::NotYet);
        }
        // The first task of a made session comes before all others of it, whatever its queue says.
        if task_of_session(session) == Some(id) {
            return Ok(SessionTurn::Ours(Guard::not_needed()));
        }
        // After a power cut an earlier task's place in the queue may be missing.
        if !self.is_reconciled()? {
            return Ok(SessionTurn::NotYet);
        }
        let sessions = self.folder(name::SESSIONS)?;
        let Some(folder) = sessions.find_own_to_write(session.as_str())? else {
            return Ok(SessionTurn::Ours(Guard::not_needed()));
        };
        let Some(queue) = folder.find_own_to_write(name::QUEUE)? else {
            return Ok(SessionTurn::Ours(Guard::not_needed()));
        };
        let lock = folder.own_lock_file(name::LOCK)?;
        let Some(lock) = folder.lock_exclusively(lock, name::LOCK)? else {
            return Ok(SessionTurn::NotYet);
        };
        // The sweeper may have moved an unused session's folder away in between.
        let now = sessions.find_own(session.as_str())?;
        let stands = now.map_or(Ok(false), |now| is_same_file(&now, name::LOCK, &lock))?;
        if !stands {
            return Ok(SessionTurn::NotYet);
        }
        for earlier in super::store::ids_in(&queue)?
            .into_iter()
            .take_while(|other| *other < id)
        {
            if self.is_open_task(earlier)? {
                return Ok(SessionTurn::NotYet);
            }
            // A hint whose task is finished or gone: whoever left it did not get to this.
            queue.remove_anything(&earlier.to_string())?;
        }
        Ok(SessionTurn::Ours(lock.into()))
    }

    /// Whether a task is published or about to be, and has no result.
    pub(super) fn is_open_task(&self, id: TaskId) -> IoResult<bool> {
        // Staging first: a task moves from there to tasks/, never back. What lies there without a
        // held lock is what a dead submitter left, and never becomes a task.
        let staged = match self.folder(name::STAGING)?.find_dir(id.to_string())? {
            Some(dir) => TaskDir { id, dir }.is_held().unwrap_or(false),
            None => false,
        };
        match self.task(id)? {
            Some(task) => Ok(!task.has_result()?),
            None => Ok(staged),
        }
    }
}
