//! A drop as it stands in the box: its name, and what was seen of it.
//!
//! Not what it says (`drop_read.rs`). Invariant: a name is only read here, never followed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};

use super::drop_claim::LookedAt;
use super::drop_read::Fingerprint;
use crate::spool::layout::name::DROP_SUFFIX;
use crate::task::{Name, escape_label};

/// A drop that is there and was looked at.
#[derive(Debug)]
pub struct DropFile {
    pub(in crate::spool) file_name: OsString,
    pub(in crate::spool) user: u32,
    pub(in crate::spool) seen: Fingerprint,
    /// When the file came here or was last changed: seconds and nanoseconds of its ctime, which nobody
    /// can set.
    pub(in crate::spool) arrived: (i64, u64),
    /// Whether it is a folder, which is left where it is.
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

    /// In whose round it is taken: its owner, in a group spool.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// What it was when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// When it came here or was last changed, in seconds and nanoseconds: also by a new mode or link.
    pub fn arrived(&self) -> (i64, u64) {
        self.arrived
    }

    /// Its name without `.json`, escaped: for messages.
    pub fn label(&self) -> String {
        escape_label(stem(&self.file_name))
    }

    /// Whether it is a folder, which is left where it is.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    pub(super) fn looked_at(&self) -> LookedAt {
        LookedAt::of(self.seen, self.arrived)
    }
}

pub(in crate::spool) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn stem(file_name: &OsStr) -> &[u8] {
    let bytes = file_name.as_bytes();
    bytes.strip_suffix(DROP_SUFFIX.as_bytes()).unwrap_or(bytes)
}

/// `*.json` without a leading dot: everything else belongs to somebody's editor or copy program, or asks for
/// something to be done to a task, which is looked for first.
pub(super) fn is_drop_name(name: &[u8]) -> bool {
    name.ends_with(DROP_SUFFIX.as_bytes()) && !name.starts_with(b".") && name.len() > 5
}

/// Whether a whole name fits a pattern, in which `*` stands for any text and everything else for itself.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
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

/// The name a drop gives its task, if its file name is one.
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
    fn which_names_are_drops() {
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
    fn which_names_fit_a_pattern() {
        for (pattern, name, does_fit) in [
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
            let fits = fits(pattern.as_bytes(), name.as_bytes());
            assert_eq!(fits, does_fit, "{pattern} {name}");
        }
    }

    #[test]
    fn which_drops_name_their_task() {
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
