//! Which processes are working on a spool in which others could write.
//!
//! Not what is converted (`mod.rs`). Invariant: a group user could lock and write most files, so neither a
//! lock nor a file proves that a watcher or a runner is running. An open file of a process of the owner
//! proves it. If the holder of a lock cannot be seen (another container), a record that only the owner could
//! write proves it.

use std::collections::HashMap;
use std::ffi::OsStr;

use rustix::fs::Stat;

use super::{WRITABLE, is_file};
use crate::clock::BootId;
use crate::proc;
use crate::spool::disk::{Dir, IoError, IoResult, absent_is_none, lock_table, which};
use crate::spool::layout::name;
use crate::spool::tasks::{TaskDir, ids_in};
use crate::spool::watchers::watcher_files_in;
use crate::task::escape_path;

/// The files and the folder that a runner and its recipe keep open.
const KEPT_OPEN: [&str; 3] = [".", name::STDOUT, name::STDERR];

/// The files that the owner's processes have open.
pub(super) struct Workers {
    open: HashMap<(u64, u64), i32>,
    us: u32,
}

impl Workers {
    pub fn read(root: &Dir) -> IoResult<Workers> {
        let us = rustix::process::geteuid().as_raw();
        let open = proc::open_files(us)
            .map_err(|source| IoError::new("find the processes that use", root.path(), source))?;
        Ok(Workers { open, us })
    }

    /// The running watcher, or the command that is starting one.
    pub fn watcher(&self, watchers: &Dir, start: &str) -> IoResult<Option<String>> {
        for file in watcher_files_in(watchers)?
            .into_iter()
            .chain([start.to_owned()])
        {
            let who = match self.holder(watchers, &file)? {
                Holder::Ours(who) => who,
                // Only a watcher could create the file, a group user could not.
                Holder::Unseen if file != start => unseen(watchers, &file),
                Holder::Unseen | Holder::Nobody => continue,
            };
            return Ok(Some(format!("a watcher ({who})")));
        }
        Ok(None)
    }

    /// The first running task.
    pub fn task(&self, tasks: &Dir) -> IoResult<Option<String>> {
        for id in ids_in(tasks)? {
            // If others have made it inaccessible to us, no runner of ours works in it.
            let Ok(Some(dir)) = tasks.find_dir_here(id.to_string()) else {
                continue;
            };
            if let Some(who) = self.who_runs(&TaskDir::of(id, dir))? {
                return Ok(Some(format!("task {id} ({who})")));
            }
        }
        Ok(None)
    }

    /// The process that runs a task.
    fn who_runs(&self, task: &TaskDir) -> IoResult<Option<String>> {
        Ok(match self.holder(&task.dir, name::LOCK)? {
            Holder::Ours(who) => Some(who),
            _ if task.has_result().unwrap_or(true) => None,
            Holder::Unseen if self.may_run_elsewhere(task) => Some(unseen(&task.dir, name::LOCK)),
            Holder::Unseen | Holder::Nobody => self.runner(task),
        })
    }

    /// Whether a process of ours holds a lock.
    pub fn hold(&self, dir: &Dir, lock: &str) -> IoResult<bool> {
        Ok(matches!(self.holder(dir, lock)?, Holder::Ours(_)))
    }

    /// The process that works in the last attempt: others could have replaced the lock.
    fn runner(&self, task: &TaskDir) -> Option<String> {
        let last = task.last_attempt().ok()?;
        let attempt = task.attempt(last).ok()??;
        KEPT_OPEN.iter().find_map(|file| {
            let stat = attempt.dir.stat(file).ok()??;
            self.pid_of(&stat)
        })
    }

    /// Whether a runner in another pid namespace has recorded in this boot that it runs this task.
    fn may_run_elsewhere(&self, task: &TaskDir) -> bool {
        let last = task.last_attempt().unwrap_or(0);
        let Ok(Some(attempt)) = task.attempt(last) else {
            return false;
        };
        let is_ours = attempt
            .dir
            .own_stat()
            .is_ok_and(|stat| stat.st_uid == self.us && stat.st_mode & WRITABLE == 0);
        let here = BootId::current();
        attempt.run().filter(|_| is_ours).is_some_and(|run| {
            let is_elsewhere = run.boot != here && run.boot.kernel() == here.kernel();
            is_elsewhere && run.task_id == task.id && run.lost_at.is_none()
        })
    }

    fn holder(&self, dir: &Dir, file: &str) -> IoResult<Holder> {
        let is_lock = dir.stat(file)?.is_some_and(|stat| is_file(&stat));
        // A lock that we may not open is not ours.
        let opened = absent_is_none(dir.open_file(file)).ok().flatten();
        let Some(lock) = opened.filter(|_| is_lock) else {
            return Ok(Holder::Nobody);
        };
        let stat = rustix::fs::fstat(&lock)
            .map_err(|errno| IoError::new("check", dir.path_of(OsStr::new(file)), errno))?;
        if !dir.is_locked(lock, file)? {
            return Ok(Holder::Nobody);
        }
        if let Some(who) = self.pid_of(&stat) {
            return Ok(Holder::Ours(who));
        }
        let holders = lock_table::holders(dir, file)?;
        let is_ours = |pid: &&i32| proc::acts_for(**pid, self.us);
        Ok(match holders.iter().find(is_ours) {
            Some(pid) => Holder::Ours(format!("pid {pid}")),
            None if holders.is_empty() => Holder::Unseen,
            None => Holder::Nobody,
        })
    }

    fn pid_of(&self, stat: &Stat) -> Option<String> {
        let pid = self.open.get(&which(stat))?;
        Some(format!("pid {pid}"))
    }
}

/// The holder of a lock.
enum Holder {
    /// A process of the owner.
    Ours(String),
    /// No process, or a process that does not belong to the owner.
    Nobody,
    /// A process that `/proc` does not show: it is in another pid namespace, or it only inherited the lock.
    Unseen,
}

fn unseen(dir: &Dir, file: &str) -> String {
    let path = dir.path_of(file);
    format!(
        "a process that cannot be seen from here; if there is no such process, remove {}",
        escape_path(&path)
    )
}
