//! Whether others than a spool's owner and root could change what a recipe runs.
//!
//! Not who may submit. In a group spool this decides whether a recipe runs, because a group user who writes
//! it runs what he likes as the owner. Invariant: links are followed, because what they lead to is what runs;
//! an access list counts, because what it allows shows in the mode bits of the group; a sticky bit excuses only a
//! folder that is passed through, because it keeps nobody from adding a file.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::way::places;

/// Who may change recipes besides root, and whose right to write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The spool's owner.
    pub owner: u32,
    /// Whether a group shares the spool, so that what its group can write is open to others.
    pub is_shared: bool,
}

impl Trust {
    /// Why others could change what stands at a path; `None` where they could not, or where nothing is.
    pub(super) fn problem(self, path: &Path) -> Option<String> {
        self.problem_with(&std::fs::metadata(path).ok()?, false)
    }

    /// `is_passed` says that only one name counts in a folder, and that something stands under it.
    fn problem_with(self, metadata: &Metadata, is_passed: bool) -> Option<String> {
        let mode = metadata.permissions().mode();
        let uid = metadata.uid();
        let is_sticky = metadata.is_dir() && mode & 0o1000 != 0;
        // Nobody renames what is not his own in a sticky folder; a link to /dev/null is no program; and the
        // mode of a link means nothing.
        let is_excused = is_sticky && is_passed;
        let counts = (metadata.is_dir() || metadata.is_file()) && !is_excused;
        let also = if is_sticky {
            ", and its sticky bit keeps nobody from adding a file"
        } else {
            ""
        };
        if counts && mode & 0o002 != 0 {
            Some(format!("anybody may write there{also}"))
        } else if counts && self.is_shared && mode & 0o020 != 0 {
            Some(format!("group {} may write there{also}", metadata.gid()))
        } else if ![0, self.owner].contains(&uid) {
            Some(format!("it belongs to user {uid}"))
        } else {
            None
        }
    }

    /// What of these files and folders others could change, and why; the first one.
    pub(super) fn problem_of(self, parts: BTreeSet<PathBuf>) -> Option<(PathBuf, String)> {
        let mut parts = parts.into_iter();
        parts.find_map(|part| self.problem_on_way(&part))
    }

    /// The same of each folder and link on the way to a path, where it could be exchanged, and of what it
    /// leads to, or of the folder in which others could make it.
    fn problem_on_way(self, path: &Path) -> Option<(PathBuf, String)> {
        let path = std::path::absolute(path).ok()?;
        let places = places(&path);
        let last = places.len().saturating_sub(1);
        let mut places = places.into_iter().enumerate();
        places.find_map(|(at, place)| {
            let why = self.problem_with(&place.metadata, at < last)?;
            Some((place.path, why))
        })
    }
}
