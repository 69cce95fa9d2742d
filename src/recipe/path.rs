//! Where recipes are: the spool's own `recipes/`, then the folders its settings list.
//!
//! Not what can be done with one that was found (`found.rs`). Three kinds, one name each. Invariant: a name never leads
//! out of the folder it was looked for in, because a [`Name`] is one path component and no more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::error::{FindError, fix_command, is_passing};
use super::file;
use super::found::{Kind, Recipe};
use super::manifest::{DEFAULT_ATTEMPTS, Manifest};
use super::praisonai::{self, Installed};
use super::program::may_be_executed;
use super::trust::{Exposed, Trust};
use crate::spool::Spool;
use crate::task::{Name, nearest};

pub(super) const MANIFEST: &str = "recipe.toml";
/// Of so many entries of a folder one may be suggested. Others may fill a folder that is listed.
const MOST_SUGGESTED_FROM: usize = 1000;
/// Endings a single file's recipe name leaves out.
pub(super) const SCRIPT_ENDINGS: [&str; 2] = ["sh", "py"];

/// The least that a manifest says.
const LEAST: &str = "command = [\"./run.sh\"]";

/// A recipe that was read, and what is wrong with it.
#[derive(Debug)]
pub struct Inspected {
    /// The recipe, as far as it can be read.
    pub recipe: Option<Recipe>,
    /// What is wrong with its manifest, or with its file.
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
        let inspected = self.inspect(name)?;
        match (inspected.problems.into_iter().next(), inspected.recipe) {
            (None, Some(recipe)) => Ok(recipe),
            (Some(problem), _) => Err(problem),
            (None, None) => Err(self.not_found(name.as_str())),
        }
    }

    /// The same with all that is wrong with it, and with the recipe as far as it can be read all the same.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be seen.
    pub fn inspect(&self, name: &Name) -> Result<Inspected, FindError> {
        let mut unseen = None;
        for folder in &self.folders {
            for candidate in candidates(folder, name.as_str()) {
                self.check_place(name, &candidate)?;
                match is_there(&candidate) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    // A folder that this user may never look into hides nothing that he could run.
                    Err(error) if is_shut(&error) => {
                        unseen = unseen.or(Some(error));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if let Some(inspected) = self.load(name, &candidate)? {
                    return Ok(inspected);
                }
            }
        }
        let mut folders = self.folders.iter().map(|folder| folder.join(name.as_str()));
        let without_manifest = folders.find(|folder| folder.is_dir());
        let without_manifest = without_manifest.map(|path| FindError::Broken {
            path,
            problem: format!("the folder has no {MANIFEST}"),
            fix: format!("make one that says at least: {LEAST}"),
        });
        let absent = || self.not_found(name.as_str());
        Err(unseen.or(without_manifest).unwrap_or_else(absent))
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

    /// Reads the recipe at a path; `None` when there is none.
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
        if !is_praisonai && !manifest_path.is_file() {
            return Ok(None);
        }
        let text = match file::read_text(&manifest_path) {
            Ok(text) => Some(text),
            Err(error) if is_praisonai && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) if is_passing(&error) => {
                return Err(FindError::unseen(&manifest_path, error));
            }
            Err(error) => {
                let (recipe, problems) = (None, vec![broken(format!(" cannot be read: {error}"))]);
                return Ok(Some(Inspected { recipe, problems }));
            }
        };
        // A folder that says how it is called is called that way, whatever else lies in it.
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

/// Where a recipe of this name may stand in a folder, in the order of the search.
pub(super) fn candidates(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let endings = SCRIPT_ENDINGS
        .iter()
        .map(move |ending| format!(".{ending}"));
    let endings = std::iter::once(String::new()).chain(endings);
    endings.map(move |ending| folder.join(format!("{name}{ending}")))
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
