//! Whether others than a spool's owner and root could change what a recipe runs.
//!
//! Not who may submit. In a group spool this decides whether a recipe runs, because a group user who writes
//! it runs what he likes as the owner. Invariant: links are followed, because what they lead to is what runs;
//! an access list counts, because what it allows shows in the mode bits of the group.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::find::Recipe;

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
        let uid = std::fs::metadata(path).ok()?.uid();
        let is_strange = ![0, self.owner].contains(&uid);
        let strange = || is_strange.then(|| format!("it belongs to user {uid}"));
        self.writable(path).or_else(strange)
    }

    /// The same by mode bits alone.
    fn writable(self, path: &Path) -> Option<String> {
        let metadata = std::fs::metadata(path).ok()?;
        let mode = metadata.permissions().mode();
        let is_sticky = metadata.is_dir() && mode & 0o1000 != 0;
        if is_sticky || !(metadata.is_dir() || metadata.is_file()) {
            // Nobody renames what is not his own there; and a link to /dev/null is no program.
            None
        } else if mode & 0o002 != 0 {
            Some("anybody may write there".to_owned())
        } else if self.is_shared && mode & 0o020 != 0 {
            Some(format!("group {} may write there", metadata.gid()))
        } else {
            None
        }
    }

    /// What of a recipe others could change, and why; the first one.
    pub(super) fn problem_of(self, recipe: &Recipe) -> Option<(PathBuf, String)> {
        parts(recipe)
            .into_iter()
            .find_map(|part| self.problem_up(&part))
    }

    /// The same of what a path leads to and of every folder above that, in which it could be exchanged.
    fn problem_up(self, path: &Path) -> Option<(PathBuf, String)> {
        if let Some(why) = self.problem(path) {
            return Some((path.to_owned(), why));
        }
        let real = std::fs::canonicalize(path).ok()?;
        let mut above = real.ancestors().skip(1);
        above.find_map(|folder| Some((folder.to_owned(), self.problem(folder)?)))
    }
}

/// What decides what a recipe runs: the folder it was found in, the recipe, what lies in its folder, and the
/// program with the folders above it.
fn parts(recipe: &Recipe) -> BTreeSet<PathBuf> {
    let mut parts: BTreeSet<PathBuf> = recipe
        .path
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .collect();
    // Of a recipe that is one file, what lies beside it is in its folder as well.
    let entries = WalkDir::new(recipe.folder())
        .max_depth(1)
        .into_iter()
        .flatten();
    parts.extend(entries.map(walkdir::DirEntry::into_path));
    let program = recipe.program(None);
    let within = program.ancestors().take_while(|path| *path != recipe.path);
    if program.starts_with(&recipe.path) {
        parts.extend(within.map(Path::to_owned));
    } else if program.is_absolute() {
        parts.insert(program);
    }
    parts
}
