//! Waiting until tasks end.
//!
//! Not following a task's log (`follow.rs`). The wait wakes up when an index entry is removed from `open/`,
//! and also at intervals, since a wake-up may be missed. A drop that is not admitted yet can be awaited too.
//! Invariant: a task counts as ended once it has a result.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::attendance::Attendance;
use super::notice::Notice;
use super::open::Client;
use super::select::{Part, Selection};
use super::stop::Stop;
use crate::spool::{IoError, ResolveError, Spool, Target, TaskView, Wake};
use crate::task::{Name, TaskId};

/// How often to check without a wake-up.
const CHECK_INTERVAL: Duration = Duration::from_millis(1000);

/// When to stop waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitOptions {
    /// Stop after this time ([`WaitError::TimedOut`]).
    pub timeout: Option<Duration>,
    /// Stop if no task and no watcher runs, and the caller may not start one ([`WaitError::Unattended`]).
    pub need_watcher: bool,
}

/// An awaited task or drop.
#[derive(Debug)]
pub enum Awaited {
    /// A drop that is not a task yet.
    Drop(Name),
    /// A pending or running task.
    Open(TaskId),
    /// A task that has ended.
    Ended(Box<TaskView>),
}

/// Why the wait ended early.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// No task matches, several tasks match, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The task was removed, so there will be no result.
    #[error("the task {0} was removed during the wait")]
    Removed(TaskId),
    /// No watcher is running.
    #[error("no watcher is running on {}, and this command may not start one", spool.display())]
    Unattended {
        /// The spool.
        spool: PathBuf,
        /// Whether this user could start one by hand.
        is_owner: bool,
    },
    /// The timeout expired. The tasks continue.
    #[error("the wait timed out; {}", continuing(*open, *all))]
    TimedOut {
        /// The number of tasks that have not ended.
        open: usize,
        /// The number of awaited tasks.
        all: usize,
    },
    /// The caller stopped the call. The tasks continue.
    #[error("interrupted; {}", continuing(*open, *all))]
    Interrupted {
        /// The number of tasks that have not ended.
        open: usize,
        /// The number of awaited tasks.
        all: usize,
    },
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn continuing(open: usize, all: usize) -> String {
    match (open, all) {
        (_, 1) => "the task continues".to_owned(),
        (1, _) => format!("1 of {all} tasks continues"),
        _ if open == all => format!("all {all} tasks continue"),
        _ => format!("{open} of {all} tasks continue"),
    }
}

impl Client {
    /// Waits until all of these tasks have ended. Returns them in the given order.
    ///
    /// # Errors
    /// [`WaitError`]. The tasks continue.
    pub fn wait(
        &self,
        what: &Selection,
        options: &WaitOptions,
        stop: &dyn Stop,
    ) -> Result<Vec<TaskView>, WaitError> {
        let mut waiting = self.waiting(what, options)?;
        while !waiting.look()? {
            waiting.attend()?;
            waiting.pause(Waiting::LONGEST_PAUSE, stop)?;
        }
        Ok(waiting.into_ended())
    }

    /// Waits step by step, for a caller that shows something in the meantime: call `look`, `attend` and
    /// `pause` in a loop until `look` returns `true`.
    ///
    /// # Errors
    /// A task is not found, or the spool cannot be read.
    pub fn waiting(
        &self,
        what: &Selection,
        options: &WaitOptions,
    ) -> Result<Waiting<'_>, WaitError> {
        // Listen before checking the tasks, so that no end is missed.
        let wake = Wake::for_waiting(self.spool())?;
        let awaited = chosen(self, what)?;
        let timeout = options.timeout;
        Ok(Waiting {
            client: self,
            wake,
            awaited,
            attendance: Attendance::new(),
            // A timeout that is too large for the clock is no timeout.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            need_watcher: options.need_watcher,
        })
    }
}

/// The state of a wait.
pub struct Waiting<'a> {
    client: &'a Client,
    wake: Wake,
    awaited: Vec<Awaited>,
    attendance: Attendance,
    deadline: Option<Instant>,
    need_watcher: bool,
}

