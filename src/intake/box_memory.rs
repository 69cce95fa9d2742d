//! What the watcher remembers of files that stay in the drop box for now.
//!
//! Not what is done with them (`admit.rs`). Invariant: it holds nothing that the last listing did not hold,
//! so it is never larger than the box.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use crate::spool::{ControlFile, DropFile, Fingerprint, InBox};

/// What a file shows without being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face<'a> {
    pub name: &'a OsStr,
    pub seen: Fingerprint,
    /// When it came or was last changed, as file systems say it.
    pub arrived: (i64, u64),
}

impl<'a> From<&'a DropFile> for Face<'a> {
    fn from(file: &'a DropFile) -> Face<'a> {
        let (name, seen, arrived) = (file.file_name(), file.seen(), file.arrived());
        Face {
            name,
            seen,
            arrived,
        }
    }
}

impl<'a> From<&'a ControlFile> for Face<'a> {
    fn from(file: &'a ControlFile) -> Face<'a> {
        let (name, seen, arrived) = (file.file_name(), file.seen(), file.arrived());
        Face {
            name,
            seen,
            arrived,
        }
    }
}

/// Why a file stays in the box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Why {
    /// It is not complete, or its task is not there: unchanged `since` then. What had arrived before
    /// `read` was read as it is now.
    Waits { since: Instant, read: (i64, u64) },
    /// The disk refused: no room, as a rule. It is tried again.
    Blocked,
    /// The file itself cannot be read, moved or removed. A person must see to it.
    Aside,
}

/// In which order files are taken. What failed before comes last, so that however much of it there is, it
/// does not hold up what can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    New,
    /// Unchanged, as far as it shows.
    Waiting,
    Blocked,
    Aside,
}

#[derive(Debug)]
struct Known {
    seen: Fingerprint,
    arrived: (i64, u64),
    why: Why,
}

/// All that is remembered, by file name.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: HashMap<OsString, Known>,
}

impl Memory {
    pub fn remember(&mut self, file: Face<'_>, why: Why) {
        let (seen, arrived) = (file.seen, file.arrived);
        let known = Known { seen, arrived, why };
        self.known.insert(file.name.to_owned(), known);
    }

    pub fn forget(&mut self, file: Face<'_>) {
        self.known.remove(file.name);
    }

    pub fn forget_all_but(&mut self, files: &InBox) {
        let mut before = std::mem::take(&mut self.known);
        let drops = files.drops.iter().map(DropFile::file_name);
        let controls = files.controls.iter().map(ControlFile::file_name);
        let unseen = files.unseen.iter().map(OsString::as_os_str);
        for name in drops.chain(controls).chain(unseen) {
            self.known.extend(before.remove_entry(name));
        }
    }

    pub fn class(&self, file: Face<'_>, patience: Duration) -> Class {
        let Some(known) = self.as_it_is(file) else {
            return Class::New;
        };
        // A new mode may be all that a file needed, and changes nothing else that shows.
        if known.arrived != file.arrived {
            return Class::New;
        }
        match known.why {
            Why::Waits { since, .. } if since.elapsed() < patience => Class::Waiting,
            Why::Waits { .. } => Class::New,
            Why::Blocked => Class::Blocked,
            Why::Aside => Class::Aside,
        }
    }

    /// Whether a file that waits was read after its last change. A change within the moment of a reading
    /// may leave what it shows as it was.
    pub fn was_read(&self, file: Face<'_>) -> bool {
        self.as_it_is(file).is_some_and(
            |known| matches!(known.why, Why::Waits { read, .. } if file.arrived < read),
        )
    }

    /// Since when this very file has stood as it is, as far as this watcher saw.
    pub fn unchanged_since(&self, file: Face<'_>) -> Instant {
        match self.as_it_is(file).map(|known| known.why) {
            Some(Why::Waits { since, .. }) => since,
            Some(Why::Blocked | Why::Aside) | None => Instant::now(),
        }
    }

    /// Whether a person was told of this very file.
    pub fn is_aside(&self, file: Face<'_>) -> bool {
        self.as_it_is(file)
            .is_some_and(|known| known.why == Why::Aside)
    }

    /// Whether this very file could not be taken before.
    pub fn has_failed(&self, file: Face<'_>) -> bool {
        self.as_it_is(file)
            .is_some_and(|known| matches!(known.why, Why::Blocked | Why::Aside))
    }

    /// Whether some file waits for its writer or its task.
    pub fn has_waiting(&self) -> bool {
        let is_waiting = |known: &Known| matches!(known.why, Why::Waits { .. });
        self.known.values().any(is_waiting)
    }

    /// Whether some file waits for more than a person.
    pub fn has_undecided(&self) -> bool {
        self.known.values().any(|known| known.why != Why::Aside)
    }

    fn as_it_is(&self, file: Face<'_>) -> Option<&Known> {
        self.known
            .get(file.name)
            .filter(|known| known.seen == file.seen)
    }
}
