//! The removal of unused sessions, and of names whose task is gone.
//!
//! Not the order of a session's tasks (`index/sessions.rs`). Invariant: a session with an unfinished task, or
//! whose state is in use, is left.

use super::removal::move_to_trash;
use crate::spool::disk::{Dir, IoResult, LockLevel, random_bits};
use crate::spool::index::unused_state;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::ids_in;
use crate::task::{Name, TaskId, Timestamp};

impl Spool {
    /// Removes a name whose task is gone; `false` if the task exists or the name points at another one.
    pub fn remove_dangling_name(&self, task_name: &Name, id: TaskId) -> IoResult<bool> {
        if self.task(id)?.is_some() {
            return Ok(false);
        }
        self.unlink_name(task_name, id)
    }

    /// Sessions without an unfinished task, each with the time of the last change in its folder or state.
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

    /// When a session's folder or state last changed, in seconds since the epoch; `None` if it has an
    /// unfinished task or does not exist.
    fn idle_since(&self, sessions: &Dir, session: &Name) -> IoResult<Option<i64>> {
        let Some(dir) = sessions.find_own(session.as_str())? else {
            // Not a folder: a recipe replaced it.
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

    /// Whether a session's queue has an unfinished task. An index entry alone is no proof, because the
    /// submitter may have been killed before the task was published.
    fn has_open_task(&self, queue: &Dir) -> IoResult<bool> {
        for id in ids_in(queue)? {
            if self.is_open_task(id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the folder of an unused session; `false` if it is in use.
    pub fn remove_session(&self, session: &Name) -> IoResult<bool> {
        let sessions = self.folder(name::SESSIONS)?;
        let Some(dir) = sessions.find_own_to_write(session.as_str())? else {
            return sessions.unlink(session.as_str());
        };
        let lock = dir.own_lock_file(name::LOCK)?;
        let Some(_lock) = dir.lock_exclusively(LockLevel::Session, lock, name::LOCK)? else {
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
        let trash_name = format!("session.{:016x}", random_bits() as u64);
        if move_to_trash(&sessions, session.as_str(), &dir, &trash, &trash_name)? {
            trash.remove_from_trash(&trash_name).map(|_| true)
        } else {
            self.remove_session_in_place(&sessions, session, &dir, &trash)
        }
    }

    /// Removes a session in place, if it is in a lower layer of overlayfs and cannot be moved. The caller
    /// holds the session's lock and state. A submitter may add a task at any time, so the queue is removed
    /// before the lock, and only entries without an unfinished task are removed from it.
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
}

/// Whether an empty folder was removed. A folder that is not empty any more stays.
fn is_removed(removed: IoResult<bool>) -> IoResult<bool> {
    match removed {
        Err(error) if error.errno() == Some(rustix::io::Errno::NOTEMPTY) => Ok(false),
        removed => removed.map(|_| true),
    }
}
