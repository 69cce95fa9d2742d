//! Where recipes are: the spool's own `recipes/`, then the folders its settings list.
//!
//! Not what a found recipe can do (`found.rs`). There are three kinds of recipes, and each recipe has one
//! name. Invariant: a name never leads out of the folder that is searched, because a [`Name`] is one path
//! component.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::error::{FindError, fix_command, is_passing};
use super::file;
use super::found::{Kind, Recipe};
use super::listing::is_called;
use super::manifest::{DEFAULT_ATTEMPTS, Manifest};
use super::praisonai::{self, Installed};
use super::program::may_be_executed;
use super::trust::{Exposed, Trust};
use crate::spool::Spool;
use crate::task::{Name, nearest};

pub(super) const MANIFEST: &str = "recipe.toml";
/// How many entries of a folder are read for suggestions. The number is limited because others may fill a
/// folder.
const MOST_SUGGESTED_FROM: usize = 1000;
/// Endings of single-file recipes. The recipe's name is without them.
pub(super) const SCRIPT_ENDINGS: [&str; 2] = ["sh", "py"];

/// The shortest valid manifest, for a message.
const LEAST: &str = "command = [\"./run.sh\"]";

/// A recipe that was read, and its problems.
#[derive(Debug)]
pub struct Inspected {
    /// The recipe with the values that could be read, if there are enough.
    pub recipe: Option<Recipe>,
    /// The problems of its manifest or file.
    pub problems: Vec<FindError>,
}

/// The folders that are searched, in order.
#[derive(Clone, Debug)]
pub struct RecipePath {
    folders: Vec<PathBuf>,
    praisonai: Arc<Installed>,
    trust: Option<Trust>,
}

impl RecipePath {
    /// The spool's own folder first, then the folders in the settings. `praisonai_python` is the Python for
    /// PraisonAI recipes, if the settings name one.
    pub fn new(own: PathBuf, listed: &[String], praisonai_python: Option<&str>) -> RecipePath {
        let mut folders = vec![own];
        folders.extend(listed.iter().map(PathBuf::from));
        RecipePath {
            folders,
            praisonai: Arc::new(Installed::new(praisonai_python)),
            trust: None,
        }
    }

    /// The recipe path of a spool, from its current settings.
    pub fn of(spool: &Spool) -> RecipePath {
        let settings = spool.settings();
        let python = settings.praisonai_python.as_deref();
        let path = RecipePath::new(spool.recipes_path(), &settings.recipe_path, python);
        path.trusting(Trust {
            owner: spool.owner_or_us(),
            is_shared: spool.is_group(),
        })
    }

    /// Adds the owner of the spool to the path. In a group spool, a recipe that others could change is then
    /// not run.
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

    /// Finds a recipe by its name. Fails with the first problem.
    pub fn find(&self, name: &Name) -> Result<Recipe, FindError> {
        let inspected = self.inspect(name)?;
        match (inspected.problems.into_iter().next(), inspected.recipe) {
            (None, Some(recipe)) => Ok(recipe),
            (Some(problem), _) => Err(problem),
            (None, None) => Err(self.not_found(name.as_str())),
        }
    }

