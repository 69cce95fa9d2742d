//! What leaves a spool besides finished tasks (`clearing.rs`): trash, litter, refused drops, names
//! and sessions; and the turn and the clocks of those who sweep.
//!
//! Not what is old enough (`sweeper/plan.rs`). Invariant: what somebody may still be building or
//! using is left.

use std::ffi::{OsStr, OsString};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::claim::unused_state;
use super::clearing::{bury, move_to_trash};
use super::disk::random_bits;
use super::disk::{Dir, Flock, Guard, IoResult, absent_is_none, mounted};
use super::health::PROBE_PREFIX;
use super::layout::{SMALL_FILE, Spool, name, pretty};
use super::rejected::{DEEPEST, is_of_conversion, reason_beside, strange_below};
use super::removed::{is_kept, of_entry};
use super::store::{TaskDir, ids_in};
use crate::clock::BootId;
use crate::task::{Name, TaskId, Timestamp};

/// `sweep.json`: the clocks at the last pass, so that a jump of the wall clock is noticed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepClock {
    /// Format version.
    pub v: u32,
    /// Wall clock.
    pub wall: Timestamp,
    /// Seconds since boot, suspend included.
    pub boottime_sec: f64,
    /// Which boot.
    pub boot: BootId,
    /// No age begins before this moment: the last jump of the clock that was noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ages_from: Option<Timestamp>,
}

