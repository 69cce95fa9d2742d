//! Where recipes are: the spool's own `recipes/`, then the folders its settings list.
//!
//! Not what can be done with one that was found (`found.rs`). Three kinds, one name each. Invariant: a name never leads
//! out of the folder it was looked for in, because a [`Name`] is one path component and no more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::error::{FindError, ManifestError, is_passing};
use super::file;
use super::found::{Kind, Recipe};
use super::manifest::{DEFAULT_ATTEMPTS, Manifest};
use super::praisonai::{self, Installed};
use super::program::{is_executable, may_be_executed};
use super::trust::{Exposed, Trust};
use crate::spool::Spool;
use crate::task::{Name, nearest};

const MANIFEST: &str = "recipe.toml";
/// Of so many entries of a folder one may be suggested. Others may fill a folder that is listed.
const MOST_SUGGESTED_FROM: usize = 1000;
/// Endings a single file's recipe name leaves out.
const SCRIPT_ENDINGS: [&str; 2] = ["sh", "py"];

/// The folders that are searched, in order.
#[derive(Clone, Debug)]
pub struct RecipePath {
    folders: Vec<PathBuf>,
    praisonai: Arc<Installed>,
    trust: Option<Trust>,
}

impl RecipePath {
    /// The spool's own folder first, then what the settings list; and the Python that runs PraisonAI
    /// recipes, where the settings name one.
    pub fn new(own: PathBuf, listed: &[String], praisonai_python: Option<&str>) -> RecipePath {
        let mut folders = vec![own];
        folders.extend(listed.iter().map(PathBuf::from));
        RecipePath {
            folders,
            praisonai: Arc::new(Installed::new(praisonai_python)),
            trust: None,
        }
    }

    /// The path of a spool, as its settings are now.
    pub fn of(spool: &Spool) -> RecipePath {
        let settings = spool.settings();
        let python = settings.praisonai_python.as_deref();
        let path = RecipePath::new(spool.recipes_path(), &settings.recipe_path, python);
        path.trusting(Trust {
            owner: spool.owner_or_us(),
            is_shared: spool.is_group(),
        })
    }

    /// The same path of a spool with this owner. A recipe that others could change is not run where a
    /// group shares the spool.
    pub fn trusting(self, trust: Trust) -> RecipePath {
        RecipePath {
            trust: Some(trust),
            ..self
        }
    }

