//! Sessions: the order of their tasks, and the state folder that the tasks share.
//!
//! Not how an unused session is removed (`trash/sessions.rs`). Invariants: the task for which a session was
//! created runs before all others of it, and the others run in the order of their ids; a state folder is
//! never removed while a task uses it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::spool::disk::{
    Dir, Flock, Guard, IoError, IoResult, LockLevel, absent_is_none, is_same_file,
};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{TaskLock, ids_in};
use crate::task::{Name, TaskId, task_of_session};

/// How long to wait for a process that is removing an empty folder. It makes only two system calls.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// The state folder that a session's tasks share. It is not removed while this is held.
#[derive(Debug)]
pub struct SessionState {
    path: PathBuf,
    sessions: Dir,
    folder: Dir,
    hold: Flock,
}

impl SessionState {
    /// The path of the state folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Releases the folder, once no process of the task uses it. An empty folder is removed here, because it
    /// is already open; most sessions that were created for one task are empty.
    pub fn let_go(self) {
        if self.hold.upgrade().unwrap_or(false) {
            remove_if_empty(&self.sessions, &self.folder);
        }
    }
}

/// Whether a task may start now in its session.
#[derive(Debug)]
pub enum SessionOrder {
    /// It may start. The guard, if it is a lock, keeps other tasks of the session from starting.
    Ours(Guard),
    /// An earlier task of the session is not finished.
    NotYet,
}

