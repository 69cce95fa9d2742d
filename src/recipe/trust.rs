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

    /// The same by mode bits alone: whom the owner lets have recipes of their own is his to say.
    fn writable(self, path: &Path) -> Option<String> {
        let metadata = std::fs::metadata(path).ok()?;
        let mode = metadata.permissions().mode();
        if mode & 0o002 != 0 {
            Some("anybody may write there".to_owned())
        } else if self.is_shared && mode & 0o020 != 0 {
            Some(format!("group {} may write there", metadata.gid()))
        } else {
            None
        }
    }

    /// What of a recipe others could change, and why; the first one.
    pub(super) fn problem_of(self, recipe: &Recipe) -> Option<(PathBuf, String)> {
        parts(recipe).into_iter().find_map(|part| {
            let why = self.writable(&part)?;
            Some((part, why))
        })
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
    let entries = WalkDir::new(&recipe.path)
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