impl Waiting<'_> {
    /// The longest useful pause.
    pub const LONGEST_PAUSE: Duration = CHECK_INTERVAL;

    /// The awaited tasks, as of the last [`Waiting::look`].
    pub fn awaited(&self) -> &[Awaited] {
        &self.awaited
    }

    /// Reads each task. Returns `true` if all have ended.
    ///
    /// # Errors
    /// [`WaitError::Removed`], [`WaitError::Resolve`] for a refused drop, or the spool cannot be read.
    pub fn look(&mut self) -> Result<bool, WaitError> {
        for one in &mut self.awaited {
            look(self.client.spool(), one)?;
        }
        Ok(self.open() == 0)
    }

    /// Starts a watcher if one is needed and may be started. Returns notices.
    ///
    /// # Errors
    /// The watchers cannot be read.
    pub fn attend(&mut self) -> Result<Vec<Notice>, WaitError> {
        let open = self.awaited.iter().filter_map(|one| match one {
            Awaited::Open(id) => Some(*id),
            Awaited::Drop(_) | Awaited::Ended(_) => None,
        });
        let open: Vec<TaskId> = open.collect();
        Ok(self.attendance.look(self.client, &open)?)
    }

    /// Waits until something changes, at most this long.
    ///
    /// # Errors
    /// [`WaitError::Unattended`], [`WaitError::Interrupted`], [`WaitError::TimedOut`].
    pub fn pause(&mut self, longest: Duration, stop: &dyn Stop) -> Result<(), WaitError> {
        let spool = self.client.spool();
        if self.need_watcher && self.attendance.is_hopeless() && !self.anything_runs()? {
            return Err(WaitError::Unattended {
                spool: spool.path().to_owned(),
                is_owner: spool.is_owner(),
            });
        }
        let (open, all) = (self.open(), self.awaited.len());
        if stop.is_asked() {
            return Err(WaitError::Interrupted { open, all });
        }
        let now = Instant::now;
        let left = self
            .deadline
            .map(|end| end.saturating_duration_since(now()));
        if left == Some(Duration::ZERO) {
            return Err(WaitError::TimedOut { open, all });
        }
        self.wake
            .wait(stop.wakes(), left.unwrap_or(longest).min(longest));
        self.wake.take();
        Ok(())
    }

    /// The tasks that have ended.
    pub fn into_ended(self) -> Vec<TaskView> {
        let ended = self.awaited.into_iter().filter_map(|one| match one {
            Awaited::Ended(view) => Some(*view),
            Awaited::Open(_) | Awaited::Drop(_) => None,
        });
        ended.collect()
    }

    fn open(&self) -> usize {
        let is_open = |one: &&Awaited| !matches!(one, Awaited::Ended(..));
        self.awaited.iter().filter(is_open).count()
    }

    /// Whether one of the tasks is running. Its runner does not need a watcher.
    fn anything_runs(&self) -> Result<bool, WaitError> {
        for one in &self.awaited {
            if let Awaited::Open(id) = one
                && let Some(task) = self.client.spool().task(*id)?
                && task.is_worked_on()?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The selected tasks. Of the matching ones only those that are pending or running now.
fn chosen(client: &Client, what: &Selection) -> Result<Vec<Awaited>, WaitError> {
    let mut awaited = Vec::new();
    match what {
        Selection::Named(names) => {
            for text in names {
                awaited.push(match client.spool().resolve(text)? {
                    Target::Task(id) => Awaited::Open(id),
                    Target::Drop(name) => Awaited::Drop(name),
                });
            }
        }
        Selection::Matching(filter) => {
            for view in client.matching(filter, Part::Open)? {
                awaited.push(Awaited::Open(view?.status.task_id));
            }
            // In the order of their submission.
            awaited.reverse();
        }
    }
    Ok(awaited)
}

/// Updates the state of one awaited task.
fn look(spool: &Spool, one: &mut Awaited) -> Result<(), WaitError> {
    if let Awaited::Drop(name) = one {
        match spool.resolve(name.as_str())? {
            Target::Drop(_) => return Ok(()),
            Target::Task(id) => *one = Awaited::Open(id),
        }
    }
    if let Awaited::Open(id) = one {
        let Some(task) = spool.task(*id)? else {
            return Err(WaitError::Removed(*id));
        };
        if task.has_result()? {
            *one = Awaited::Ended(Box::new(task.view()?));
        }
    }
    Ok(())
}
