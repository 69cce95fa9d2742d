//! `events/`: what happened, one line for each event, one file for each day.
//!
//! Not the events themselves (`task/event.rs`). Events can be lost: they are not synced, and a failed write
//! is not repeated. The state of a task is in its folder. Invariants: a line is appended to the newest file
//! by one write, so lines of several processes never mix. No operation fails because its event could not be
//! written. A reader skips a line that is incomplete.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::disk::{Dir, IoError, IoResult, absent_is_none};
use super::layout::name;
use super::open::Spool;
use super::tasks::TaskLock;
use crate::clock;
use crate::task::{Event, Happened, Timestamp};

/// The name of events in a log filter.
const TARGET: &str = "agentspool::events";
/// The end of the files' names.
pub(super) const SUFFIX: &str = ".jsonl";
/// A longer line is not an event, in bytes: the longest text in an event is a message.
pub(super) const LONGEST_LINE: usize = 64 << 10;
/// How much is read at once, in bytes.
const PIECE: usize = 64 << 10;
/// How long a reader still reads an old file after a newer one has appeared, in milliseconds. A writer may
/// have opened the old file before.
const OLD_FILE_MS: i64 = 60_000;

/// The file that this process writes into, opened at its first event.
#[derive(Debug, Default)]
pub(in crate::spool) struct EventLog {
    open: Mutex<Option<(String, File)>>,
}

/// The position of a reader: day, inode and byte offset of a file. As text: `2026-11-27:4711:1024`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    day: String,
    inode: u64,
    offset: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.day, self.inode, self.offset)
    }
}

/// The text is not a cursor.
#[derive(Debug, thiserror::Error)]
#[error("is not a cursor such as \"2026-11-27:4711:1024\"")]
pub struct InvalidCursor;

