//! What the watcher remembers about files that stay in the drop box for now.
//!
//! Does not take files (`admit.rs`). Invariant: it holds only files of the last listing, so it is never
//! larger than the drop box.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

use crate::spool::{ControlFile, DropFile, Fingerprint, InBox};

/// What is known about a file without reading it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Face<'a> {
    pub name: &'a OsStr,
    pub seen: Fingerprint,
    /// When it arrived or was last changed, as the file system reports it: seconds and nanoseconds.
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
    /// It is not complete, or its task does not exist. It is unchanged since `since`. If it arrived
    /// before `read`, its present content was read.
    Waits { since: Instant, read: (i64, u64) },
    /// The disk refused it, usually because it is full. It is tried again.
    Blocked,
    /// The file itself cannot be read, moved or removed. A person must fix it.
    Aside,
}

/// The order in which the files of one user are taken. Files that failed before come last, so that they do
/// not delay others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Class {
    New,
    /// Unchanged, as far as that can be seen without reading it.
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

/// Everything that is remembered, by file name.
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
        let Some(known) = self.unchanged(file) else {
            return Class::New;
        };
        // A new mode may be all that a file needed. It changes only the time of the last change.
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

    /// Whether a waiting file was read after its last change. A change at the moment of reading may not
    /// be visible in the fingerprint.
    pub fn was_read(&self, file: Face<'_>) -> bool {
        self.unchanged(file).is_some_and(
            |known| matches!(known.why, Why::Waits { read, .. } if file.arrived < read),
        )
    }

    /// Since when the file is unchanged, as far as this watcher knows.
    pub fn unchanged_since(&self, file: Face<'_>) -> Instant {
        match self.unchanged(file).map(|known| known.why) {
            Some(Why::Waits { since, .. }) => since,
            Some(Why::Blocked | Why::Aside) | None => Instant::now(),
        }
    }

    /// Whether this version of the file was already reported as left to a person.
    pub fn is_aside(&self, file: Face<'_>) -> bool {
        self.unchanged(file)
            .is_some_and(|known| known.why == Why::Aside)
    }

    /// Whether this version of the file could not be taken before.
    pub fn has_failed(&self, file: Face<'_>) -> bool {
        self.unchanged(file)
            .is_some_and(|known| matches!(known.why, Why::Blocked | Why::Aside))
    }

    /// Whether a file waits for its writer or its task.
    pub fn has_waiting(&self) -> bool {
        let is_waiting = |known: &Known| matches!(known.why, Why::Waits { .. });
        self.known.values().any(is_waiting)
    }

    /// Whether a file waits for anything other than a person.
    pub fn has_undecided(&self) -> bool {
        self.known.values().any(|known| known.why != Why::Aside)
    }

    fn unchanged(&self, file: Face<'_>) -> Option<&Known> {
        self.known
            .get(file.name)
            .filter(|known| known.seen == file.seen)
    }
}
