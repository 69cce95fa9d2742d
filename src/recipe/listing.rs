//! Lists the recipes in the folders of the recipe path, and entries that seem to be recipes but are not.
//!
//! Not the problems of a recipe (`check.rs`). Invariant: an entry that a person may have meant as a recipe is
//! in one of the two lists. Copies that an editor or a package manager left are in neither.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::error::fix_command;
use super::file;
use super::path::{MANIFEST, RecipePath, SCRIPT_ENDINGS, candidates};
use super::praisonai;
use super::program::is_executable;
use crate::task::{Name, escape_path};

/// Endings of copies that editors and package managers leave.
const OF_COPIES: [&str; 17] = [
    "~",
    ".bak",
    ".orig",
    ".rej",
    ".old",
    ".save",
    ".swp",
    ".swo",
    ".tmp",
    ".dpkg-old",
    ".dpkg-dist",
    ".dpkg-new",
    ".dpkg-tmp",
    ".ucf-old",
    ".ucf-dist",
    ".rpmsave",
    ".rpmnew",
];

/// An entry on the recipe path that seems to be meant as a recipe but is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is not a recipe.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

/// The kind of an entry of a folder.
enum Entry {
    Recipe(Name),
    LeftOut(LeftOut),
    Other,
}

impl RecipePath {
    /// The names of the recipes. At most `most` entries of each folder are read.
    pub(super) fn names(&self, most: usize) -> Vec<Name> {
        let entries = self.entries(most);
        let mut names: Vec<Name> = entries
            .filter_map(|path| match entry_at(&path) {
                Entry::Recipe(name) => Some(name),
                Entry::LeftOut(_) | Entry::Other => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Entries that seem to be recipes but are not, and recipes that are hidden by another one of the same
    /// name.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let mut left_out: Vec<LeftOut> = self
            .entries(usize::MAX)
            .filter_map(|path| match entry_at(&path) {
                Entry::Recipe(name) => self.hidden(path, &name),
                Entry::LeftOut(left_out) => Some(left_out),
                Entry::Other => None,
            })
            .collect();
        left_out.sort_by(|a, b| a.path.cmp(&b.path));
        left_out
    }

    fn entries(&self, most: usize) -> impl Iterator<Item = PathBuf> {
        let in_folder = move |folder| {
            let entries = WalkDir::new(folder).min_depth(1).max_depth(1);
            entries.into_iter().take(most)
        };
        let entries = self.folders().iter().flat_map(in_folder).flatten();
        entries.map(walkdir::DirEntry::into_path)
    }

    fn hidden(&self, path: PathBuf, name: &Name) -> Option<LeftOut> {
        let folders = self.folders().iter();
        let mut places = folders.flat_map(|folder| candidates(folder, name.as_str()));
        let first = places.find(|place| place.is_file() || is_recipe_folder(place))?;
        if first == path {
            return None;
        }
        Some(LeftOut {
            path,
            problem: format!(
                "it is hidden by {}, which has the same name {name}",
                escape_path(&first)
            ),
            fix: "rename or remove one of them".to_owned(),
        })
    }
}

fn is_recipe_folder(path: &Path) -> bool {
    path.join(MANIFEST).is_file() || praisonai::is_recipe(path)
}

/// Whether the entry at a path, if it is a recipe, has this name. A copy that an editor left has none, and the
/// suffix of a script is not part of its name: what no list shows must not run.
pub(super) fn is_called(path: &Path, name: &Name) -> bool {
    match entry_at(path) {
        Entry::Recipe(its) => its == *name,
        Entry::LeftOut(_) => true,
        Entry::Other => !is_name_of_copy(name.as_str()),
    }
}

/// Whether this is the name of a copy, which is not listed.
pub fn is_name_of_copy(name: &str) -> bool {
    OF_COPIES.iter().any(|ending| name.ends_with(ending))
}

/// Classifies the entry at a path.
fn entry_at(path: &Path) -> Entry {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    if file_name.starts_with(['.', '#']) || is_name_of_copy(&file_name) {
        return Entry::Other;
    }
    let left_out = |problem: &str, fix: String| {
        Entry::LeftOut(LeftOut {
            path: path.to_owned(),
            problem: problem.to_owned(),
            fix,
        })
    };
    let is_script = SCRIPT_ENDINGS
        .iter()
        .any(|ending| path.extension().is_some_and(|e| e == *ending));
    if path.is_dir() {
        if !is_recipe_folder(path) {
            return match seems_to_be_recipe(path) {
                true => left_out(
                    &format!("the folder has no {MANIFEST}"),
                    format!("create {MANIFEST} in it"),
                ),
                false => Entry::Other,
            };
        }
    } else if std::fs::metadata(path).is_err() {
        return left_out(
            "the target of the link does not exist",
            "correct or remove the link".to_owned(),
        );
    } else if !path.is_file() {
        return Entry::Other;
    } else if !is_executable(path) {
        let begins = file::read_head(path, 2).unwrap_or_default();
        return match is_script || begins == b"#!" {
            true => left_out("it is not executable", fix_command("chmod +x", path)),
            false => Entry::Other,
        };
    }
    let name = match is_script && !path.is_dir() {
        true => path.file_stem(),
        false => path.file_name(),
    };
    match name
        .unwrap_or_default()
        .to_str()
        .unwrap_or_default()
        .parse()
    {
        Ok(name) => Entry::Recipe(name),
        Err(error) => left_out(
            &format!("its name is not the name of a recipe: {error}"),
            "rename it".to_owned(),
        ),
    }
}

/// Whether a folder contains a program, or a manifest with a wrong name.
fn seems_to_be_recipe(folder: &Path) -> bool {
    let entries = WalkDir::new(folder).min_depth(1).max_depth(1).into_iter();
    entries.flatten().any(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|ending| ending == "toml") || is_executable(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_number_of_entries_is_read_for_a_suggestion() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            file.set_permissions(mode).unwrap();
        }
        let path = RecipePath::new(folder.path().to_owned(), &[], None);
        assert_eq!(path.names(usize::MAX).len(), 3);
        assert_eq!(path.names(2).len(), 2);
    }
}