impl std::str::FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Cursor, InvalidCursor> {
        let mut parts = text.split(':');
        let (Some(day), Some(inode), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidCursor);
        };
        if !is_day(day) {
            return Err(InvalidCursor);
        }
        Ok(Cursor {
            day: day.to_owned(),
            inode: inode.parse().map_err(|_| InvalidCursor)?,
            offset: offset.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

/// An event as it was read, with every field that is in its line.
#[derive(Clone, Debug)]
pub struct EventRead {
    /// The whole object.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// The reader's position after it.
    pub cursor: Cursor,
}

/// Reads events in their order, from one file to the next.
#[derive(Debug)]
pub struct EventReader<'s> {
    spool: &'s Spool,
    day: Option<OpenDay>,
    /// The previous file, and when the reader left it.
    older: Option<(OpenDay, Timestamp)>,
    /// The day to start at, if no file is open yet.
    from: String,
}

/// One of the files, and the bytes that were read and not returned yet.
#[derive(Debug)]
struct OpenDay {
    day: String,
    inode: u64,
    file: File,
    /// The offset of the first byte in `rest`.
    offset: u64,
    rest: Vec<u8>,
}

impl Spool {
    /// Writes an event to `events/` and to the log of this process. A failure is ignored.
    pub fn emit(&self, event: Event) {
        log(&event);
        self.record(event);
    }

    /// Writes an event only to `events/`, because the log would have too many such lines.
    pub fn record(&self, event: Event) {
        let at = clock::wall();
        let event = Event {
            at: Some(at),
            ..event
        };
        // Only the owner has the right to write there.
        if self.is_owner() {
            let _ = self.append_event(at, &event.to_line());
        }
    }

    fn append_event(&self, at: Timestamp, line: &[u8]) -> IoResult<()> {
        let today = day_of(at);
        let log = self.event_log();
        let mut open = log.open.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |(day, file): &(String, File)| {
            // After the clock was set back, events still go to the newest file. A file that was swept is not
            // read any more.
            *day >= today && file.metadata().is_ok_and(|file| file.nlink() > 0)
        };
        if !open.as_ref().is_some_and(serves) {
            let dir = self.folder(name::EVENTS)?;
            let newest = days_in(&dir)?.pop().unwrap_or_default();
            let day = newest.max(today);
            let file = dir.append(format!("{day}{SUFFIX}"))?;
            *open = Some((day, file));
        }
        if let Some((day, file)) = &mut *open {
            let failed = |error| IoError::new("write the events of", PathBuf::from(&*day), error);
            file.write_all(line).map_err(failed)?;
        }
        Ok(())
    }

    /// Reads events after a cursor, or else from the day of `since`, or else from the first one. The `bool`
    /// is `true` if the cursor's position is gone: the reader then starts at the cursor's day.
    ///
    /// # Errors
    /// `events/` cannot be listed, or a file in it cannot be opened.
    pub fn events(
        &self,
        after: Option<&Cursor>,
        since: Option<Timestamp>,
    ) -> IoResult<(EventReader<'_>, bool)> {
        let from = match (after, since) {
            (Some(cursor), _) => cursor.day.clone(),
            (None, Some(moment)) => day_of(moment),
            (None, None) => String::new(),
        };
        let mut reader = EventReader {
            spool: self,
            day: None,
            older: None,
            from,
        };
        let mut is_lost = false;
        if let Some(cursor) = after {
            is_lost = true;
            if let Some(mut day) = reader.open_day(&cursor.day)?
                && day.inode == cursor.inode
                && day.start_at(cursor.offset)?
            {
                is_lost = false;
                reader.day = Some(day);
            }
        }
        Ok((reader, is_lost))
    }
}

impl TaskLock {
    /// Writes an event of this task. Only a process that holds its lock may do so.
    pub fn emit(&self, spool: &Spool, event: Event) {
        debug_assert_eq!(event.task_id, Some(self.task().id()));
        spool.emit(event);
    }
}

impl EventReader<'_> {
    /// The next event; `None` if there is no event now. A reader that `follows` also gets late lines of the
    /// previous file, for a minute. `is_stopped` is called repeatedly; once it is true, the answer is `None`.
    ///
    /// # Errors
    /// `events/` cannot be listed, or a file in it cannot be opened or read.
    pub fn next_event(
        &mut self,
        follows: bool,
        is_stopped: &dyn Fn() -> bool,
    ) -> IoResult<Option<EventRead>> {
        loop {
            if is_stopped() {
                return Ok(None);
            }
            if let Some(late) = self.late_event(is_stopped)? {
                return Ok(Some(late));
            }
            let here = match &mut self.day {
                None => None,
                Some(day) => match day.next_event(is_stopped)? {
                    None if is_stopped() => return Ok(None),
                    None => Some(day.day.clone()),
                    event => return Ok(event),
                },
            };
            // A file that was swept gets no more lines. There may be a new one of the same day.
            if let (Some(day), true) = (&here, self.is_swept()) {
                self.from.clone_from(day);
                self.day = None;
                continue;
            }
            let Some(later) = self.later_day(here.as_deref())? else {
                return Ok(None);
            };
            let Some(next) = self.open_day(&later)? else {
                // It was just swept.
                return Ok(None);
            };
            let before = self.day.replace(next);
            self.older = before.filter(|_| follows).map(|day| (day, clock::wall()));
        }
    }

    /// The next line that was written to the previous file after the newer one had appeared. Its cursor is
    /// the position in the newer file, so a reader that starts there again gets no line twice.
    fn late_event(&mut self, is_stopped: &dyn Fn() -> bool) -> IoResult<Option<EventRead>> {
        let (Some((older, since)), Some(day)) = (&mut self.older, &self.day) else {
            return Ok(None);
        };
        if let Some(event) = older.next_event(is_stopped)? {
            let cursor = day.cursor();
            return Ok(Some(EventRead { cursor, ..event }));
        }
        // Also if the clock was changed.
        if !(0..OLD_FILE_MS).contains(&(clock::wall().unix_ms() - since.unix_ms())) {
            self.older = None;
        }
        Ok(None)
    }

    fn is_swept(&self) -> bool {
        let links = self.day.as_ref().map(|day| day.file.metadata());
        matches!(links, Some(Ok(file)) if file.nlink() == 0)
    }

    fn later_day(&self, than: Option<&str>) -> IoResult<Option<String>> {
        let dir = self.spool.folder(name::EVENTS)?;
        let mut days = days_in(&dir)?.into_iter();
        Ok(match than {
            Some(than) => days.find(|day| day.as_str() > than),
            None => days.find(|day| *day >= self.from),
        })
    }

    fn open_day(&self, day: &str) -> IoResult<Option<OpenDay>> {
        let dir = self.spool.folder(name::EVENTS)?;
        let name = format!("{day}{SUFFIX}");
        let Some(file) = absent_is_none(dir.open_file(&name))? else {
            return Ok(None);
        };
        let metadata = file
            .metadata()
            .map_err(|error| IoError::new("check", dir.path_of(&name), error))?;
        Ok(Some(OpenDay {
            day: day.to_owned(),
            inode: metadata.ino(),
            file,
            offset: 0,
            rest: Vec::new(),
        }))
    }
}

