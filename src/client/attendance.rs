//! Checks that a watcher is running while a caller waits for a task.
//!
//! Not the start of a watcher (`autostart.rs`). Invariant: the check runs at most every two seconds, and each
//! notice is returned once.

use std::time::{Duration, Instant};

use super::notice::Notice;
use super::open::Client;
use crate::ready;
use crate::spool::IoError;
use crate::task::{Reason, TaskId};

/// Checks regularly, while a caller waits, that a watcher is still running.
#[derive(Debug)]
pub struct Attendance {
    next: Instant,
    said_watcher: bool,
    said_pause: bool,
    said_own: bool,
    /// Since when no watcher is running and the caller may not start one.
    unattended: Option<Instant>,
}

impl Client {
    /// The notice that the caller runs in a task, and waits for a task that may need the caller's task to end
    /// first.
    fn waits_in_task(&self, open: &[TaskId]) -> Result<Option<Notice>, IoError> {
        let Some(own) = self.own_task() else {
            return Ok(None);
        };
        // The caller may run in a task of another spool.
        let Some(own_view) = self.view(own)? else {
            return Ok(None);
        };
        let status = &own_view.status;
        for id in open {
            let notice = |reason| Notice::WaitsInTask {
                own,
                awaited: *id,
                reason,
            };
            if *id == own {
                return Ok(Some(notice(None)));
            }
            let Some(view) = self.view(*id)? else {
                continue;
            };
            let name = view.status.recipe.as_ref();
            let recipe = name.and_then(|name| self.recipes().find(name).ok());
            let reasons = ready::reasons(self.spool(), &view, recipe.as_ref())?;
            let is_of_own = |reason: &Reason| match reason {
                Reason::Slots { .. } => true,
                Reason::RecipeSlots { recipe, .. } => status.recipe.as_ref() == Some(recipe),
                Reason::Session { session, .. } => status.session_id.as_ref() == Some(session),
                Reason::NoWatcher
                | Reason::Paused
                | Reason::Copy
                | Reason::Condition(_)
                | Reason::Admission { .. }
                | Reason::Launcher { .. }
                | Reason::Unseen
                | Reason::Soon => false,
            };
            if let Some(reason) = reasons.into_iter().find(is_of_own) {
                return Ok(Some(notice(Some(reason))));
            }
        }
        Ok(None)
    }
}

impl Attendance {
    const PAUSE: Duration = Duration::from_secs(2);
    const RESTART: Duration = Duration::from_secs(5);

    /// The first check is due at once.
    #[expect(
        clippy::new_without_default,
        reason = "the value depends on the current time"
    )]
    pub fn new() -> Attendance {
        Attendance {
            next: Instant::now(),
            said_watcher: false,
            said_pause: false,
            said_own: false,
            unattended: None,
        }
    }

    /// For use after a submission. Its notices have already reported that the spool is paused and, if
    /// `said_watcher`, that no watcher is running.
    pub fn after_submission(said_watcher: bool) -> Attendance {
        Attendance {
            said_watcher,
            said_pause: true,
            ..Attendance::new()
        }
    }

    /// Whether no watcher has been running for longer than a service needs to restart its watcher.
    pub fn is_hopeless(&self) -> bool {
        self.unattended
            .is_some_and(|since| since.elapsed() > Attendance::RESTART)
    }

    /// Starts a watcher if none is running and one may be started; otherwise returns once a notice that no
    /// watcher is running. Also returns once a notice if the caller runs in a task that must end before one
    /// of the awaited tasks, `open`, can start.
    ///
    /// # Errors
    /// The watchers or a task cannot be read.
    pub fn look(&mut self, client: &Client, open: &[TaskId]) -> Result<Vec<Notice>, IoError> {
        let mut notices = Vec::new();
        if Instant::now() < self.next {
            return Ok(notices);
        }
        self.next = Instant::now() + Attendance::PAUSE;
        if !self.said_own {
            notices.extend(client.waits_in_task(open)?);
            self.said_own = !notices.is_empty();
        }
        if !self.said_pause {
            let paused = client.paused();
            self.said_pause = paused.is_some();
            notices.extend(paused);
        }
        if client.spool().has_watcher()? {
            self.unattended = None;
            return Ok(notices);
        }
        let may_start = client.may_start().is_some();
        if !may_start {
            self.unattended.get_or_insert_with(Instant::now);
            if self.said_watcher {
                return Ok(notices);
            }
        }
        self.said_watcher = true;
        notices.extend(match may_start {
            true => client.ensure_watcher(),
            false => client.without_watcher()?,
        });
        Ok(notices)
    }
}
