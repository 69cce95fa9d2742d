//! Where recipes are: the spool's own `recipes/`, then the folders its settings list.
//!
//! Three kinds, one name each. Invariant: a name never leads out of the folder it was looked for
//! in, because a [`Name`] is one path component and no more.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::file;
use super::manifest::{DEFAULT_ATTEMPTS, Manifest, ManifestError, parse_env_file};
use super::praisonai::{self, Installed};
use super::trust::Trust;
use crate::task::{Name, escape_path};

const MANIFEST: &str = "recipe.toml";
/// Endings a single file's recipe name leaves out.
const SCRIPT_ENDINGS: [&str; 2] = ["sh", "py"];
/// A description stands in a script's first lines or nowhere.
const DESCRIPTION_LINES: usize = 10;

/// What kind of thing a recipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with `recipe.toml`.
    Folder,
    /// One executable file.
    Executable,
    /// A folder of PraisonAI's.
    PraisonAi,
}

impl Kind {
    /// The word for lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Folder => "folder",
            Kind::Executable => "executable",
            Kind::PraisonAi => "praisonai",
        }
    }
}

/// A recipe that was found.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// The folder or the file.
    pub path: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
    praisonai: Arc<Installed>,
    trust: Option<Trust>,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing of this name anywhere on the path.
    #[error(
        "no recipe is called {name:?}{}; looked in {}",
        did_you_mean(suggestions),
        list(searched)
    )]
    NotFound {
        /// The name asked for.
        name: String,
        /// Names that are near.
        suggestions: Vec<String>,
        /// The folders searched.
        searched: Vec<PathBuf>,
    },
    /// It is there and cannot be used.
    #[error("cannot use the recipe {}: {problem}", escape_path(path))]
    Broken {
        /// Its folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Others could choose what it runs.
    #[error("the recipe {name} is not run: {}: {why}, and in a group spool nobody but the owner and root may be able to choose what it runs: see that it is what it was, then `chown` it to the owner or `chmod go-w` it", path.display())]
    Open {
        /// The recipe.
        name: Name,
        /// What they could change.
        path: PathBuf,
        /// Who could.
        why: String,
    },
    /// Whether it is there cannot be seen now, which says nothing of the recipe.
    #[error("failed to look for a recipe at {}: {source}", escape_path(path))]
    Unseen {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Something it needs is not installed.
    #[error("the recipe {name} cannot run: {problem}")]
    Missing {
        /// The recipe.
        name: Name,
        /// What is missing.
        problem: String,
    },
}

fn did_you_mean(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        names => format!(" (did you mean {}?)", names.join(" or ")),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
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
        let mut near: Vec<(f64, String)> = self
            .names()
            .into_iter()
            .map(|known| {
                (
                    strsim::jaro_winkler(known.as_str(), name),
                    known.to_string(),
                )
            })
            .filter(|(likeness, _)| *likeness > 0.75)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let suggestions = near.into_iter().take(3).map(|(_, known)| known).collect();
        FindError::NotFound {
            name: name.to_owned(),
            suggestions,
            searched: self.folders.clone(),
        }
    }

    /// Every recipe there is, by name; those that cannot be used come with the reason.
    pub fn all(&self) -> Vec<(Name, Result<Recipe, FindError>)> {
        self.names()
            .into_iter()
            .map(|name| (name.clone(), self.find(&name)))
            .collect()
    }

    /// What stands on this path and could be changed by others, each with why. They could choose what
    /// is run.
    pub fn open_to_others(&self, trust: Trust) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for folder in &self.folders {
            // In a recipe's folder it is the manifest and the program that count.
            let entries = WalkDir::new(folder).max_depth(2).into_iter().flatten();
            for entry in entries {
                if let Some(why) = trust.problem(entry.path()) {
                    found.push((entry.into_path(), why));
                }
            }
        }
        found
    }

    /// Folders of this path that are not there.
    pub fn missing(&self) -> Vec<&Path> {
        let folders = self.folders.iter().map(PathBuf::as_path);
        folders.filter(|folder| !folder.is_dir()).collect()
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
                Err(error) if is_passing(&error) => return Err(unseen(&manifest_path, error)),
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

    fn names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = Vec::new();
        for folder in &self.folders {
            for entry in WalkDir::new(folder)
                .min_depth(1)
                .max_depth(1)
                .into_iter()
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

fn unseen(path: &Path, source: std::io::Error) -> FindError {
    FindError::Unseen {
        path: path.to_owned(),
        source,
    }
}

/// Whether anything stands at a path.
fn is_there(path: &Path) -> Result<bool, FindError> {
    use rustix::io::Errno;
    match rustix::fs::stat(path) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(unseen(path, errno.into())),
    }
}

/// Whether a folder above is shut.
fn is_shut(error: &FindError) -> bool {
    let kind = std::io::ErrorKind::PermissionDenied;
    matches!(error, FindError::Unseen { source, .. } if source.kind() == kind)
}

/// Whether the kernel refused for a reason that has nothing to do with the file.
fn is_passing(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let short = [
        Errno::IO,
        Errno::NFILE,
        Errno::MFILE,
        Errno::NOMEM,
        Errno::INTR,
        Errno::STALE,
    ];
    Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
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

pub(super) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| may_be_executed(&metadata))
}