impl OpenDay {
    fn failed(&self, error: std::io::Error) -> IoError {
        IoError::new("read the events of", PathBuf::from(&self.day), error)
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            day: self.day.clone(),
            inode: self.inode,
            offset: self.offset,
        }
    }

    /// Moves to this offset, in bytes. `false` if no line starts there.
    fn start_at(&mut self, offset: u64) -> IoResult<bool> {
        use std::os::unix::fs::FileExt;
        let mut before = [b'\n'];
        if offset > 0 {
            let read = self.file.read_at(&mut before, offset - 1);
            if read.map_err(|error| self.failed(error))? == 0 {
                return Ok(false);
            }
        }
        let seek = self.file.seek(SeekFrom::Start(offset));
        seek.map_err(|error| self.failed(error))?;
        self.offset = offset;
        Ok(before == [b'\n'])
    }

    /// Moves to the end of a hole, where old lines were cut off; `false` if there is no data after it. On a
    /// file system without holes the zeros are read.
    fn skip_hole(&mut self) -> bool {
        let here = self.offset + self.rest.len() as u64;
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(here)) {
            Ok(data) if data > here => {
                self.rest.clear();
                self.offset = data;
                true
            }
            Err(rustix::io::Errno::NXIO) => false,
            _ => true,
        }
    }

    fn next_event(&mut self, is_stopped: &dyn Fn() -> bool) -> IoResult<Option<EventRead>> {
        use std::io::Read;
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.offset += line.len() as u64;
                // The zeros are from a hole, which ends within a block.
                let text = line.iter().position(|byte| *byte != 0);
                let text = &line[text.unwrap_or_default()..];
                // Other lines are incomplete, or were not written by agentspool.
                if let Ok(fields) = serde_json::from_slice(text) {
                    let cursor = self.cursor();
                    return Ok(Some(EventRead { fields, cursor }));
                }
                continue;
            }
            if self.rest.len() > LONGEST_LINE {
                self.offset += self.rest.len() as u64;
                self.rest.clear();
            }
            if is_stopped() || !self.skip_hole() {
                return Ok(None);
            }
            let mut piece = vec![0; PIECE];
            let read = self.file.read(&mut piece);
            let read = read.map_err(|error| self.failed(error))?;
            if read == 0 {
                return Ok(None);
            }
            self.rest.extend(&piece[..read]);
        }
    }
}

pub(super) fn day_of(moment: Timestamp) -> String {
    moment.to_string().chars().take(10).collect()
}

fn is_day(text: &str) -> bool {
    let digit = |at: usize, byte: u8| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(|(at, byte)| digit(at, byte))
}

/// The days that have a file, oldest first.
pub(super) fn days_in(dir: &Dir) -> IoResult<Vec<String>> {
    let mut days = Vec::new();
    dir.each_name(|name, _| {
        let name = std::str::from_utf8(name).unwrap_or_default();
        days.extend(
            name.strip_suffix(SUFFIX)
                .filter(|day| is_day(day))
                .map(str::to_owned),
        );
        true
    })?;
    days.sort_unstable();
    Ok(days)
}

/// Writes the line in the log of this process, with the same fields.
fn log(event: &Event) {
    // People read the log. A line for each progress report would be too much.
    if event.event == Happened::Progress {
        return;
    }
    if event.event == Happened::Refused {
        let why = event.message.as_deref().unwrap_or_default();
        tracing::warn!(target: TARGET, drop = event.drop.as_deref(), "refused: {why}");
        return;
    }
    tracing::info!(
        target: TARGET,
        task = event.task_id.as_ref().map(display),
        recipe = event.recipe.as_ref().map(display),
        session = event.session_id.as_ref().map(display),
        attempt = event.attempt,
        pid = event.pid,
        exit_code = event.exit_code,
        signal = event.signal,
        kind = event.kind.as_ref().map(|kind| display(kind.as_str())),
        drop = event.drop.as_deref(),
        "{}",
        event.event.as_str()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for text in ["2026-11-27:4711:0", "2026-01-01:1:18446744073709551615"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2026-11-27",
            "2026-11-27:1",
            "26-11-27:1:1",
            "2026-11-27:1:1:1",
            "../../x:1:1",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_belongs_to_its_day() {
        assert_eq!(day_of(Timestamp::from_unix_ms(0)), "1970-01-01");
        assert!(is_day("2026-11-27") && !is_day("2026-1-027") && !is_day("events"));
    }
}