    /// Finds a recipe by its name, with all its problems and the values that can be read.
    ///
    /// # Errors
    /// There is no recipe with this name, or its place cannot be read.
    pub fn inspect(&self, name: &Name) -> Result<Inspected, FindError> {
        let mut unseen = None;
        for folder in &self.folders {
            for candidate in candidates(folder, name.as_str()) {
                self.check_place(name, &candidate)?;
                match is_there(&candidate) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    // A folder that this user may not read has no recipe that the user could run.
                    Err(error) if is_denied(&error) => {
                        unseen = unseen.or(Some(error));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if !is_called(&candidate, name) {
                    continue;
                }
                match self.load(name, &candidate) {
                    Ok(Some(inspected)) => return Ok(inspected),
                    Ok(None) => {}
                    Err(error) if is_denied(&error) => unseen = unseen.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
        }
        let mut folders = self.folders.iter().map(|folder| folder.join(name.as_str()));
        let without_manifest = folders.find(|folder| folder.is_dir());
        let without_manifest = without_manifest.map(|path| FindError::Broken {
            path,
            problem: format!("the folder has no {MANIFEST}"),
            fix: format!("create one with at least this line: {LEAST}"),
        });
        let absent = || self.not_found(name.as_str());
        Err(unseen.or(without_manifest).unwrap_or_else(absent))
    }

    /// The error for an unknown name, with suggestions.
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

    /// All recipes by name. A recipe that cannot be used has its error instead.
    pub fn all(&self) -> Vec<(Name, Result<Recipe, FindError>)> {
        self.names(usize::MAX)
            .into_iter()
            .map(|name| (name.clone(), self.find(&name)))
            .collect()
    }

    /// Files and folders on this path that others could change, each with the reason. By changing them,
    /// others could choose what is run.
    pub fn open_to_others(&self, trust: Trust) -> Vec<Exposed> {
        let mut found = Vec::new();
        for folder in &self.folders {
            // Depth 2 includes the manifest and the program in a recipe's folder.
            let entries = WalkDir::new(folder).max_depth(2).into_iter().flatten();
            for entry in entries {
                found.extend(trust.problem(entry.path()));
            }
        }
        found
    }

    /// Folders of this path that do not exist.
    pub fn missing(&self) -> Vec<&Path> {
        let folders = self.folders.iter().map(PathBuf::as_path);
        folders.filter(|folder| !folder.is_dir()).collect()
    }

    /// Refuses a path in a group spool that others could have created or changed. This is checked before
    /// anything is read there, because a link may lead to a private file.
    fn check_place(&self, name: &Name, path: &Path) -> Result<(), FindError> {
        let trust = self.trust.filter(|trust| trust.is_shared);
        let Some(trust) = trust.filter(|_| path.symlink_metadata().is_ok()) else {
            return Ok(());
        };
        let read = [
            MANIFEST,
            praisonai::MARKER_FILES[0],
            praisonai::MARKER_FILES[1],
        ];
        let exposed = trust.problem_of(read.iter().map(|file| path.join(file)));
        exposed.map_or(Ok(()), |exposed| {
            Err(FindError::open(name.clone(), exposed))
        })
    }

    /// Reads the recipe at a path. `None` if there is no recipe.
    fn load(&self, name: &Name, path: &Path) -> Result<Option<Inspected>, FindError> {
        let Ok(metadata) = std::fs::metadata(path) else {
            return Ok(None);
        };
        if metadata.is_dir() {
            return self.load_folder(name, path);
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut problems = Vec::new();
        if !may_be_executed(&metadata) {
            problems.push(FindError::Broken {
                path: path.to_owned(),
                problem: "the file is not executable".to_owned(),
                fix: fix_command("chmod +x", path),
            });
        }
        let manifest = Manifest {
            command: vec![path.to_string_lossy().into_owned()],
            max_attempts: DEFAULT_ATTEMPTS,
            ..Manifest::default()
        };
        let recipe = Some(self.recipe(name, path, Kind::Executable, manifest));
        Ok(Some(Inspected { recipe, problems }))
    }

    fn load_folder(&self, name: &Name, path: &Path) -> Result<Option<Inspected>, FindError> {
        let broken = |problem: String| FindError::Broken {
            path: path.to_owned(),
            problem: format!("{MANIFEST}{problem}"),
            fix: format!("correct {MANIFEST}"),
        };
        let manifest_path = path.join(MANIFEST);
        let is_praisonai = praisonai::is_recipe(path);
        if !is_praisonai && !is_there(&manifest_path)? {
            return Ok(None);
        }
        let text = match file::read_text(&manifest_path) {
            Ok(text) => Some(text),
            Err(error) if is_praisonai && error.kind() == ErrorKind::NotFound => None,
            Err(error) if is_passing(&error) || error.kind() == ErrorKind::PermissionDenied => {
                return Err(FindError::unseen(&manifest_path, error));
            }
            Err(error) => {
                let (recipe, problems) = (None, vec![broken(format!(" cannot be read: {error}"))]);
                return Ok(Some(Inspected { recipe, problems }));
            }
        };
        // A folder with a `command` in its recipe.toml is run by that command, even if it has PraisonAI
        // files.
        let is_own = |text: &String| !is_praisonai || Manifest::has_command(text);
        let kind = match text.as_ref().is_some_and(is_own) {
            true => Kind::Folder,
            false => Kind::PraisonAi,
        };
        let parsed = match (kind, &text) {
            (Kind::Folder, Some(text)) => Manifest::parse(text),
            (_, text) => praisonai::manifest(path, text.as_deref()),
        };
        let (manifest, wrong) = match parsed {
            Ok(manifest) => (Some(manifest), Vec::new()),
            Err(error) => Manifest::all_wrong(text.as_deref().unwrap_or_default(), error),
        };
        let recipe = manifest.map(|manifest| self.recipe(name, path, kind, manifest));
        let wrong = wrong.into_iter().map(|error| broken(format!(": {error}")));
        let problems = wrong.collect();
        Ok(Some(Inspected { recipe, problems }))
    }

    fn recipe(&self, name: &Name, path: &Path, kind: Kind, manifest: Manifest) -> Recipe {
        Recipe {
            name: name.clone(),
            kind,
            path: path.into(),
            manifest,
            praisonai: self.praisonai.clone(),
            trust: self.trust,
        }
    }
}

/// The paths where a recipe of this name may be in a folder, in search order.
pub(super) fn candidates(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let endings = SCRIPT_ENDINGS
        .iter()
        .map(move |ending| format!(".{ending}"));
    let endings = std::iter::once(String::new()).chain(endings);
    endings.map(move |ending| folder.join(format!("{name}{ending}")))
}

/// Whether a file or folder exists at a path.
fn is_there(path: &Path) -> Result<bool, FindError> {
    use rustix::io::Errno;
    match rustix::fs::stat(path) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(FindError::unseen(path, errno.into())),
    }
}

/// Whether this user may not read a folder on the path.
fn is_denied(error: &FindError) -> bool {
    matches!(error, FindError::Unseen { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}