    /// The folders.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Finds a recipe by its name.
    pub fn find(&self, name: &Name) -> Result<Recipe, FindError> {
        let mut unseen = None;
        for folder in &self.folders {
            let endings = SCRIPT_ENDINGS
                .iter()
                .map(|ending| format!("{name}.{ending}"));
            for candidate in std::iter::once(name.to_string()).chain(endings) {
                let path = folder.join(candidate);
                self.check_place(name, &path)?;
                match is_there(&path) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    // A folder that this user may never look into hides nothing that he could run.
                    Err(error) if is_shut(&error) => {
                        unseen = unseen.or(Some(error));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if let Some(recipe) = self.load(name, &path)? {
                    return Ok(recipe);
                }
            }
        }
        Err(unseen.unwrap_or_else(|| self.not_found(name.as_str())))
    }

    /// The error for a name nobody has, with what was probably meant.
    pub fn not_found(&self, name: &str) -> FindError {
        let names = self.names(MOST_SUGGESTED_FROM);
        let near = nearest(name, names.iter().map(Name::as_str));
        let suggestions = near.into_iter().take(3).map(str::to_owned).collect();
        FindError::NotFound {
            name: name.to_owned(),
            suggestions,
            searched: self.folders.clone(),
        }
    }

    /// Every recipe there is, by name; those that cannot be used come with the reason.
    pub fn all(&self) -> Vec<(Name, Result<Recipe, FindError>)> {
        self.names(usize::MAX)
            .into_iter()
            .map(|name| (name.clone(), self.find(&name)))
            .collect()
    }

    /// What stands on this path and could be changed by others, each with why. They could choose what
    /// is run.
    pub fn open_to_others(&self, trust: Trust) -> Vec<Exposed> {
        let mut found = Vec::new();
        for folder in &self.folders {
            // In a recipe's folder it is the manifest and the program that count.
            let entries = WalkDir::new(folder).max_depth(2).into_iter().flatten();
            for entry in entries {
                found.extend(trust.problem(entry.path()));
            }
        }
        found
    }

    /// Folders of this path that are not there.
    pub fn missing(&self) -> Vec<&Path> {
        let folders = self.folders.iter().map(PathBuf::as_path);
        folders.filter(|folder| !folder.is_dir()).collect()
    }

    /// Refuses, in a group spool, what others could have put at a path, before anything is read there or behind
    /// it: what a link leads to may be a private file.
    fn check_place(&self, name: &Name, path: &Path) -> Result<(), FindError> {
        let trust = self.trust.filter(|trust| trust.is_shared);
        let Some(trust) = trust.filter(|_| path.symlink_metadata().is_ok()) else {
            return Ok(());
        };
        let read = [MANIFEST, praisonai::MARKS[0], praisonai::MARKS[1]];
        let exposed = trust.problem_of(read.iter().map(|file| path.join(file)));
        exposed.map_or(Ok(()), |exposed| {
            Err(FindError::open(name.clone(), exposed))
        })
    }

    /// Reads the recipe at a path; `None` when there is none.
    fn load(&self, name: &Name, path: &Path) -> Result<Option<Recipe>, FindError> {
        let broken = |problem: String| FindError::Broken {
            path: path.to_owned(),
            problem,
        };
        let recipe = |kind, manifest| {
            Some(Recipe {
                name: name.clone(),
                kind,
                path: path.into(),
                manifest,
                praisonai: self.praisonai.clone(),
                trust: self.trust,
            })
        };
        let Ok(metadata) = std::fs::metadata(path) else {
            return Ok(None);
        };
        if metadata.is_dir() {
            let manifest_path = path.join(MANIFEST);
            let is_praisonai = praisonai::is_recipe(path);
            if !is_praisonai && !manifest_path.is_file() {
                return Ok(None);
            }
            let text = match file::read_text(&manifest_path) {
                Ok(text) => Some(text),
                Err(error) if is_praisonai && error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) if is_passing(&error) => {
                    return Err(FindError::unseen(&manifest_path, error));
                }
                Err(error) => return Err(broken(format!("{MANIFEST} cannot be read: {error}"))),
            };
            let wrong = |error: ManifestError| broken(format!("{MANIFEST}: {error}"));
            // A folder that says how it is called is called that way, whatever else lies in it.
            return Ok(match text {
                Some(text) if !is_praisonai || Manifest::has_command(&text) => {
                    recipe(Kind::Folder, Manifest::parse(&text).map_err(wrong)?)
                }
                text => {
                    let manifest = praisonai::manifest(path, text.as_deref()).map_err(wrong)?;
                    recipe(Kind::PraisonAi, manifest)
                }
            });
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        if !may_be_executed(&metadata) {
            return Err(broken("the file is not executable (chmod +x)".into()));
        }
        let manifest = Manifest {
            command: vec![path.to_string_lossy().into_owned()],
            max_attempts: DEFAULT_ATTEMPTS,
            ..Manifest::default()
        };
        Ok(recipe(Kind::Executable, manifest))
    }

    /// Of each folder so many entries.
    fn names(&self, most: usize) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for folder in &self.folders {
            for entry in WalkDir::new(folder)
                .min_depth(1)
                .max_depth(1)
                .into_iter()
                .take(most)
                .flatten()
            {
                names.extend(recipe_name(entry.path()));
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Whether anything stands at a path.
fn is_there(path: &Path) -> Result<bool, FindError> {
    use rustix::io::Errno;
    match rustix::fs::stat(path) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(FindError::unseen(path, errno.into())),
    }
}

/// Whether a folder above is shut.
fn is_shut(error: &FindError) -> bool {
    let kind = std::io::ErrorKind::PermissionDenied;
    matches!(error, FindError::Unseen { source, .. } if source.kind() == kind)
}

/// The name under which a path is a recipe, if it is one.
fn recipe_name(path: &Path) -> Option<Name> {
    if path.is_dir() {
        let is_recipe = path.join(MANIFEST).is_file() || praisonai::is_recipe(path);
        return is_recipe
            .then(|| path.file_name()?.to_str()?.parse().ok())
            .flatten();
    }
    if !is_executable(path) {
        return None;
    }
    let is_script = path
        .extension()
        .is_some_and(|e| SCRIPT_ENDINGS.iter().any(|s| e == *s));
    let name = if is_script {
        path.file_stem()?
    } else {
        path.file_name()?
    };
    name.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_entries_are_looked_at_for_a_suggestion() {
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
