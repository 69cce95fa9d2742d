//! Whether users other than the spool's owner and root could change what a recipe runs.
//!
//! Not who may submit. In a group spool this decides whether a recipe runs, because a group user who can
//! change it can run any program as the owner. Invariant: links are followed, because their targets are run.
//! Access lists are covered, because the group's mode bits show what they allow. A sticky bit makes only a
//! folder on the way safe, because it does not prevent adding a file.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::task::quote_path;
use crate::way::{Place, places};

/// The user who may change recipes besides root, and whether the group counts as others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The spool's owner.
    pub owner: u32,
    /// Whether a group shares the spool. If so, a path that the group can write is open to others.
    pub is_shared: bool,
}

/// A path that others could change.
#[derive(Debug)]
pub struct Exposed {
    /// Its path.
    pub path: PathBuf,
    /// Why they could change it.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

impl Trust {
    /// Why others could change a path. `None` if they could not, or if the path does not exist.
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
            // A process that has the file open can still write to it after its mode was changed.
            let new = quote_path(&with_ending(&place.path, ".new"));
            let mode = mode & 0o755;
            return format!(
                "check its content, then replace it with a copy that no process has open: `install -m {mode:o} {path} {new} && mv -f {new} {path}`"
            );
        }
        if place.metadata.is_symlink() {
            return "remove the link, or replace it with a link that the owner creates".to_owned();
        }
        let command = match is_others {
            true => format!("chown {} {path}", self.owner),
            false => format!("chmod go-w {path}"),
        };
        format!("check that its content was not changed, then run `{command}`")
    }

    /// Whether only the owner and root could add a file to a folder or replace the folder.
    pub fn is_closed(self, folder: &Path) -> bool {
        // In a private spool, the primary group of the owner usually has no other users.
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

    /// Why others could change one place. `is_passed`: the place is on the way, so only one existing name in
    /// it matters.
    fn problem_with(self, metadata: &Metadata, is_passed: bool) -> Option<String> {
        let mode = metadata.permissions().mode();
        let uid = metadata.uid();
        let is_sticky = metadata.is_dir() && mode & 0o1000 != 0;
        // In a sticky folder, users cannot rename the files of others. Only modes of folders and regular
        // files count: a device is not a program, and the mode of a link has no meaning.
        let is_excused = is_sticky && is_passed;
        let counts = (metadata.is_dir() || metadata.is_file()) && !is_excused;
        let also = if is_sticky {
            ", and its sticky bit does not prevent adding a file"
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

    /// The first of these files and folders that others could change.
    pub(super) fn problem_of<P: AsRef<Path>>(
        self,
        parts: impl IntoIterator<Item = P>,
    ) -> Option<Exposed> {
        let mut parts = parts.into_iter();
        parts.find_map(|part| self.problem_on_way(part.as_ref()))
    }

    /// Checks each folder and link on the way to a path, because others could replace it there. Also checks
    /// the target, or, if it does not exist, the folder in which others could create it.
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
