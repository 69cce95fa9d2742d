//! One task, followed from the first byte of its logs to its end.
//!
//! Not several tasks (`wait.rs`), and not what is done with the bytes. A drop that is not admitted yet is waited
//! for. Invariant: the end is asked for before the logs are read, so nothing that was written before the result
//! stood is left out.

use std::time::Duration;

use super::open::Client;
use super::result::TaskResult;
use super::stop::Stop;
use super::submit::Accepted;
use crate::spool::{
    IoError, LogReader, Piece, ReadError, ResolveError, Stream, Target, TaskDir, Wake,
};
use crate::task::TaskId;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What happened to a followed task.
#[derive(Debug)]
pub enum Followed {
    /// Its folder is there: it is a task by now. Comes once, and first of all that comes of a task.
    Begun,
    /// It wrote something. Never [`Piece::End`].
    Piece(Stream, Piece),
    /// All is read for now. The next call waits.
    Looked,
}

/// Why the following ended early.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Nothing is called so, several tasks are, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The task was removed before it could be opened.
    #[error("the task was just removed")]
    JustRemoved,
    /// Somebody removed the task: no result will come.
    #[error("the task {0} was removed while it was waited for")]
    Removed(TaskId),
    /// Its result is gone.
    #[error("the task was removed")]
    ResultRemoved,
    /// The caller gave up; the drop goes on.
    #[error("interrupted; the drop {0} goes on")]
    InterruptedAtDrop(String),
    /// The caller gave up; the task goes on.
    #[error("interrupted; the task {0} goes on")]
    Interrupted(TaskId),
    /// A file of the task cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A task that is followed: call [`Follow::next`] until it is `None`, then [`Follow::into_result`].
pub struct Follow<'a> {
    client: &'a Client,
    wake: Wake,
    place: Place,
    logs: Vec<(Stream, FollowedLog)>,
    /// Which log is read next.
    at: usize,
    /// Whether the task was over when this round of reading began; `None` between rounds.
    has_ended: Option<bool>,
    has_begun: bool,
    is_to_pause: bool,
}

/// What is known of the task.
enum Place {
    /// It may be a drop.
    Unknown {
        /// By which it is looked for.
        called: String,
        /// What the drop is called, as far as is known.
        drop: String,
        /// Whether it was accepted, and so comes.
        is_accepted: bool,
    },
    Task(TaskDir),
}

impl Client {
    /// Follows the task that is called so: by id, part of an id, name, or `last`. From its first byte on, or from so
    /// many last lines of its latest attempt on, as they stand when its log is opened first.
    ///
    /// # Errors
    /// When this process cannot listen to the spool.
    pub fn follow(
        &self,
        task: &str,
        streams: &[Stream],
        lines: Option<usize>,
    ) -> Result<Follow<'_>, FollowError> {
        let place = Place::Unknown {
            called: task.to_owned(),
            drop: task.to_owned(),
            is_accepted: false,
        };
        self.follow_at(place, streams, lines)
    }

    /// Follows a task that was just submitted.
    ///
    /// # Errors
    /// When this process cannot listen to the spool.
    pub fn follow_accepted(
        &self,
        accepted: Accepted,
        streams: &[Stream],
    ) -> Result<Follow<'_>, FollowError> {
        let place = match accepted.task {
            Some(task) => Place::Task(task),
            None => Place::Unknown {
                called: accepted.id.to_string(),
                drop: accepted.id.to_string(),
                is_accepted: true,
            },
        };
        self.follow_at(place, streams, None)
    }

    fn follow_at(
        &self,
        place: Place,
        streams: &[Stream],
        lines: Option<usize>,
    ) -> Result<Follow<'_>, FollowError> {
        let logs = streams.iter();
        Ok(Follow {
            client: self,
            wake: Wake::for_waiting(self.spool())?,
            place,
            logs: logs
                .map(|stream| (*stream, FollowedLog::from_last(lines)))
                .collect(),
            at: 0,
            has_ended: None,
            has_begun: false,
            is_to_pause: false,
        })
    }
}

