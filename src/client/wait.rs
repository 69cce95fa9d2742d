//! Waiting until tasks end.
//!
//! Not one task's log meanwhile (`follow.rs`). Woken when a hint leaves `open/`; looks by the clock as well,
//! because being woken is only a convenience. A drop that is not admitted yet is waited for too. Invariant: a task
//! counts as ended once its result stands.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::attendance::Attendance;
use super::notice::Notice;
use super::open::Client;
use super::stop::Stop;
use crate::spool::{IoError, ResolveError, Spool, Target, TaskView, Wake};
use crate::task::{Name, TaskId};

/// How often to look although nothing was heard.
const LOOK: Duration = Duration::from_millis(1000);

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Tasks by id, part of an id, name, or `last`; drops by name.
    Named(Vec<String>),
    /// All tasks of a session that are not over now.
    Session(Name),
    /// All tasks that are not over now.
    All,
}

/// How long, and for whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitOptions {
    /// Give up after this ([`WaitError::TimedOut`]).
    pub timeout: Option<Duration>,
    /// Give up when nothing runs, no watcher runs, and none may be started ([`WaitError::Unattended`]).
    pub need_watcher: bool,
}

/// One thing that is waited for.
#[derive(Debug)]
pub enum Awaited {
    /// A drop that is not a task yet.
    Drop(Name),
    /// A task that is not over.
    Open(TaskId),
    /// A task that is over.
    Ended(Box<TaskView>),
}

/// Why the waiting ended early.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Nothing is called so, several tasks are, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Somebody removed the task: no result will come.
    #[error("the task {0} was removed while it was waited for")]
    Removed(TaskId),
    /// Nobody runs tasks.
    #[error("no watcher runs on {}, and none may be started from here", spool.display())]
    Unattended {
        /// The spool.
        spool: PathBuf,
        /// Whether this user could start one by hand.
        is_owner: bool,
    },
    /// The time is over; the tasks go on.
    #[error("the wait ran out; {}", going_on(*open, *all))]
    TimedOut {
        /// How many are not over.
        open: usize,
        /// How many were waited for.
        all: usize,
    },
    /// The caller gave up; the tasks go on.
    #[error("interrupted; {}", going_on(*open, *all))]
    Interrupted {
        /// How many are not over.
        open: usize,
        /// How many were waited for.
        all: usize,
    },
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

fn going_on(open: usize, all: usize) -> String {
    match (open, all) {
        (_, 1) => "the task goes on".to_owned(),
        (1, _) => format!("1 of {all} tasks goes on"),
        _ if open == all => format!("all {all} tasks go on"),
        _ => format!("{open} of {all} tasks go on"),
    }
}

impl Client {
    /// Waits until all of these tasks are over, and answers with them in the order in which they were named.
    ///
    /// # Errors
    /// [`WaitError`]. The tasks go on whatever ends the waiting.
    pub fn wait(
        &self,
        what: &WaitFor,
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

    /// The same step by step, for who shows something meanwhile: look, attend, pause, and again until a look says
    /// that all are over.
    ///
    /// # Errors
    /// When something is not there, or the spool cannot be read.
    pub fn waiting(&self, what: &WaitFor, options: &WaitOptions) -> Result<Waiting<'_>, WaitError> {
        // Listen first, so that no end is missed.
        let wake = Wake::for_waiting(self.spool())?;
        let awaited = chosen(self.spool(), what)?;
        let timeout = options.timeout;
        Ok(Waiting {
            client: self,
            wake,
            awaited,
            attendance: Attendance::new(),
            // One that is too long to be counted never comes.
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            need_watcher: options.need_watcher,
        })
    }
}

/// Where the waiting for some tasks stands.
pub struct Waiting<'a> {
    client: &'a Client,
    wake: Wake,
    awaited: Vec<Awaited>,
    attendance: Attendance,
    deadline: Option<Instant>,
    need_watcher: bool,
}

impl Waiting<'_> {
    /// A pause need not be longer than this.
    pub const LONGEST_PAUSE: Duration = LOOK;

    /// What is waited for, as the last look found it.
    pub fn awaited(&self) -> &[Awaited] {
        &self.awaited
    }

    /// Looks at each; whether all are over.
    ///
    /// # Errors
    /// [`WaitError::Removed`], [`WaitError::Resolve`] for a drop that was refused, or the spool cannot be read.
    pub fn look(&mut self) -> Result<bool, WaitError> {
        for one in &mut self.awaited {
            look(self.client.spool(), one)?;
        }
        Ok(self.open() == 0)
    }

    /// Sees to it that somebody runs tasks; what to know of that.
    ///
    /// # Errors
    /// When the watchers cannot be read.
    pub fn attend(&mut self) -> Result<Vec<Notice>, WaitError> {
        let open = self.awaited.iter().filter_map(|one| match one {
            Awaited::Open(id) => Some(*id),
            Awaited::Drop(_) | Awaited::Ended(_) => None,
        });
        let open: Vec<TaskId> = open.collect();
        Ok(self.attendance.look(self.client, &open)?)
    }

    /// Waits until something happens, at most so long.
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

    /// The tasks that are over.
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

    /// Whether one of them runs: its runner needs no watcher.
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

/// What the choice names.
fn chosen(spool: &Spool, what: &WaitFor) -> Result<Vec<Awaited>, WaitError> {
    let session = match what {
        WaitFor::Named(names) => {
            let mut awaited = Vec::new();
            for text in names {
                awaited.push(match spool.resolve(text)? {
                    Target::Task(id) => Awaited::Open(id),
                    Target::Drop(name) => Awaited::Drop(name),
                });
            }
            return Ok(awaited);
        }
        WaitFor::Session(session) => Some(session),
        WaitFor::All => None,
    };
    let mut open = Vec::new();
    for id in spool.open_ids()? {
        let Some(task) = spool.task(id)? else {
            continue;
        };
        // The hint of a task that has just ended may still be there.
        if task.has_result()? {
            continue;
        }
        let its = task.request().ok().and_then(|request| request.session_id);
        if session.is_none() || session == its.as_ref() {
            open.push(Awaited::Open(id));
        }
    }
    Ok(open)
}

/// Moves on what has become of one.
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
