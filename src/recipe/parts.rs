//! The files and folders that decide what a recipe runs.
//!
//! Not whether others could change them (`trust.rs`). What a program reads by itself is not known here, nor are
//! the folders of the watcher's PATH. Invariant: a program counts with the interpreter of its first line, and
//! with the folder that it stands in, where a script's modules are found first.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::found::{Kind, Recipe};
use super::program::{first_line, on_path};
use super::trust::Trust;

/// As many interpreters of interpreters as the kernel starts.
const MOST_INTERPRETERS: usize = 5;

impl Recipe {
    /// The folder the recipe was found in, the recipe, what lies in its folder, its programs, and what the
    /// manifest names besides: its `env_file`, which may set any variable, and the folders of its PATH, in each
    /// of which the program may stand first. PraisonAI's program is looked for on `search` as well.
    pub(super) fn parts(&self, trust: Trust, search: Option<&OsStr>) -> BTreeSet<PathBuf> {
        // Only the owner opens what the owner's manifest names.
        let is_owner = rustix::process::geteuid().as_raw() == trust.owner;
        let own_path = match is_owner {
            true => self.own_path(),
            false => self.manifest.env.get("PATH").cloned(),
        };
        let own_path = own_path.map(OsString::from);
        let own_path = own_path.as_deref();
        let mut parts: BTreeSet<PathBuf> =
            self.path.parent().map(Path::to_owned).into_iter().collect();
        // Of a recipe that is one file, what lies beside it is in its folder as well.
        let entries = WalkDir::new(self.folder())
            .max_depth(1)
            .into_iter()
            .flatten();
        parts.extend(entries.map(walkdir::DirEntry::into_path));
        for program in self.programs(own_path, search, is_owner) {
            self.add_program(&mut parts, program, own_path, is_owner);
        }
        let env_file = self.manifest.env_file.iter();
        parts.extend(env_file.map(|file| self.folder().join(file)));
        parts.extend(own_path.into_iter().flat_map(absolute_folders));
        parts
    }

    /// The programs that are started, as far as their paths are known; `reads` says whether a file may be opened
    /// to find out.
    fn programs(
        &self,
        own_path: Option<&OsStr>,
        search: Option<&OsStr>,
        reads: bool,
    ) -> Vec<PathBuf> {
        if self.kind != Kind::PraisonAi {
            let program = self.program(None);
            let is_path = program.components().count() > 1;
            let program = is_path
                .then(|| program.clone())
                .or_else(|| located(program, own_path));
            return program.into_iter().collect();
        }
        let paths = [own_path, search];
        let paths = paths.into_iter().flatten().filter(|_| reads);
        let mut programs: Vec<PathBuf> = paths
            .flat_map(|path| self.praisonai.programs(path))
            .collect();
        programs.extend(located(self.program(None), own_path));
        programs
    }

    /// A program with the folders that it stands in, and the same of the interpreters that start it.
    fn add_program(
        &self,
        parts: &mut BTreeSet<PathBuf>,
        program: PathBuf,
        own_path: Option<&OsStr>,
        reads: bool,
    ) {
        let within = program.ancestors().take_while(|path| *path != self.path);
        if program.starts_with(&self.path) {
            parts.extend(within.map(Path::to_owned));
        }
        let mut left = vec![program];
        for _ in 0..=MOST_INTERPRETERS {
            for program in std::mem::take(&mut left) {
                let behind_links = std::fs::canonicalize(&program).ok();
                let both = [Some(&program), behind_links.as_ref()];
                let folders = both.into_iter().flatten().filter_map(|path| path.parent());
                parts.extend(folders.map(Path::to_owned));
                if reads {
                    left.extend(interpreters(&program, own_path));
                }
                parts.insert(program);
            }
        }
    }
}

/// The programs that the first line of a script names: its interpreter, and what `env` would start, by the
/// recipe's own PATH.
fn interpreters(script: &Path, own_path: Option<&OsStr>) -> Vec<PathBuf> {
    let words = first_line(script).unwrap_or_default();
    let Some((interpreter, arguments)) = words.split_first() else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = located(interpreter.into(), None).into_iter().collect();
    if Path::new(interpreter).file_name() == Some(OsStr::new("env")) {
        // Options and variables stand before the program; no program is called like one.
        let named = arguments.iter().map(|word| {
            let word = word.strip_prefix("-S").unwrap_or(word);
            located(word.into(), own_path)
        });
        found.extend(named.flatten());
    }
    found
}

/// Where a program is that is named by an absolute path, or by a name alone. A relative path is below the
/// current folder of the task, which is the owner's alone.
fn located(program: PathBuf, own_path: Option<&OsStr>) -> Option<PathBuf> {
    if program.is_absolute() {
        return Some(program);
    }
    let is_name = program.components().count() == 1;
    let folders = own_path.into_iter().flat_map(absolute_folders);
    let search = std::env::join_paths(folders).ok().filter(|_| is_name)?;
    on_path(program, &search).filter(|path| path.is_absolute())
}

fn absolute_folders(search: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(search).filter(|folder| folder.is_absolute())
}
