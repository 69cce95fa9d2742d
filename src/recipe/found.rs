//! A recipe that was found: its program, its arguments and its variables.
//!
//! Not where it is found (`path.rs`), not whether it can run (`check.rs`), not its process (`runner/`).
//! Invariant: in a group spool, a recipe that others could change is not run.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::RECIPE_DIR;
use super::error::{FindError, fix_command};
use super::file;
use super::manifest::{Manifest, parse_env_file};
use super::parts::Unclear;
use super::praisonai::{self, Installed};
use super::trust::{Exposed, Trust};
use crate::task::Name;

/// How many lines at the start of a script are searched for a description.
const DESCRIPTION_LINES: usize = 10;

/// The kind of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with `recipe.toml`.
    Folder,
    /// One executable file.
    Executable,
    /// A PraisonAI recipe folder.
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
    /// Its manifest.
    pub manifest: Manifest,
    pub(super) praisonai: Arc<Installed>,
    pub(super) trust: Option<Trust>,
}

/// The text of the `# description: …` line near the top of a script. Empty for any other file.
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

/// The message for a recipe at `recipe` whose programs are not certain. It repeats no value of a manifest.
fn describe_unclear(unclear: Unclear, recipe: &Path) -> Exposed {
    let (path, why, fix) = match unclear {
        Unclear::FirstLine(script) => (
            script,
            "its first line has options, quotes, variables, lists or relative paths, so it may start a program that it does not name",
            "write only the full path of the interpreter there, as in #!/usr/bin/python3",
        ),
        Unclear::OwnPath => (
            recipe.to_owned(),
            "the PATH that it sets has an empty or relative folder, so it may start a program of another user",
            "write only absolute folders into PATH in its manifest or `env_file`, without an empty entry",
        ),
    };
    Exposed {
        path: std::path::absolute(&path).unwrap_or(path),
        why: why.to_owned(),
        fix: fix.to_owned(),
    }
}

impl Recipe {
    /// Its description in one line, or an empty text. A script is read for it, so callers ask for it only to
    /// show it.
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

    /// The program to start. A path with a slash is relative to the recipe's folder. For PraisonAI, the
    /// program depends on `search`, the PATH that the recipe will run with, or `None` if that is not known.
    pub fn program(&self, search: Option<&OsStr>) -> PathBuf {
        if self.kind == Kind::PraisonAi {
            return self.praisonai.interpreter(search);
        }
        let first = self.manifest.command.first().map_or("", String::as_str);
        let first = self.with_folder(first);
        if first.as_bytes().contains(&b'/') {
            self.folder().join(first)
        } else {
            PathBuf::from(first)
        }
    }

    /// A text of `command` with `{recipe_dir}` replaced by the recipe's folder. Only a manifest can have the
    /// placeholder; the path of a single file is not changed.
    fn with_folder(&self, text: &str) -> OsString {
        if self.kind != Kind::Folder || !text.contains(RECIPE_DIR) {
            return OsString::from(text);
        }
        let mut whole = OsString::new();
        for (at, part) in text.split(RECIPE_DIR).enumerate() {
            if at > 0 {
                whole.push(self.folder());
            }
            whole.push(part);
        }
        whole
    }

    /// The program's arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        match self.kind {
            Kind::PraisonAi => praisonai::arguments().map(OsString::from).to_vec(),
            Kind::Folder | Kind::Executable => {
                let arguments = self.manifest.command.iter().skip(1);
                arguments.map(|text| self.with_folder(text)).collect()
            }
        }
    }

    /// The checks before its command is built. Refuses a recipe that others could change, and a PraisonAI
    /// recipe if the interpreter in the settings does not exist.
    pub fn check_before_start(&self) -> Result<(), FindError> {
        self.check_trust(None)?;
        if self.kind != Kind::PraisonAi {
            return Ok(());
        }
        let checked = self.praisonai.check(None);
        checked.map_err(|(problem, fix)| self.missing(problem, fix))
    }

    /// Refuses a recipe in a group spool if others could change what it runs with this PATH.
    pub fn check_trust(&self, search: Option<&OsStr>) -> Result<(), FindError> {
        let Some(trust) = self.trust.filter(|trust| trust.is_shared) else {
            return Ok(());
        };
        // These are checked first: a folder or file that others could change is not listed or read.
        let env_file = self.manifest.env_file.as_ref();
        let env_file = env_file.map(|file| self.folder().join(file));
        let places = [self.path.parent(), Some(self.folder()), env_file.as_deref()];
        let exposed = trust.problem_of(places.into_iter().flatten()).or_else(|| {
            let parts = self.parts(trust, search);
            trust
                .problem_of(&parts.paths)
                .or_else(|| Some(describe_unclear(parts.unclear?, &self.path)))
        });
        let name = || self.name.clone();
        exposed.map_or(Ok(()), |exposed| Err(FindError::open(name(), exposed)))
    }

    /// The PATH that the recipe sets for itself.
    pub(super) fn own_path(&self) -> Option<String> {
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
        let broken = |problem: String, fix: String| FindError::Broken {
            path: path.clone(),
            problem: format!("this `env_file` {problem}"),
            fix,
        };
        let correct = || "correct the file: each line must be NAME=value".to_owned();
        let metadata = std::fs::metadata(&path).map_err(|error| {
            let fix = "create it with mode 600 and lines of NAME=value, or remove `env_file` from recipe.toml";
            broken(format!("cannot be read: {error}"), fix.to_owned())
        })?;
        if metadata.permissions().mode() & 0o077 != 0 {
            let fix = fix_command("chmod 600", &path);
            return Err(broken(
                "may contain secrets, and other users can access it".to_owned(),
                fix,
            ));
        }
        let wrong =
            |error: &dyn std::fmt::Display| broken(format!("cannot be used: {error}"), correct());
        let text = file::read_text(&path).map_err(|error| wrong(&error))?;
        parse_env_file(&text).map_err(|error| wrong(&error))
    }
}
