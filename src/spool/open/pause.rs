//! A paused spool: as long as the file `paused` is in the root, no new attempt starts.
//!
//! Not who checks it before a start (`ready/`). A person may create it with `touch`. Its content is only for
//! people, except for the word `copy`. Invariant: when `pause` or `resume` returns, the file is on the disk
//! or removed from it, also after a power cut.

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
    /// It is a copy of another spool, where the same tasks may be running.
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

    /// Why no new attempt may start; `None` if one may start.
    pub fn paused(&self) -> IoResult<Option<Pause>> {
        if !self.is_paused()? {
            return Ok(None);
        }
        // Only its existence counts: it may be a link, or not readable.
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

    /// Pauses the spool; `false` if it was paused before.
    pub fn pause(&self) -> IoResult<bool> {
        let root = self.root()?;
        let is_new = match root.create(name::PAUSED) {
            Ok(file) => {
                if let Err(error) = fill(&root, file) {
                    // A pause that failed must not pause the spool.
                    root.unlink(name::PAUSED)?;
                    return Err(error);
                }
                true
            }
            Err(error) if error.errno() == Some(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        // A file that was created earlier, as with `touch`, may not be synced.
        root.sync_now()?;
        if is_new {
            self.emit(Event::new(Happened::Paused));
        }
        Ok(is_new)
    }

    /// Pauses the spool for this reason, also if it was paused for another one.
    pub(super) fn pause_as(&self, why: Pause) -> IoResult<()> {
        let root = self.root()?;
        match root.replace_durably(name::PAUSED, why.text().as_bytes()) {
            // Something that cannot be replaced, such as a folder, pauses the spool too.
            Err(error) if error.is_unusable() && root.has(name::PAUSED)? => root.sync_now(),
            replaced => replaced,
        }
    }

    /// Ends the pause; `false` if the spool was not paused. Watchers notice it.
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

/// Writes the file. On a full disk it stays empty, and an empty file pauses the spool too.
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
