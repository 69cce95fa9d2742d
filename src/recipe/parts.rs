//! The files and folders that decide what a recipe runs.
//!
//! Not whether others could change them (`trust.rs`). Files that a program reads by itself are not known
//! here, nor are the folders of the watcher's PATH. Invariant: a program is listed together with the
//! interpreter of its first line and with its folder, where a script's modules are found first. For a program
//! that is searched for by name, every file that could be started is listed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::first_line::FirstLine;
use super::found::{Kind, Recipe};
use super::program::each_on_path;
use super::trust::Trust;

/// The files and folders that decide what a recipe runs.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Files and folders.
    pub paths: BTreeSet<PathBuf>,
    /// What leaves open which programs run.
    pub unclear: Option<Unclear>,
}

/// What leaves open which programs run.
#[derive(Debug)]
pub(super) enum Unclear {
    /// The first line of this script.
    FirstLine(PathBuf),
    /// The PATH that the recipe sets: a folder in it is empty or relative.
    OwnPath,
}

impl Recipe {
    /// Whether only the owner and root could add a program to a folder.
    pub fn is_closed(&self, folder: &Path) -> bool {
        self.trust.is_none_or(|trust| trust.is_closed(folder))
    }

    /// Lists the folder that the recipe was found in, the recipe, the entries of its folder and its programs.
    /// Also lists its `env_file`, which may set any variable, and the folders of its PATH, because the
    /// program may be in any of them. PraisonAI's program is searched for on `search` too.
    pub(super) fn parts(&self, trust: Trust, search: Option<&OsStr>) -> Parts {
        // Only the owner opens files that the owner's manifest names.
        let is_owner = rustix::process::geteuid().as_raw() == trust.owner;
        let own_path = match is_owner {
            true => self.own_path(),
            false => self.manifest.env.get("PATH").cloned(),
        };
        let own_path = own_path.map(OsString::from);
        let own_path = own_path.as_deref();
        let mut parts = Parts::default();
        parts.paths.extend(self.path.parent().map(Path::to_owned));
        // The folder of a single-file recipe is the one that contains it, so its neighbours are listed.
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
        for folder in own_path.into_iter().flat_map(std::env::split_paths) {
            match folder.is_absolute() {
                true => drop(parts.paths.insert(folder)),
                false => parts.unclear = Some(Unclear::OwnPath),
            }
        }
        parts
    }

    /// The programs that are started, as far as their paths are known. Files are opened only if `reads` is
    /// true.
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

    /// Adds a program with its folders, and the interpreters that start it with theirs.
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
        // The kernel limits a chain of interpreters, but each `env` starts a new chain. So all are followed.
        let mut followed = BTreeSet::new();
        let mut left = vec![program];
        while let Some(program) = left.pop() {
            if !followed.insert(program.clone()) {
                continue;
            }
            let resolved = std::fs::canonicalize(&program).ok();
            let both = [Some(&program), resolved.as_ref()];
            for path in both.into_iter().flatten() {
                let folder = path.parent();
                // A file `pyvenv.cfg` in the parent folder decides where Python finds its modules.
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
                    None => parts.unclear = Some(Unclear::FirstLine(program.clone())),
                }
            }
            parts.paths.insert(program);
        }
    }
}

fn is_python(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b"python")
}

/// The path of a program that is named by an absolute path, or every path that a name without a slash may
/// mean. A relative path gives nothing: a first line that has one is refused.
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