impl Follow<'_> {
    /// The id of the task, once it is one.
    pub fn task_id(&self) -> Option<TaskId> {
        match &self.place {
            Place::Task(task) => Some(task.id()),
            Place::Unknown { .. } => None,
        }
    }

    /// What happened next; `None` once the task is over and all of its logs is read.
    ///
    /// # Errors
    /// [`FollowError`]. The task goes on whatever ends the following.
    pub fn next(&mut self, stop: &dyn Stop) -> Result<Option<Followed>, FollowError> {
        if self.is_to_pause {
            self.pause(stop)?;
            self.is_to_pause = false;
        }
        if matches!(self.place, Place::Unknown { .. }) && !self.find()? {
            self.is_to_pause = true;
            return Ok(Some(Followed::Looked));
        }
        if !self.has_begun {
            self.has_begun = true;
            return Ok(Some(Followed::Begun));
        }
        self.read()
    }

    /// The result, once the task is over.
    ///
    /// # Errors
    /// [`FollowError::ResultRemoved`] where there is none, [`FollowError::Read`] where it cannot be used.
    pub fn into_result(self) -> Result<TaskResult, FollowError> {
        let Place::Task(task) = self.place else {
            return Err(FollowError::ResultRemoved);
        };
        match task.result()? {
            Some(result) => Ok(TaskResult { task, result }),
            None => Err(FollowError::ResultRemoved),
        }
    }

    /// Looks for the task; whether it is there.
    fn find(&mut self) -> Result<bool, FollowError> {
        let Place::Unknown {
            called,
            drop,
            is_accepted,
        } = &mut self.place
        else {
            return Ok(true);
        };
        let found = match self.client.spool().resolve(called)? {
            Target::Task(id) => self.client.spool().task(id)?,
            Target::Drop(name) => {
                *drop = name.to_string();
                return Ok(false);
            }
        };
        match found {
            Some(task) => self.place = Place::Task(task),
            None if *is_accepted => return Ok(false),
            None => return Err(FollowError::JustRemoved),
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<Option<Followed>, FollowError> {
        let Place::Task(task) = &self.place else {
            return Ok(Some(Followed::Looked));
        };
        // Asked before the logs are read: what is written until the result stands is read after it.
        let has_ended = match self.has_ended {
            Some(has_ended) => has_ended,
            None => *self.has_ended.insert(task.has_result()?),
        };
        while let Some((stream, log)) = self.logs.get_mut(self.at) {
            if let Some(piece) = log.next(task, *stream)? {
                return Ok(Some(Followed::Piece(*stream, piece)));
            }
            self.at += 1;
        }
        self.at = 0;
        self.has_ended = None;
        if has_ended {
            return Ok(None);
        }
        let id = task.id();
        if self.client.spool().task(id)?.is_none() {
            return Err(FollowError::Removed(id));
        }
        self.is_to_pause = true;
        Ok(Some(Followed::Looked))
    }

    fn pause(&self, stop: &dyn Stop) -> Result<(), FollowError> {
        if stop.is_asked() {
            return Err(match &self.place {
                Place::Task(task) => FollowError::Interrupted(task.id()),
                Place::Unknown { drop, .. } => FollowError::InterruptedAtDrop(drop.clone()),
            });
        }
        self.wake.wait(stop.wakes(), LOOK);
        self.wake.take();
        Ok(())
    }
}

/// How far a task's log was read, over all its attempts.
struct FollowedLog {
    attempt: u32,
    reader: Option<LogReader>,
    /// With how many last lines of the latest attempt it begins; `None`: with the first byte.
    lines: Option<usize>,
}

impl FollowedLog {
    fn from_last(lines: Option<usize>) -> FollowedLog {
        FollowedLog {
            attempt: 0,
            reader: None,
            lines,
        }
    }

    /// The next piece of what is new; `None` where there is none for now.
    fn next(&mut self, task: &TaskDir, stream: Stream) -> Result<Option<Piece>, IoError> {
        loop {
            if self.reader.is_none() {
                let last = task.last_attempt()?;
                let is_first = self.attempt == 0;
                let next = match self.lines {
                    Some(_) if is_first => last.max(1),
                    _ => self.attempt.max(1),
                };
                if last < next {
                    return Ok(None);
                }
                self.reader = LogReader::open(task, next, stream)?;
                if let Some(reader) = &mut self.reader
                    && let Some(lines) = self.lines.filter(|_| is_first)
                {
                    reader.skip_to_last(lines)?;
                }
                self.attempt = next;
            }
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            match reader.next_piece()? {
                Piece::End => {}
                piece @ (Piece::Bytes(_) | Piece::Zeroes(_) | Piece::Gap(_) | Piece::Anew) => {
                    return Ok(Some(piece));
                }
            }
            // A later attempt has its own log; this one will not grow any more.
            if task.last_attempt()? <= self.attempt {
                return Ok(None);
            }
            self.attempt += 1;
            self.reader = None;
        }
    }
}
