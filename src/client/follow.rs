//! Follows one task: its logs, up to its end.
//!
//! Not several tasks (`wait.rs`), and not the printing. A drop that is not admitted yet is awaited first.
//! Invariant: each round checks for the result before it reads the logs, so no byte that was written before
//! the result is missed.

use std::time::Duration;

use super::open::Client;
use super::result::TaskResult;
use super::stop::Stop;
use super::submit::Accepted;
use crate::spool::{
    IoError, LogReader, Piece, ReadError, ResolveError, Stream, Target, TaskDir, Wake,
};
use crate::task::TaskId;

/// How often a followed log is read.
const READ_INTERVAL: Duration = Duration::from_millis(100);

/// What happened to a followed task.
#[derive(Debug)]
pub enum Followed {
    /// The task's folder exists. Returned once, before any piece of a log.
    Begun,
    /// A piece of a log. Never [`Piece::End`].
    Piece(Stream, Piece),
    /// Everything was read for now. The next call waits.
    Looked,
}

/// Why following the task ended early.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// No task matches, several tasks match, or the drop was refused.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The task was removed before it could be opened.
    #[error("the task was just removed")]
    JustRemoved,
    /// The task was removed, so there will be no result.
    #[error("the task {0} was removed during the wait")]
    Removed(TaskId),
    /// The result was removed.
    #[error("the task was removed")]
    ResultRemoved,
    /// The caller stopped the call. The drop stays in the drop box.
    #[error("interrupted; the drop {0} stays in the drop box")]
    InterruptedAtDrop(String),
    /// The caller stopped the call. The task continues.
    #[error("interrupted; the task {0} continues")]
    Interrupted(TaskId),
    /// A file of the task cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A system call failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A followed task. Call [`Follow::next`] until it returns `None`, then [`Follow::into_result`].
pub struct Follow<'a> {
    client: &'a Client,
    wake: Wake,
    place: Place,
    logs: Vec<(Stream, FollowedLog)>,
    /// Which log is read next.
    at: usize,
    /// Whether the task had ended when this round of reading started; `None` between rounds.
    has_ended: Option<bool>,
    has_begun: bool,
    is_to_pause: bool,
}

/// The task, or the text to find it by.
enum Place {
    /// It may be a drop.
    Unknown {
        /// The text to search for.
        called: String,
        /// The drop's name, as far as it is known.
        drop: String,
        /// Whether the drop was accepted, so that it will be a task.
        is_accepted: bool,
    },
    Task(TaskDir),
}

impl Client {
    /// Follows a task, given by id, part of an id, name, or `last`: from the start of its logs, or from the
    /// last `lines` lines of its latest attempt, as they are when the log is opened.
    ///
    /// # Errors
    /// This process cannot listen for changes of the spool.
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
    /// This process cannot listen for changes of the spool.
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
    /// The id of the task; `None` for a drop.
    pub fn task_id(&self) -> Option<TaskId> {
        match &self.place {
            Place::Task(task) => Some(task.id()),
            Place::Unknown { .. } => None,
        }
    }

    /// What happened next; `None` once the task has ended and its logs were read to the end.
    ///
    /// # Errors
    /// [`FollowError`]. The task continues.
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

    /// The result, once the task has ended.
    ///
    /// # Errors
    /// [`FollowError::ResultRemoved`] if there is no result, [`FollowError::Read`] if it cannot be used.
    pub fn into_result(self) -> Result<TaskResult, FollowError> {
        let Place::Task(task) = self.place else {
            return Err(FollowError::ResultRemoved);
        };
        match task.result()? {
            Some(result) => Ok(TaskResult { task, result }),
            None => Err(FollowError::ResultRemoved),
        }
    }

    /// Searches for the task. Returns whether it was found.
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
        // Checked before the logs are read: all bytes written before the result are read after this check.
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
        self.wake.wait(stop.wakes(), READ_INTERVAL);
        self.wake.take();
        Ok(())
    }
}

/// The position in a task's log, across its attempts.
struct FollowedLog {
    attempt: u32,
    reader: Option<LogReader>,
    /// The number of last lines of the latest attempt to start with; `None`: start with the first byte.
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

    /// The next new piece; `None` if there is none for now.
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
            // A later attempt has its own log, so this log does not grow any more.
            if task.last_attempt()? <= self.attempt {
                return Ok(None);
            }
            self.attempt += 1;
            self.reader = None;
        }
    }
}
