//! Whether others than a spool's owner and root could change what a recipe runs.
//!
//! Not who may submit. In a group spool this decides whether a recipe runs, because a group user who writes
//! it runs what he likes as the owner. Invariant: links are followed, because what they lead to is what runs;
//! an access list counts, because what it allows shows in the mode bits of the group; a sticky bit excuses only a
//! folder that is passed through, because it keeps nobody from adding a file.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::task::quote_path;
use crate::way::{Place, places};

/// Who may change recipes besides root, and whose right to write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The spool's owner.
    pub owner: u32,
    /// Whether a group shares the spool, so that what its group can write is open to others.
    pub is_shared: bool,
}

/// What others could change.
#[derive(Debug)]
pub struct Exposed {
    /// Its path.
    pub path: PathBuf,
    /// Who could.
    pub why: String,
    /// What to do.
    pub fix: String,
}

impl Trust {
    /// What others could change of what stands at a path; `None` where they could not, or where nothing is.
    pub(super) fn problem(self, path: &Path) -> Option<Exposed> {
        let metadata = std::fs::metadata(path).ok()?;
        let path = path.to_owned();
        self.exposed(Place { path, metadata }, false)
    }

    fn exposed(self, place: Place, is_passed: bool) -> Option<Exposed> {
        let why = self.problem_with(&place.metadata, is_passed)?;
        let fix = self.fix(&place);
        let path = place.path;
        Some(Exposed { path, why, fix })
    }

    /// What to do about a place that others could change.
    fn fix(self, place: &Place) -> String {
        let path = quote_path(&place.path);
        let mode = place.metadata.permissions().mode();
        let is_others = ![0, self.owner].contains(&place.metadata.uid());
        if place.metadata.is_file() {
            // Who has it open goes on writing into it, whatever its mode is then.
            let new = quote_path(&with_ending(&place.path, ".new"));
            let mode = mode & 0o755;
            return format!(
                "read it, then put a copy in its place, which nobody has open: `install -m {mode:o} {path} {new} && mv -f {new} {path}`"
            );
        }
        if place.metadata.is_symlink() {
            return "remove the link, or replace it by one of the owner's".to_owned();
        }
        let command = match is_others {
            true => format!("chown {} {path}", self.owner),
            false => format!("chmod go-w {path}"),
        };
        format!("see that what is in it is what it was, then `{command}`")
    }

    /// Whether nobody but the owner and root could add a file to a folder, or put another folder in its place.
    pub fn is_closed(self, folder: &Path) -> bool {
        // The group that the files of a private spool's owner have is commonly his alone.
        let own_group = (!self.is_shared).then(|| rustix::process::getegid().as_raw());
        let Ok(path) = std::path::absolute(folder) else {
            return false;
        };
        let places = places(&path);
        let last = places.len().saturating_sub(1);
        places.iter().enumerate().all(|(at, place)| {
            let is_shared = own_group != Some(place.metadata.gid());
            let trust = Trust { is_shared, ..self };
            trust.problem_with(&place.metadata, at < last).is_none()
        })
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

    /// What of these files and folders others could change; the first one.
    pub(super) fn problem_of<P: AsRef<Path>>(
        self,
        parts: impl IntoIterator<Item = P>,
    ) -> Option<Exposed> {
        let mut parts = parts.into_iter();
        parts.find_map(|part| self.problem_on_way(part.as_ref()))
    }

    /// The same of each folder and link on the way to a path, where it could be exchanged, and of what it
    /// leads to, or of the folder in which others could make it.
    fn problem_on_way(self, path: &Path) -> Option<Exposed> {
        let path = std::path::absolute(path).ok()?;
        let places = places(&path);
        let last = places.len().saturating_sub(1);
        let mut places = places.into_iter().enumerate();
        places.find_map(|(at, place)| self.exposed(place, at < last))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    path.into()
}
