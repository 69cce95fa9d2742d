//! Who is at work on a spool of version 1.
//!
//! Not what is converted (`mod.rs`). Invariant: in version 1 a group user could lock most files and write
//! most files, so neither a lock nor a file says that a watcher or a runner lives: an open file of a process
//! of the owner's does.

use std::collections::HashMap;
use std::ffi::OsStr;

use fs2::FileExt;
use rustix::fs::Stat;

use super::is_file;
use crate::proc;
use crate::spool::durable::{Dir, absent_is_none};
use crate::spool::io_error::{IoError, IoResult};
use crate::spool::layout::name;
use crate::spool::lock_table;
use crate::spool::store::{TaskDir, ids_in};
use crate::spool::watchers::seats_in;

/// Root may act for the owner.
const ROOT: u32 = 0;
/// What a runner, and the recipe that it started, keep open.
const KEPT_OPEN: [&str; 3] = [".", "stdout.log", "stderr.log"];

/// What the owner's processes have open.
pub(super) struct Workers {
    open: HashMap<(u64, u64), i32>,
    us: u32,
}

impl Workers {
    pub fn look(root: &Dir) -> IoResult<Workers> {
        let us = rustix::process::geteuid().as_raw();
        let open = proc::open_files(us)
            .map_err(|source| IoError::new("see which processes work on", root.path(), source))?;
        Ok(Workers { open, us })
    }

    /// The watcher that lives, or the command that starts one.
    pub fn watcher(&self, watchers: &Dir, start: &str) -> IoResult<Option<String>> {
        for file in seats_in(watchers)?.into_iter().chain([start.to_owned()]) {
            if let Some(who) = self.holder(watchers, &file)? {
                return Ok(Some(format!("a watcher ({who})")));
            }
        }
        Ok(None)
    }

    /// The first task that runs.
    pub fn task(&self, tasks: &Dir) -> IoResult<Option<String>> {
        for id in ids_in(tasks)? {
            // What others have closed to us, no runner of ours is at work in.
            let Ok(Some(dir)) = tasks.find_dir(id.to_string()) else {
                continue;
            };
            let task = TaskDir { id, dir };
            let who = match self.holder(&task.dir, name::LOCK)? {
                None if !task.has_result().unwrap_or(true) => self.runner(&task),
                held => held,
            };
            if let Some(who) = who {
                return Ok(Some(format!("{id} ({who})")));
            }
        }
        Ok(None)
    }

    /// Whoever works in the last attempt: others could exchange the lock.
    fn runner(&self, task: &TaskDir) -> Option<String> {
        let last = task.last_attempt().ok()?;
        let attempt = task.attempt(last).ok()??;
        KEPT_OPEN.iter().find_map(|file| {
            let stat = attempt.dir.stat(file).ok()??;
            self.pid_of(&stat)
        })
    }

    /// Who holds a lock, if that is somebody who counts.
    fn holder(&self, dir: &Dir, file: &str) -> IoResult<Option<String>> {
        let is_lock = dir.stat(file)?.is_some_and(|stat| is_file(&stat));
        // One that we may not open is none of ours.
        let opened = absent_is_none(dir.open_file(file)).ok().flatten();
        let Some(lock) = opened.filter(|_| is_lock) else {
            return Ok(None);
        };
        if FileExt::try_lock_shared(&lock).is_ok() {
            return Ok(None);
        }
        let stat = rustix::fs::fstat(&lock)
            .map_err(|errno| IoError::new("look at", dir.path_of(OsStr::new(file)), errno))?;
        if let Some(who) = self.pid_of(&stat) {
            return Ok(Some(who));
        }
        let holders = lock_table::holders(dir, file)?;
        let counts = |pid: &&i32| {
            proc::owner_of(**pid).is_some_and(|owner| owner == self.us || owner == ROOT)
        };
        Ok(match holders.iter().find(counts) {
            Some(pid) => Some(format!("pid {pid}")),
            None if holders.is_empty() => Some("a process that is not seen from here".to_owned()),
            None => None,
        })
    }

    fn pid_of(&self, stat: &Stat) -> Option<String> {
        let pid = self.open.get(&(stat.st_dev, stat.st_ino))?;
        Some(format!("pid {pid}"))
    }
}