impl Spool {
    /// Takes a task's folder that was not accepted out of `tasks/` in one step, then removes it. Its id is not
    /// kept: the drop that it was made of may be taken up again.
    pub(super) fn discard(&self, task: &TaskDir) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        let tasks = self.folder(name::TASKS)?;
        let grave = bury(&tasks, &trash, task, true, &mut || {
            self.remove_hints(task.id, None)
        })?;
        self.remove_hints(task.id, None)?;
        grave.empty(&trash, task).whole().map(|_| ())
    }

    /// Whether a task was removed and its folder still lies in the trash.
    pub(super) fn is_in_trash(&self, id: TaskId) -> IoResult<bool> {
        let prefix = format!("{id}.");
        let mut found = false;
        self.folder(name::TRASH)?.each_name(|name, _| {
            found = name.starts_with(prefix.as_bytes());
            !found
        })?;
        Ok(found)
    }

    /// What removals that were cut off left behind.
    pub fn trash(&self) -> IoResult<Vec<OsString>> {
        let mut left = self.own_folder(name::TRASH)?.names()?;
        left.retain(|entry| is_ours(entry) && !is_kept(entry));
        Ok(left)
    }

    /// A folder of the spool from which something is to be removed: not one that somebody mounted there.
    pub(super) fn own_folder(&self, folder: &'static str) -> IoResult<Dir> {
        let root = self.root()?;
        let there = self.folder(folder)?;
        if there.mount()? == root.mount()? {
            Ok(there)
        } else {
            Err(mounted("remove anything from", root.path_of(folder)))
        }
    }

    /// Removes one of them.
    pub fn remove_trash(&self, entry: &OsString) -> IoResult<()> {
        let trash = self.folder(name::TRASH)?;
        // A removal that was cut off before it kept the task's id.
        let id = entry
            .to_str()
            .and_then(|text| text.split('.').next()?.parse().ok());
        if let Some(id) = id {
            self.remember_removed(&trash, id, None)?;
        }
        trash.remove_from_trash(entry).map(|_| ())
    }

    /// Names of half-built submissions whose submitter is dead. One without a lock file must be
    /// an hour old, its submitter may be about to make the lock; without a clock that can be
    /// believed (`now` is `None`) it is left.
    pub fn staging_litter(&self, now: Option<Timestamp>) -> IoResult<Vec<OsString>> {
        const LOCKLESS_PATIENCE_SEC: i64 = 3600;
        let staging = self.own_folder(name::STAGING)?;
        let mut litter = Vec::new();
        for entry in staging.names()? {
            let Some(stat) = staging.stat(&entry)? else {
                continue;
            };
            let is_old =
                now.is_some_and(|now| now.unix_ms() / 1000 - stat.st_mtime > LOCKLESS_PATIENCE_SEC);
            let id = entry.to_str().and_then(|text| text.parse::<TaskId>().ok());
            let Some(dir) = absent_is_none(staging.open_dir(&entry)).ok().flatten() else {
                if is_old {
                    litter.push(entry);
                }
                continue;
            };
            let is_probe = entry
                .as_encoded_bytes()
                .starts_with(PROBE_PREFIX.as_bytes());
            let is_dead = match id {
                Some(id) => match dir.has(name::LOCK) {
                    // A lock that cannot be tested is nobody's whom we know: left alone.
                    Ok(true) => !TaskDir { id, dir }.is_held().unwrap_or(true),
                    Ok(false) => is_old,
                    Err(_) => false,
                },
                // A claim with a drop in it is not litter: a watcher will replay it.
                None => is_old && (is_probe || dir.is_empty().unwrap_or(false)),
            };
            if is_dead {
                litter.push(entry);
            }
        }
        Ok(litter)
    }

    /// Removes one entry of `staging/`, with the hint it may have made; `false` when somebody is
    /// building there after all.
    ///
    /// Moved away first and looked at once more: a watcher that replays a claim builds anew under
    /// the same id, and a folder that is being emptied must not become a task.
    pub fn remove_staged(&self, entry: &OsString) -> IoResult<bool> {
        let staging = self.folder(name::STAGING)?;
        let trash = self.folder(name::TRASH)?;
        let id = entry.to_str().and_then(|text| text.parse::<TaskId>().ok());
        // Not under its id: a task's folder in the trash means that the task was removed.
        let grave = format!("staged.{:016x}", random_bits() as u64);
        match staging.rename_new(entry, &trash, &grave) {
            Ok(()) => {}
            Err(error) if error.is_absent() => return Ok(false),
            Err(error) if error.is_immovable() || error.is_no_space() => {
                return self.remove_staged_in_place(&staging, &trash, entry);
            }
            Err(error) => return Err(error),
        }
        if let Some(id) = id
            && let Some(dir) = absent_is_none(trash.open_dir(&grave)).ok().flatten()
            && (TaskDir { id, dir }).is_held().unwrap_or(false)
        {
            trash.rename_new(&grave, &staging, entry)?;
            return Ok(false);
        }
        trash.remove_from_trash(&grave)?;
        if let Some(id) = id {
            self.check_open_hint(id)?;
        }
        Ok(true)
    }

    /// The same in a lower layer of overlayfs, from which no folder can be moved. Nobody builds under
    /// a name that is there; the lock goes last, and while it is held nobody works there.
    fn remove_staged_in_place(
        &self,
        staging: &Dir,
        trash: &Dir,
        entry: &OsString,
    ) -> IoResult<bool> {
        let Some(dir) = staging.find_dir(entry)? else {
            return Ok(false);
        };
        let _lock = match absent_is_none(dir.open_writable(name::LOCK))? {
            None => Guard::not_needed(),
            Some(file) => match dir.lock_exclusively(file, name::LOCK)? {
                Some(lock) => lock.into(),
                None => return Ok(false),
            },
        };
        let last = [name::LOCK];
        staging
            .remove_in_place(entry, &dir, &last, trash, &mut || Ok(()))
            .whole()?;
        if let Some(id) = entry.to_str().and_then(|text| text.parse::<TaskId>().ok()) {
            self.check_open_hint(id)?;
        }
        Ok(true)
    }

    /// Refused drops and their reasons, with the moment they were refused. In a group spool that is the moment of
    /// the reason: the id may be of another one.
    pub fn rejected_files(&self) -> IoResult<Vec<(OsString, Timestamp)>> {
        let rejected = self.own_folder(name::REJECTED)?;
        let mut files = Vec::new();
        for name in rejected.names()? {
            let Some(id) = refused_id(&name) else {
                continue;
            };
            let mut at = Timestamp::from_unix_ms(id.unix_ms());
            if self.is_group()
                && let Some(reason) = reason_beside(&name)
                && let Some(stat) = rejected.stat(reason)?
            {
                at = Timestamp::from_unix_ms(stat.st_mtime.saturating_mul(1000));
            }
            files.push((name, at));
        }
        Ok(files)
    }

    /// Removes one refused drop or reason; `false` where it stays. Of folders only what a conversion put there
    /// goes with all that is in it; another one only if it is empty, because what an earlier program or a
    /// person put here may be all that somebody has of it. What only root can remove is named by `doctor`.
    pub fn remove_rejected(&self, file: &OsString) -> IoResult<bool> {
        let rejected = self.folder(name::REJECTED)?;
        let trash = self.folder(name::TRASH)?;
        if let Some(id) = refused_id(file)
            && is_under_its_own_id(file, id)
        {
            // The id was printed; no other drop may bring it.
            self.remember_removed(&trash, id, None)?;
        }
        let removed = if is_of_conversion(file) {
            rejected.remove_tree_by(file, &trash).map(|_| true)
        } else {
            match rejected.unlink(file) {
                Err(error) if matches!(error.errno(), Some(Errno::ISDIR | Errno::PERM)) => {
                    rejected.remove_empty_dir(file)
                }
                removed => removed,
            }
        };
        match removed {
            Err(error) if error.errno() == Some(Errno::NOTEMPTY) => Ok(false),
            Err(_) if strange_below(&rejected, file, DEEPEST).is_some() => Ok(false),
            removed => removed,
        }
    }

    /// Removes a name whose task is gone; `false` when it leads somewhere after all.
    pub fn remove_dangling_name(&self, task_name: &Name, id: TaskId) -> IoResult<bool> {
        if self.task(id)?.is_some() {
            return Ok(false);
        }
        self.unlink_name(task_name, id)
    }

    /// Sessions with no task waiting, and when their folder or state last changed.
    pub fn idle_sessions(&self) -> IoResult<Vec<(Name, Timestamp)>> {
        let sessions = self.own_folder(name::SESSIONS)?;
        let mut idle = Vec::new();
        for entry in sessions.names()? {
            let Some(session) = entry.to_str().and_then(|text| text.parse::<Name>().ok()) else {
                continue;
            };
            let last = match self.idle_since(&sessions, &session) {
                Ok(Some(last)) => last,
                Ok(None) => continue,
                Err(error) if error.is_unusable() => continue,
                Err(error) => return Err(error),
            };
            idle.push((session, Timestamp::from_unix_ms(last.saturating_mul(1000))));
        }
        Ok(idle)
    }

    /// When a session's folder or state last changed, in seconds of the epoch; `None` while a task
    /// of it waits or there is no such folder.
    fn idle_since(&self, sessions: &Dir, session: &Name) -> IoResult<Option<i64>> {
        let Some(dir) = sessions.find_own(session.as_str())? else {
            // Only a recipe puts something else there.
            let stat = sessions.stat(session.as_str())?;
            return Ok(stat.map(|stat| stat.st_mtime));
        };
        let mut last = dir.own_stat()?.st_mtime;
        if let Some(queue) = dir.find_own(name::QUEUE)? {
            if self.has_open_task(&queue)? {
                return Ok(None);
            }
            last = last.max(queue.own_stat()?.st_mtime);
        }
        if let Some(state) = dir.find_own(name::STATE)? {
            last = last.max(state.newest_change());
        }
        Ok(Some(last))
    }

    /// Whether a session's queue has a task that is not finished. A hint alone says nothing: its
    /// submitter may have died before there was a task.
    fn has_open_task(&self, queue: &Dir) -> IoResult<bool> {
        for id in ids_in(queue)? {
            if self.is_open_task(id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the folder of a session nobody uses; `false` when somebody does.
    pub fn remove_session(&self, session: &Name) -> IoResult<bool> {
        let sessions = self.folder(name::SESSIONS)?;
        let Some(dir) = sessions.find_own_to_write(session.as_str())? else {
            return sessions.unlink(session.as_str());
        };
        let lock = dir.own_lock_file(name::LOCK)?;
        let Some(_lock) = dir.lock_exclusively(lock, name::LOCK)? else {
            return Ok(false);
        };
        if let Some(queue) = dir.find_own(name::QUEUE)?
            && self.has_open_task(&queue)?
        {
            return Ok(false);
        }
        let Some(_state) = unused_state(&dir)? else {
            return Ok(false);
        };
        let trash = self.folder(name::TRASH)?;
        let grave = format!("session.{:016x}", random_bits() as u64);
        if move_to_trash(&sessions, session.as_str(), &dir, &trash, &grave)? {
            trash.remove_from_trash(&grave).map(|_| true)
        } else {
            self.remove_session_in_place(&sessions, session, &dir, &trash)
        }
    }

    /// The same in a lower layer of overlayfs, from which no folder can be moved. The caller holds the
    /// session's lock and its state. A submitter may come in between: the queue goes before the lock,
    /// entry by entry and only while it is empty, so that no task loses its place.
    fn remove_session_in_place(
        &self,
        sessions: &Dir,
        session: &Name,
        dir: &Dir,
        trash: &Dir,
    ) -> IoResult<bool> {
        for entry in dir.names()? {
            if entry != name::QUEUE && entry != name::LOCK {
                dir.remove_tree_by(&entry, trash)?;
            }
        }
        if let Some(queue) = dir.find_own_to_write(name::QUEUE)? {
            for id in ids_in(&queue)? {
                if self.is_open_task(id)? {
                    return Ok(false);
                }
                queue.unlink(id.to_string())?;
            }
            if !is_removed(dir.remove_empty_dir(name::QUEUE))? {
                return Ok(false);
            }
        }
        dir.unlink(name::LOCK)?;
        is_removed(sessions.remove_empty_dir(session.as_str()))
    }

    /// Takes away the folder of a session that left nothing, as the made ones mostly do.
    pub fn remove_empty_session(&self, session: &Name) {
        let Ok(sessions) = self.folder(name::SESSIONS) else {
            return;
        };
        if let Ok(Some(dir)) = sessions.find_own_to_write(session.as_str())
            && let Ok(Some(_state)) = unused_state(&dir)
        {
            // rmdir removes only what is empty, so nothing can be lost here.
            let _ = dir.remove_empty_dir(name::STATE);
            let _ = sessions.remove_empty_dir(session.as_str());
        }
    }

    /// Makes this process the only sweeper of the spool; `None` when another one is at it.
    pub fn sweep_turn(&self) -> IoResult<Option<Flock>> {
        self.root()?.try_lock(name::SWEEP_LOCK)
    }

    /// The clocks of the last pass; `None` when there was none or they cannot be read.
    pub fn sweep_clock(&self) -> IoResult<Option<SweepClock>> {
        let bytes = self.root()?.read(name::SWEEP, SMALL_FILE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Writes the clocks of this pass.
    pub fn record_sweep_clock(&self, clock: &SweepClock) -> IoResult<()> {
        self.root()?.replace(name::SWEEP, &pretty(clock))
    }

    /// Whether there is anything a sweep could look at: asked once a minute, so it must cost nothing.
    pub fn has_anything_to_sweep(&self) -> IoResult<bool> {
        for folder in [
            name::TASKS,
            name::REJECTED,
            name::STAGING,
            name::TRASH,
            name::SESSIONS,
        ] {
            if !self.folder(folder)?.is_empty()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The id that a refused drop was refused under.
fn refused_id(file: &OsStr) -> Option<TaskId> {
    let id = file.as_encoded_bytes().get(..TaskId::LEN)?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// Whether a refused drop was refused under the id that it brought.
fn is_under_its_own_id(file: &OsStr, id: TaskId) -> bool {
    let own = format!("-{id}.");
    let rest = file.as_encoded_bytes().get(TaskId::LEN..);
    rest.is_some_and(|rest| rest.starts_with(own.as_bytes()))
}

/// Whether an entry of the trash is one that a removal made. What else lies there is somebody's.
fn is_ours(entry: &OsStr) -> bool {
    const KINDS: [&str; 4] = ["session", "deep", "staged", "claim"];
    let Some((kind, rest)) = entry.to_str().and_then(|entry| entry.split_once('.')) else {
        return false;
    };
    let is_hex =
        |digits: usize| rest.len() == digits && rest.bytes().all(|it| it.is_ascii_hexdigit());
    match kind.parse::<TaskId>() {
        Ok(_) => is_hex(8) || of_entry(entry).is_some(),
        Err(_) => KINDS.contains(&kind) && is_hex(16),
    }
}

/// Whether an empty folder went; one that is in use again by now stays.
fn is_removed(removed: IoResult<bool>) -> IoResult<bool> {
    match removed {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOTEMPTY) => Ok(false),
        removed => removed.map(|_| true),
    }
}
