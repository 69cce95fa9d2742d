//! PraisonAI recipe folders: how they are recognized, read and run.
//!
//! A recipe is run by the Python in which PraisonAI is installed. That Python gets the text of
//! `praisonai.py`, which is part of this binary. No code of PraisonAI is in here. Not the process
//! (`runner/`). Invariant: such a recipe is a program with arguments, like any other recipe.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::error::ManifestError;
use super::file;
use super::manifest::Manifest;
use super::program::{each_on_path, first_line, is_executable, on_path};

/// A folder with one of these files is a PraisonAI recipe.
pub(super) const MARKER_FILES: [&str; 2] = ["TEMPLATE.yaml", "agents.yaml"];
/// The Python code that the interpreter runs.
const BRIDGE: &str = include_str!("praisonai.py");
/// Exits with 0 if the package is installed, without importing it. `python -c` searches for modules in the
/// current folder first, so that entry is removed before anything is imported. (`-I` would also ignore
/// PYTHONPATH and the user's own packages, and `-P` is new in Python 3.11.)
const PROBE: &str = "import sys; sys.path[:] = filter(None, sys.path); import importlib.util; \
                     sys.exit(importlib.util.find_spec('praisonai') is None)";
/// The console program whose first line names the interpreter it was installed for.
const PROGRAM: &str = "praisonai";
/// The interpreter if that program is not on PATH.
const FALLBACK: &str = "python3";
/// The command that sets another interpreter.
const SETTING: &str = "`agentspool config set praisonai_python /path/to/python`";
/// A file of variables in the recipe's folder, as is usual for PraisonAI.
const ENV_FILE: &str = ".env";
/// The variables that a submitter may set if `recipe.toml` does not list any: those that choose the model and
/// give access to it.
const ENV_ACCEPT: [&str; 9] = [
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL_NAME",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GROQ_API_KEY",
    "OPENROUTER_API_KEY",
    "TAVILY_API_KEY",
];

/// What is missing, and what to do about it.
type Lack = (String, String);

/// The installed PraisonAI: the Python that has it and, after the first check, whether it is installed.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// The setting `praisonai_python`.
    python: Option<PathBuf>,
    found: OnceLock<Result<(), Lack>>,
}

impl Installed {
    pub fn new(python: Option<&str>) -> Installed {
        Installed {
            python: python.map(PathBuf::from),
            found: OnceLock::new(),
        }
    }

    /// The interpreter: that of the setting, else that of the `praisonai` program on this PATH, else
    /// `python3` on this PATH.
    pub fn interpreter(&self, search: Option<&OsStr>) -> PathBuf {
        if let Some(python) = &self.python {
            return python.clone();
        }
        let program = search.and_then(|search| on_path(PROGRAM, search));
        program
            .and_then(|program| interpreter_of(&program))
            .unwrap_or_else(|| PathBuf::from(FALLBACK))
    }

    /// The programs on this PATH that decide which interpreter is started.
    pub fn programs(&self, search: &OsStr) -> Vec<PathBuf> {
        if self.python.is_some() {
            return Vec::new();
        }
        let program = on_path(PROGRAM, search);
        let python = self.interpreter(Some(search));
        let python = match python.is_absolute() {
            true => vec![python],
            false => each_on_path(&python, search).collect(),
        };
        program.into_iter().chain(python).collect()
    }

    /// Checks that PraisonAI is installed, by running the interpreter once. Without a PATH, it only checks
    /// that the interpreter of the setting exists. Watchers, runners and group users give no PATH: watchers
    /// and runners must not wait for a program, and group users must not run a program that the owner names.
    /// The bridge also reports what is missing.
    pub fn check(&self, search: Option<&OsStr>) -> Result<(), Lack> {
        match (search, &self.python) {
            (Some(_), _) => self.found.get_or_init(|| self.ask(search)).clone(),
            (None, Some(python)) if !is_executable(python) => {
                Err(cannot_start(python, "there is no such program"))
            }
            (None, _) => Ok(()),
        }
    }