fn may_be_executed(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// The `# description: …` line near the top of a script; empty for anything else.
fn describe_script(path: &Path) -> String {
    let head = file::read_head(path, 4096).unwrap_or_default();
    if !head.starts_with(b"#!") {
        return String::new();
    }
    String::from_utf8_lossy(&head)
        .lines()
        .take(DESCRIPTION_LINES)
        .find_map(|line| line.trim().strip_prefix("# description:"))
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

impl Recipe {
    /// What it says about itself in a line; empty where it says nothing. A script is read for it, so it is
    /// asked for only where somebody wants to see it.
    pub fn description(&self) -> String {
        match self.kind {
            Kind::Executable => describe_script(&self.path),
            Kind::Folder | Kind::PraisonAi => self.manifest.description.clone(),
        }
    }

    /// The folder the recipe's own files are in.
    pub fn folder(&self) -> &Path {
        match self.kind {
            Kind::Folder | Kind::PraisonAi => &self.path,
            Kind::Executable => self.path.parent().unwrap_or(&self.path),
        }
    }

    /// The program to start: a path with a slash in it is found in the recipe's folder. With PraisonAI
    /// it hangs on the PATH that the recipe will run with; `None` where that is not known.
    pub fn program(&self, search: Option<&OsStr>) -> PathBuf {
        if self.kind == Kind::PraisonAi {
            return self.praisonai.interpreter(search);
        }
        let first = self.manifest.command.first().map_or("", String::as_str);
        if first.contains('/') {
            self.folder().join(first)
        } else {
            PathBuf::from(first)
        }
    }

    /// The program's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        match self.kind {
            Kind::PraisonAi => praisonai::arguments().map(OsString::from).to_vec(),
            Kind::Folder | Kind::Executable => {
                let arguments = self.manifest.command.iter().skip(1);
                arguments.map(OsString::from).collect()
            }
        }
    }

    /// Looks whether the recipe could run with this PATH, or its own where it has one, which is read
    /// from its `env_file`; PraisonAI is asked for by running its Python. So only the spool's owner
    /// gives a PATH. `None` opens nothing and starts nothing: another user must not run the owner's
    /// programs to find out, and the watcher that will run the recipe may have another PATH.
    pub fn check_runnable(&self, search: Option<&OsStr>) -> Result<(), FindError> {
        self.check_trust()?;
        let missing = |problem: String| {
            Err(FindError::Missing {
                name: self.name.clone(),
                problem,
            })
        };
        if self.kind == Kind::PraisonAi {
            return self.praisonai.check(search).or_else(missing);
        }
        let program = self.program(search);
        if program.components().count() > 1 {
            return match std::fs::metadata(&program) {
                Err(error) if is_passing(&error) => Err(unseen(&program, error)),
                Err(error) => missing(format!("{}: {error}", program.display())),
                Ok(_) if !is_executable(&program) => missing(format!(
                    "{} is not executable (chmod +x)",
                    program.display()
                )),
                Ok(_) => Ok(()),
            };
        }
        let Some(search) = search else { return Ok(()) };
        let own = self.own_path();
        let (search, whose) = match &own {
            Some(own) => (OsStr::new(own), "the recipe's own PATH"),
            None => (search, "PATH"),
        };
        if std::env::split_paths(search).any(|dir| is_executable(&dir.join(&program))) {
            return Ok(());
        }
        let program = program.display();
        missing(format!(
            "the program {program} is not on {whose}: install it"
        ))
    }

    /// Refuses, in a group spool, a recipe of which others could change what it runs.
    fn check_trust(&self) -> Result<(), FindError> {
        let Some(trust) = self.trust.filter(|trust| trust.is_shared) else {
            return Ok(());
        };
        // Only the owner opens what the owner's manifest names.
        let own_path = if rustix::process::geteuid().as_raw() == trust.owner {
            self.own_path()
        } else {
            self.manifest.env.get("PATH").cloned()
        };
        match trust.problem_of(self, own_path.as_deref()) {
            None => Ok(()),
            Some((path, why)) => {
                let name = self.name.clone();
                Err(FindError::Open { name, path, why })
            }
        }
    }

    /// The PATH that the recipe sets for itself.
    fn own_path(&self) -> Option<String> {
        let kept = self.env_file().unwrap_or_default();
        let kept = kept.into_iter().rfind(|(name, _)| name == "PATH");
        let own = || self.manifest.env.get("PATH").cloned();
        kept.map(|(_, path)| path).or_else(own)
    }

    /// The variables of the recipe's `env_file`.
    pub fn env_file(&self) -> Result<Vec<(String, String)>, FindError> {
        let Some(file) = &self.manifest.env_file else {
            return Ok(Vec::new());
        };
        let path = self.folder().join(file);
        let broken = |problem: String| FindError::Broken {
            path: path.clone(),
            problem,
        };
        let metadata = std::fs::metadata(&path).map_err(|error| broken(error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(broken("others may read it: chmod 600".into()));
        }
        let text = file::read_text(&path).map_err(|error| broken(error.to_string()))?;
        parse_env_file(&text).map_err(|error| broken(error.to_string()))
    }
}
