//! A drop in the box: its name, and its metadata when it was listed.
//!
//! Not its content (`drop_read.rs`). Invariant: names are only compared here, no file is opened.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};

use super::drop_claim::SeenFile;
use super::drop_read::Fingerprint;
use crate::spool::layout::name::DROP_SUFFIX;
use crate::task::{Name, escape_label};

/// A drop that was listed.
#[derive(Debug)]
pub struct DropFile {
    pub(in crate::spool) file_name: OsString,
    pub(in crate::spool) user: u32,
    pub(in crate::spool) seen: Fingerprint,
    /// The ctime in seconds and nanoseconds: when it was moved here or last changed. No user can set it.
    pub(in crate::spool) arrived: (i64, u64),
    /// Whether it is a folder, which is never taken.
    pub(in crate::spool) is_folder: bool,
}

impl DropFile {
    pub(in crate::spool) fn of(file_name: OsString, stat: &Stat) -> DropFile {
        DropFile {
            file_name,
            user: stat.st_uid,
            seen: Fingerprint::of(stat),
            arrived: (stat.st_ctime, stat.st_ctime_nsec),
            is_folder: is_folder(stat),
        }
    }

    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    /// The user id of its owner in a group spool, else 0.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// The file's fingerprint when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// When it was moved here or last changed, in seconds and nanoseconds since the epoch. A new mode or link
    /// counts as a change.
    pub fn arrived(&self) -> (i64, u64) {
        self.arrived
    }

    /// Its name without `.json`, escaped: for messages.
    pub fn label(&self) -> String {
        escape_label(stem(&self.file_name))
    }

    /// Whether it is a folder, which is never taken.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    pub(super) fn seen_file(&self) -> SeenFile {
        SeenFile::of(self.seen, self.arrived)
    }
}

pub(in crate::spool) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn stem(file_name: &OsStr) -> &[u8] {
    let bytes = file_name.as_bytes();
    bytes.strip_suffix(DROP_SUFFIX.as_bytes()).unwrap_or(bytes)
}

/// Whether this is `*.json` without a leading dot. Other names belong to editors or copy programs, or are
/// control files, which the caller checks first.
pub(super) fn is_drop_name(name: &[u8]) -> bool {
    name.ends_with(DROP_SUFFIX.as_bytes()) && !name.starts_with(b".") && name.len() > 5
}

/// Whether a whole name matches a pattern, in which `*` matches any text and every other byte itself.
pub(super) fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&[u8]> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The task name in a drop's file name; `None` if the file name is not a valid task name.
pub(super) fn name_of_drop(file_name: &OsStr) -> Option<Name> {
    let text = std::str::from_utf8(stem(file_name)).ok()?;
    text.parse::<Name>()
        .ok()
        .filter(Name::is_allowed_for_a_task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_files_without_a_leading_dot_are_drops() {
        for (name, is_drop) in [
            ("report.json", true),
            (".report.json", false),
            (".json", false),
            ("report.json~", false),
            ("report.json.tmp", false),
            ("4913", false),
            ("-rf.json", true),
            ("...json", false),
            ("a b.json", true),
            ("task_01m85x906pb06zhxqqsktssv9k.json", true),
            ("task_01m85x906pb06zhxqqsktssv9k.cancel", false),
        ] {
            assert_eq!(is_drop_name(name.as_bytes()), is_drop, "{name}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, name, is_match) in [
            ("*.sync-conflict-*", "a.sync-conflict-1-2-ABC.json", true),
            ("*.sync-conflict-*", "sync-conflict.json", false),
            (
                "*conflicted copy*",
                "a (Ada's conflicted copy 2).json",
                true,
            ),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("same.json", "same.json", true),
            ("same", "same.json", false),
            ("*", "", true),
            ("**.json", "x.json", true),
        ] {
            let matches = matches_pattern(pattern.as_bytes(), name.as_bytes());
            assert_eq!(matches, is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn a_file_name_that_is_a_task_name_names_the_task() {
        for (name, expected) in [
            ("report.json", Some("report")),
            ("my report.json", None),
            ("last.json", None),
            ("task_1.json", None),
            ("-x.json", None),
        ] {
            let named = name_of_drop(OsStr::new(name));
            assert_eq!(named.as_ref().map(Name::as_str), expected, "{name}");
        }
    }
}