    fn ask(&self, search: Option<&OsStr>) -> Result<(), Lack> {
        let python = self.interpreter(search);
        let mut probe = Command::new(&python);
        if let Some(search) = search {
            probe.env("PATH", search);
        }
        let asked = probe
            .args(["-c", PROBE])
            // The current folder may belong to another user.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match asked {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => {
                let python = python.display();
                Err((
                    format!("PraisonAI is not installed for {python}"),
                    format!(
                        "install it with `{python} -m pip install praisonai`, or name the Python that has it with {SETTING}"
                    ),
                ))
            }
            Err(error) => Err(cannot_start(&python, &error.to_string())),
        }
    }
}

fn cannot_start(python: &Path, why: &str) -> Lack {
    let python = python.display();
    (
        format!("the Python for PraisonAI cannot be started: {python}: {why}"),
        format!("set another Python with {SETTING}"),
    )
}

/// The arguments of the interpreter.
pub(super) fn arguments() -> [&'static str; 2] {
    ["-c", BRIDGE]
}

/// Whether a folder is a PraisonAI recipe.
pub(super) fn is_recipe(folder: &Path) -> bool {
    MARKER_FILES.iter().any(|file| folder.join(file).is_file())
}

/// The manifest of such a folder: from its `recipe.toml` if it has one (without a `command`), else from
/// PraisonAI's own file.
pub(super) fn manifest(folder: &Path, toml: Option<&str>) -> Result<Manifest, ManifestError> {
    let mut manifest = match toml {
        Some(text) => Manifest::parse_without_command(text)?,
        None => Manifest::default(),
    };
    // The bridge writes a result after each successful run. Without one, the process was ended too early.
    manifest.needs_result = true;
    if manifest.description.is_empty() {
        manifest.description = describe(folder);
    }
    if manifest.env_accept.is_empty() {
        manifest.env_accept = ENV_ACCEPT.map(str::to_owned).to_vec();
    }
    if manifest.env_file.is_none() && folder.join(ENV_FILE).is_file() {
        manifest.env_file = Some(ENV_FILE.to_owned());
    }
    Ok(manifest)
}

/// The one-line `description` of `TEMPLATE.yaml`. Only PraisonAI reads the rest of the YAML.
fn describe(folder: &Path) -> String {
    let text = file::read_head(&folder.join(MARKER_FILES[0]), file::MAX_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let described = text
        .lines()
        .find_map(|line| line.strip_prefix("description:"))
        .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
        // The first line of a YAML block has no text, only the kind of the block.
        .filter(|value| !value.is_empty() && !value.starts_with(['|', '>']));
    described.unwrap_or_else(|| "a PraisonAI recipe".to_owned())
}

/// The interpreter in the first line of a script. `None` if the line names `env` or a shell.
fn interpreter_of(script: &Path) -> Option<PathBuf> {
    let python = PathBuf::from(first_line(script)?.into_iter().next()?);
    let is_python = python.file_name()?.to_string_lossy().starts_with("python");
    (is_python && python.is_absolute()).then_some(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_that_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(PROGRAM);
        for (line, expected) in [
            ("#!/opt/venv/bin/python3\n", Some("/opt/venv/bin/python3")),
            (
                "#!/opt/venv/bin/python3.12 -E\n",
                Some("/opt/venv/bin/python3.12"),
            ),
            ("#!/usr/bin/env python3\n", None),
            ("#!/bin/sh\n", None),
            ("\u{7f}ELF", None),
        ] {
            std::fs::write(&program, line).unwrap();
            let found = interpreter_of(&program);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{line}");
        }
    }

    #[test]
    fn only_a_description_of_one_line_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("name: a\ndescription: Reads pages\n", "Reads pages"),
            ("description: \"Reads: pages\"\n", "Reads: pages"),
            ("description: |\n  Reads\n", "a PraisonAI recipe"),
            ("meta:\n  description: no\n", "a PraisonAI recipe"),
        ] {
            std::fs::write(folder.path().join(MARKER_FILES[0]), text).unwrap();
            assert_eq!(describe(folder.path()), expected, "{text}");
        }
    }
}
