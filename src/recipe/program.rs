//! Programs: whether a file is executable, where a program is on a PATH, and which interpreter a script
//! names.
//!
//! Not the start of a program (`runner/spawn/`). Invariant: a folder is never a program.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file;

/// The first program of this name on a PATH.
pub(super) fn on_path(program: impl AsRef<Path>, search: &OsStr) -> Option<PathBuf> {
    each_on_path(program.as_ref(), search).next()
}

/// All programs of this name on a PATH. If the first one does not start, the next one is tried.
pub(super) fn each_on_path(program: &Path, search: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(search)
        .map(move |folder| folder.join(program))
        .filter(|path| is_executable(path))
}

pub(super) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| may_be_executed(&metadata))
}

pub(super) fn may_be_executed(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

/// The words of a script's first line after `#!`, as a person reads them. `None` for any other file.
pub(super) fn first_line(script: &Path) -> Option<Vec<String>> {
    let head = file::read_head(script, 4096).ok()?;
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next()?.strip_prefix("#!")?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}
