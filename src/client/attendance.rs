//! Whether somebody runs tasks while a caller waits for one.
//!
//! Not the start itself (`autostart.rs`). Invariant: a watcher is looked for every two seconds at most, and each
//! thing to know is said once.

use std::time::{Duration, Instant};

use super::notice::Notice;
use super::open::Client;
use crate::ready;
use crate::spool::IoError;
use crate::task::{Reason, TaskId};

/// Looks now and then, while somebody waits, whether there still is a watcher to wait for.
#[derive(Debug)]
pub struct Attendance {
    next: Instant,
    said_watcher: bool,
    said_pause: bool,
    said_own: bool,
    /// Since when there is no watcher and may be none.
    unattended: Option<Instant>,
}

impl Client {
    /// That the caller is part of a task and waits for what may need this task to end first.
    fn waits_in_task(&self, open: &[TaskId]) -> Result<Option<Notice>, IoError> {
        let Some(own) = self.own_task() else {
            return Ok(None);
        };
        // The caller may be a task of another spool.
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

    /// The first look is due at once.
    #[expect(clippy::new_without_default, reason = "it begins at a moment")]
    pub fn new() -> Attendance {
        Attendance {
            next: Instant::now(),
            said_watcher: false,
            said_pause: false,
            said_own: false,
            unattended: None,
        }
    }

    /// The same after a submission, whose notices have said that the spool is paused; and that no watcher runs,
    /// if `said_watcher`.
    pub fn after_submission(said_watcher: bool) -> Attendance {
        Attendance {
            said_watcher,
            said_pause: true,
            ..Attendance::new()
        }
    }

    /// Whether nobody has been there for longer than a service takes to start its watcher anew.
    pub fn is_hopeless(&self) -> bool {
        self.unattended
            .is_some_and(|since| since.elapsed() > Attendance::RESTART)
    }

    /// Starts a watcher where the last one is gone and one may be started; else answers once that
    /// nobody runs anything. Answers once as well if the caller is part of a task for which one of the tasks that are
    /// waited for, `open`, has to wait.
    ///
    /// # Errors
    /// When the watchers or a task cannot be read.
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
