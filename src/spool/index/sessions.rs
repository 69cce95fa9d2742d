//! Sessions: the order of their tasks, and the folder of the state that these share.
//!
//! Not what becomes of one that nobody uses (`trash/sessions.rs`). Invariants: the first task of a made session runs
//! before all others of it, and these run in the order of their ids; a state folder is never taken away from under a task.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::spool::disk::{
    Dir, Flock, Guard, IoError, IoResult, LockLevel, absent_is_none, is_same_file,
};
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{TaskLock, ids_in};
use crate::task::{Name, TaskId, task_of_session};

/// How long to wait for somebody who is about to take an empty folder away. It does two system
/// calls.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

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
            remove_if_empty(&self.sessions, &self.folder);
        }
    }
}

/// Whose turn it is in a session.
#[derive(Debug)]
pub enum SessionOrder {
    /// This task's; the guard, where there is one, keeps others out.
    Ours(Guard),
    /// An earlier task of the session is not finished.
    NotYet,
}

impl TaskLock {
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
}

/// Holds a session's state folder; `None` when somebody takes it away in this moment.
fn hold_state(folder: Dir) -> IoResult<Option<(Dir, Flock)>> {
    let state = folder.ensure_own(name::STATE)?.into_file();
    let Some(hold) = folder.lock_shared(LockLevel::SessionState, state, name::STATE)? else {
        return Ok(None);
    };
    let stands = is_same_file(&folder, name::STATE, &hold)?;
    Ok(stands.then_some((folder, hold)))
}

/// Removes a session's folder that was left empty. The caller keeps every task away from its state.
fn remove_if_empty(sessions: &Dir, folder: &Dir) {
    // rmdir removes only what is empty, so nothing can be lost here.
    let _ = folder.remove_empty_dir(name::STATE);
    let _ = sessions.remove_empty_dir(folder.name());
}

/// Whether no task of a session is at its state folder; as long as the guard lives none gets at it.
pub(in crate::spool) fn unused_state(folder: &Dir) -> IoResult<Option<Guard>> {
    let Some(state) = folder.find_own(name::STATE)? else {
        return Ok(Some(Guard::not_needed()));
    };
    let lock = folder.lock_exclusively(LockLevel::SessionState, state.into_file(), name::STATE)?;
    Ok(lock.map(Guard::from))
}

impl Spool {
    /// Asks whether it is this task's turn in its session.
    pub fn session_order(&self, session: &Name, id: TaskId) -> IoResult<SessionOrder> {
        // Asked before the queue is looked for: the first task of a made session stands in none.
        if self.first_open(session, id, &[])?.is_some() {
            return Ok(SessionOrder::NotYet);
        }
        // After a power cut an earlier task's place in the queue may be missing. Before the first task of a made
        // session there is none.
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
        // The sweeper may have moved an unused session's folder away in between.
        let now = sessions.find_own(session.as_str())?;
        let stands = now.map_or(Ok(false), |now| is_same_file(&now, name::LOCK, &lock))?;
        if !stands {
            return Ok(SessionOrder::NotYet);
        }
        let queued = ids_in(&queue)?;
        let earlier = self.first_open(session, id, &queued)?;
        for before in queued
            .into_iter()
            .take_while(|before| Some(*before) != earlier && *before < id)
        {
            // A hint whose task is finished or gone: whoever left it did not get to this.
            if !self.is_open_task(before)? {
                queue.remove_anything(&before.to_string())?;
            }
        }
        Ok(match earlier {
            Some(_) => SessionOrder::NotYet,
            None => SessionOrder::Ours(lock.into()),
        })
    }

    /// The first task of a session that comes before this one and is not over: before all others the one that a
    /// made session began with, then those of its queue, in the order of their ids. This alone is the order of a session.
    pub(in crate::spool) fn first_open(
        &self,
        session: &Name,
        id: TaskId,
        queued: &[TaskId],
    ) -> IoResult<Option<TaskId>> {
        let began = task_of_session(session);
        if began == Some(id) {
            return Ok(None);
        }
        let queued = queued.iter().copied().take_while(|before| *before < id);
        for before in began.into_iter().chain(queued) {
            if self.is_open_task(before)? {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }

    /// Whether a task is published or about to be, and has no result.
    pub(in crate::spool) fn is_open_task(&self, id: TaskId) -> IoResult<bool> {
        // Staging first: a task moves from there to tasks/, never back.
        let staged = self.is_being_staged(id)?;
        match self.task(id)? {
            Some(task) => Ok(!task.has_result()?),
            None => Ok(staged),
        }
    }

    /// Takes away the folder of a session that left nothing, as the made ones mostly do.
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

    /// Puts a task into its session's queue; `false` when somebody took the unused folder away
    /// before it was used again.
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

    /// The clock may have been set back, or the id chosen.
    #[test]
    fn the_first_task_of_a_made_session_runs_before_older_ids() {
        let place = tempfile::tempdir().unwrap();
        let spool = Spool::init(&place.path().join("spool"), None, Overrides::default()).unwrap();
        spool.record_reconciled().unwrap();
        let first = spool.new_id();
        let session = session_of(first);
        let older = TaskId::from_parts(first.unix_ms().unsigned_abs() - 90_000, 7);
        submit(&spool, older, Some(&session));
        // Before there is a first one, it has the session to itself.
        let SessionOrder::Ours(held) = spool.session_order(&session, older).unwrap() else {
            panic!("nothing is before it");
        };
        submit(&spool, first, None);
        let is_ours = |id| {
            let turn = spool.session_order(&session, id).unwrap();
            matches!(turn, SessionOrder::Ours(_))
        };
        assert!(!is_ours(first), "the other one has begun");
        drop(held);
        assert!(!is_ours(older));
        let earlier = |id| spool.earlier_in_session(&session, id).unwrap();
        assert_eq!((earlier(older), earlier(first)), (Some(first), None));
        assert!(is_ours(first));
    }
}
