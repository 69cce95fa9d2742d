//! A paused spool: as long as the file `paused` stands in the root, no new attempt starts.
//!
//! A person may make it with `touch`; what it says is only for people, but for the word of a copy.
//! Invariant: the file is on the disk, or gone from it, when `pause` or `resume` has said so.

use std::fs::File;
use std::io::Write;

use rustix::io::Errno;

use super::spool::Spool;
use crate::spool::disk::{Dir, IoError, IoResult};
use crate::spool::layout::name;
use crate::task::{Event, Happened};

const LONGEST: usize = 64;

/// Why a spool is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Somebody asked for it.
    Asked,
    /// It is a copy of another spool, whose tasks may be at work there.
    Copy,
}

impl Pause {
    fn text(self) -> &'static str {
        match self {
            Pause::Asked => "paused",
            Pause::Copy => "copy",
        }
    }
}

impl std::fmt::Display for Pause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Pause::Asked => "the spool is paused",
            Pause::Copy => {
                "the spool is paused because it is a copy of another one, where the same tasks may run"
            }
        })
    }
}

impl Spool {
    /// Whether no new attempt may start.
    pub fn is_paused(&self) -> IoResult<bool> {
        self.root_dir().has(name::PAUSED)
    }

    /// Why no new attempt may start; `None` where one may.
    pub fn paused(&self) -> IoResult<Option<Pause>> {
        if !self.is_paused()? {
            return Ok(None);
        }
        // Only its existence counts: it may be a link, or shut.
        let text = self.root_dir().read(name::PAUSED, LONGEST);
        let text = text.ok().flatten().unwrap_or_default();
        Ok(Some(
            if text.trim_ascii() == Pause::Copy.text().as_bytes() {
                Pause::Copy
            } else {
                Pause::Asked
            },
        ))
    }

    /// Pauses the spool; `false` when it was paused before.
    pub fn pause(&self) -> IoResult<bool> {
        let root = self.root()?;
        let is_new = match root.create(name::PAUSED) {
            Ok(file) => {
                if let Err(error) = fill(&root, file) {
                    // Where it failed, it is not to pause all the same.
                    root.unlink(name::PAUSED)?;
                    return Err(error);
                }
                true
            }
            Err(error) if error.errno() == Some(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        // Whoever made it before (a `touch`) need not have synced it.
        root.sync_now()?;
        if is_new {
            self.emit(Event::new(Happened::Paused));
        }
        Ok(is_new)
    }

    /// Marks the spool as paused for this reason, whatever it was before.
    pub(super) fn pause_as(&self, why: Pause) -> IoResult<()> {
        let root = self.root()?;
        match root.replace_durably(name::PAUSED, why.text().as_bytes()) {
            // Something that cannot be replaced, as a folder: it pauses as well.
            Err(error) if error.is_unusable() && root.has(name::PAUSED)? => root.sync_now(),
            replaced => replaced,
        }
    }

    /// Ends the pause; `false` when there was none. A watcher notices by itself.
    pub fn resume(&self) -> IoResult<bool> {
        let root = self.root()?;
        let was_there = root.unlink(name::PAUSED)?;
        root.sync_now()?;
        if was_there {
            self.emit(Event::new(Happened::Resumed));
        }
        Ok(was_there)
    }
}

/// A disk without a free block has room for an empty file, and that one pauses as well.
fn fill(root: &Dir, mut file: File) -> IoResult<()> {
    let failed = |error| IoError::new("write", root.path_of(name::PAUSED), error);
    match file
        .write_all(Pause::Asked.text().as_bytes())
        .map_err(failed)
    {
        Err(error) if !error.is_no_space() => return Err(error),
        _ => {}
    }
    file.sync_all().map_err(failed)
}