impl TaskLock {
    /// Opens the state folder of a session, creates it if necessary, and holds it with a shared lock. The
    /// last task to release an empty folder removes it.
    pub fn session_state(&self, spool: &Spool, session: &Name) -> IoResult<SessionState> {
        let sessions = spool.folder(name::SESSIONS)?;
        let started = Instant::now();
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
                // Another process is removing it.
                Ok(None) => {}
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
            if started.elapsed() > STATE_PATIENCE {
                let path = sessions.path_of(session.as_str());
                let kind = std::io::ErrorKind::TimedOut;
                return Err(IoError::new("lock the state folder of", path, kind));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Locks a session's state folder; `None` if another process is removing it.
fn hold_state(folder: Dir) -> IoResult<Option<(Dir, Flock)>> {
    let state = folder.ensure_own(name::STATE)?.into_file();
    let Some(hold) = folder.lock_shared(LockLevel::SessionState, state, name::STATE)? else {
        return Ok(None);
    };
    let is_current = is_same_file(&folder, name::STATE, &hold)?;
    Ok(is_current.then_some((folder, hold)))
}

/// Removes a session's folder if it is empty. The caller holds its state folder exclusively.
fn remove_if_empty(sessions: &Dir, folder: &Dir) {
    // rmdir(2) removes only empty folders, so no data can be lost.
    let _ = folder.remove_empty_dir(name::STATE);
    let _ = sessions.remove_empty_dir(folder.name());
}

/// Locks a session's state folder exclusively, so that no task can use it while the guard is held. `None` if
/// a task uses it.
pub(in crate::spool) fn unused_state(folder: &Dir) -> IoResult<Option<Guard>> {
    let Some(state) = folder.find_own(name::STATE)? else {
        return Ok(Some(Guard::not_needed()));
    };
    let lock = folder.lock_exclusively(LockLevel::SessionState, state.into_file(), name::STATE)?;
    Ok(lock.map(Guard::from))
}

impl Spool {
    /// Checks whether this task may start now in its session.
    pub fn session_order(&self, session: &Name, id: TaskId) -> IoResult<SessionOrder> {
        // Checked before the queue is read, because the first task of a session is not in the queue.
        if self.first_open(session, id, &[])?.is_some() {
            return Ok(SessionOrder::NotYet);
        }
        // After a power cut the queue entry of an earlier task may be missing, so the index must be
        // reconciled first. The first task of a session has no earlier task.
        if task_of_session(session) != Some(id) && !self.is_reconciled()? {
            return Ok(SessionOrder::NotYet);
        }
        let sessions = self.folder(name::SESSIONS)?;
        let Some(folder) = sessions.find_own_to_write(session.as_str())? else {
            return Ok(SessionOrder::Ours(Guard::not_needed()));
        };
        let Some(queue) = folder.find_own_to_write(name::QUEUE)? else {
            return Ok(SessionOrder::Ours(Guard::not_needed()));
        };
        let lock = folder.own_lock_file(name::LOCK)?;
        let Some(lock) = folder.lock_exclusively(LockLevel::Session, lock, name::LOCK)? else {
            return Ok(SessionOrder::NotYet);
        };
        // The sweeper may have moved the folder of an unused session away before it was locked.
        let now = sessions.find_own(session.as_str())?;
        let is_current = now.map_or(Ok(false), |now| is_same_file(&now, name::LOCK, &lock))?;
        if !is_current {
            return Ok(SessionOrder::NotYet);
        }
        let queued = ids_in(&queue)?;
        let earlier = self.first_open(session, id, &queued)?;
        for before in queued
            .into_iter()
            .take_while(|before| Some(*before) != earlier && *before < id)
        {
            // Removes entries of finished or removed tasks, left by a process that was killed.
            if !self.is_open_task(before)? {
                queue.remove_anything(&before.to_string())?;
            }
        }
        Ok(match earlier {
            Some(_) => SessionOrder::NotYet,
            None => SessionOrder::Ours(lock.into()),
        })
    }

    /// The first unfinished task that comes before this one in its session. The task for which the session
    /// was created comes first, then those of the queue in the order of their ids. Only this function defines
    /// the order of a session.
    pub(in crate::spool) fn first_open(
        &self,
        session: &Name,
        id: TaskId,
        queued: &[TaskId],
    ) -> IoResult<Option<TaskId>> {
        let first = task_of_session(session);
        if first == Some(id) {
            return Ok(None);
        }
        let queued = queued.iter().copied().take_while(|before| *before < id);
        for before in first.into_iter().chain(queued) {
            if self.is_open_task(before)? {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }

    /// Whether a task is published or being built, and has no result.
    pub(in crate::spool) fn is_open_task(&self, id: TaskId) -> IoResult<bool> {
        // `staging/` is checked first, because tasks only move from there to `tasks/`.
        let staged = self.is_being_staged(id)?;
        match self.task(id)? {
            Some(task) => Ok(!task.has_result()?),
            None => Ok(staged),
        }
    }

    /// Removes the folder of a session if it is empty and unused, as most sessions of a single task are.
    pub fn remove_empty_session(&self, session: &Name) {
        let Ok(sessions) = self.folder(name::SESSIONS) else {
            return;
        };
        if let Ok(Some(folder)) = sessions.find_own_to_write(session.as_str())
            && let Ok(Some(_state)) = unused_state(&folder)
        {
            remove_if_empty(&sessions, &folder);
        }
    }

    /// Adds a task to its session's queue; `false` if another process removed the unused folder first.
    pub(super) fn queue_in_session(
        &self,
        id: TaskId,
        task: &Dir,
        session: &Name,
    ) -> IoResult<bool> {
        let sessions = self.folder(name::SESSIONS)?;
        let Some(folder) = absent_is_none(sessions.ensure_own(session.as_str()))? else {
            return Ok(false);
        };
        let queue = absent_is_none(folder.ensure_own(name::QUEUE))?;
        let Some(queue) = queue else {
            return Ok(false);
        };
        let made = queue.make_entry(id.to_string(), task, name::LOCK);
        if absent_is_none(made)?.is_none()
            || absent_is_none(folder.own_lock_file(name::LOCK))?.is_none()
        {
            return Ok(false);
        }
        is_same_file(&sessions, session.as_str(), &folder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::config::Overrides;
    use crate::spool::tasks::Submission;
    use crate::task::{Request, session_of};

    fn submit(spool: &Spool, id: TaskId, session: Option<&Name>) {
        let mut request = Request::parse(b"{\"recipe\": \"echo\"}").unwrap();
        request.session_id = session.cloned();
        let (environment, attachment, origin) = (Map::new(), None, None);
        let submission = Submission {
            id,
            request,
            environment,
            attachment,
            origin,
        };
        drop(spool.submit(vec![submission]).unwrap());
    }

    /// An id can be older if the clock was set back, or if a user chose the id.
    #[test]
    fn the_first_task_of_a_session_runs_before_tasks_with_older_ids() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::init(&place.path().join("spool"), None, Overrides::default()).unwrap();
        spool.record_reconciled().unwrap();
        let first = spool.new_id();
        let session = session_of(first);
        let older = TaskId::from_parts(first.unix_ms().unsigned_abs() - 90_000, 7);
        submit(&spool, older, Some(&session));
        // Before the first task exists, the older one may start.
        let SessionOrder::Ours(held) = spool.session_order(&session, older).unwrap() else {
            panic!("no task comes before it");
        };
        submit(&spool, first, None);
        let is_ours = |id| {
            let order = spool.session_order(&session, id).unwrap();
            matches!(order, SessionOrder::Ours(_))
        };
        assert!(!is_ours(first), "the older task has started");
        drop(held);
        assert!(!is_ours(older));
        let earlier = |id| spool.earlier_in_session(&session, id).unwrap();
        assert_eq!((earlier(older), earlier(first)), (Some(first), None));
        // A child that another test of this process starts holds copies of all locks until it runs its
        // program.
        let started = Instant::now();
        while !is_ours(first) {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "its lock is free"
            );
            std::thread::yield_now();
        }
    }
}
