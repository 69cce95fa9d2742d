//! Whether somebody runs tasks while a caller waits for one.
//!
//! Not the start itself (`autostart.rs`). Invariant: a watcher is looked for every two seconds at most, and each
//! thing to know is said once.

use std::time::{Duration, Instant};

use super::notice::Notice;
use super::open::Client;
use crate::spool::IoError;

/// Looks now and then, while somebody waits, whether there still is a watcher to wait for.
#[derive(Debug)]
pub struct Attendance {
    next: Instant,
    said_watcher: bool,
    said_pause: bool,
    /// Since when there is no watcher and may be none.
    unattended: Option<Instant>,
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
    /// nobody runs anything.
    ///
    /// # Errors
    /// When the watchers cannot be read.
    pub fn look(&mut self, client: &Client) -> Result<Vec<Notice>, IoError> {
        let mut notices = Vec::new();
        if Instant::now() < self.next {
            return Ok(notices);
        }
        self.next = Instant::now() + Attendance::PAUSE;
        if !self.said_pause {
            notices.extend(client.paused());
            self.said_pause = !notices.is_empty();
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
