//! The files and folders that decide what a recipe runs.
//!
//! Not whether others could change them (`trust.rs`). What a program reads by itself is not known here, nor are
//! the folders of the watcher's PATH. Invariant: a program counts with the interpreter of its first line, and
//! with the folder that it stands in, where a script's modules are found first; of programs that are looked for by
//! their names, each one counts that could be started.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::first_line::FirstLine;
use super::found::{Kind, Recipe};
use super::program::each_on_path;
use super::trust::Trust;

/// As many interpreters of interpreters as the kernel starts.
const MOST_INTERPRETERS: usize = 5;

/// What decides what a recipe runs.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Files and folders.
    pub paths: BTreeSet<PathBuf>,
    /// A script whose first line does not say all that it starts.
    pub unclear: Option<PathBuf>,
}

impl Recipe {
    /// Whether nobody but the owner and root could add a program to a folder.
    pub fn is_closed(&self, folder: &Path) -> bool {
        self.trust.is_none_or(|trust| trust.is_closed(folder))
    }

    /// The folder the recipe was found in, the recipe, what lies in its folder, its programs, and what the
    /// manifest names besides: its `env_file`, which may set any variable, and the folders of its PATH, in each
    /// of which the program may stand first. PraisonAI's program is looked for on `search` as well.
    pub(super) fn parts(&self, trust: Trust, search: Option<&OsStr>) -> Parts {
        // Only the owner opens what the owner's manifest names.
        let is_owner = rustix::process::geteuid().as_raw() == trust.owner;
        let own_path = match is_owner {
            true => self.own_path(),
            false => self.manifest.env.get("PATH").cloned(),
        };
        let own_path = own_path.map(OsString::from);
        let own_path = own_path.as_deref();
        let mut parts = Parts::default();
        parts.paths.extend(self.path.parent().map(Path::to_owned));
        // Of a recipe that is one file, what lies beside it is in its folder as well.
        let entries = WalkDir::new(self.folder())
            .max_depth(1)
            .into_iter()
            .flatten();
        parts
            .paths
            .extend(entries.map(walkdir::DirEntry::into_path));
        for program in self.programs(own_path, search, is_owner) {
            self.add_program(&mut parts, program, own_path, is_owner);
        }
        let env_file = self.manifest.env_file.iter();
        let env_file = env_file.map(|file| self.folder().join(file));
        parts.paths.extend(env_file);
        parts
            .paths
            .extend(own_path.into_iter().flat_map(absolute_folders));
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
            return match program.components().count() > 1 {
                true => vec![program],
                false => located(&program, own_path),
            };
        }
        let paths = [own_path, search];
        let paths = paths.into_iter().flatten().filter(|_| reads);
        let mut programs: Vec<PathBuf> = paths
            .flat_map(|path| self.praisonai.programs(path))
            .collect();
        programs.extend(located(&self.program(None), own_path));
        programs
    }

    /// A program with the folders that it stands in, and the same of the interpreters that start it.
    fn add_program(
        &self,
        parts: &mut Parts,
        program: PathBuf,
        own_path: Option<&OsStr>,
        reads: bool,
    ) {
        let within = program.ancestors().take_while(|path| *path != self.path);
        if program.starts_with(&self.path) {
            parts.paths.extend(within.map(Path::to_owned));
        }
        let mut left = vec![program];
        for _ in 0..=MOST_INTERPRETERS {
            for program in std::mem::take(&mut left) {
                let behind_links = std::fs::canonicalize(&program).ok();
                let both = [Some(&program), behind_links.as_ref()];
                for path in both.into_iter().flatten() {
                    let folder = path.parent();
                    // A file `pyvenv.cfg` in the folder above says where Python's modules are.
                    let above = folder.and_then(Path::parent).filter(|_| is_python(path));
                    let folders = folder.into_iter().chain(above);
                    parts.paths.extend(folders.map(Path::to_owned));
                }
                if let Some(line) = FirstLine::of(&program).filter(|_| reads) {
                    left.extend(located(&line.interpreter, None));
                    match line.named() {
                        Some(named) => {
                            let named = named.iter().map(Path::new);
                            left.extend(named.flat_map(|name| located(name, own_path)));
                        }
                        None => parts.unclear = Some(program.clone()),
                    }
                }
                parts.paths.insert(program);
            }
        }
    }
}

fn is_python(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"python")
}

/// Where a program is that is named by an absolute path, and each place where it may be by a name alone. A
/// relative path is below the current folder of the task, which is the owner's alone.
fn located(program: &Path, own_path: Option<&OsStr>) -> Vec<PathBuf> {
    if program.is_absolute() {
        return vec![program.to_owned()];
    }
    if program.components().count() != 1 {
        return Vec::new();
    }
    let found = own_path
        .into_iter()
        .flat_map(|path| each_on_path(program, path));
    found.filter(|path| path.is_absolute()).collect()
}

fn absolute_folders(search: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(search).filter(|folder| folder.is_absolute())
}
