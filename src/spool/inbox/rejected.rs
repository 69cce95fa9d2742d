//! `rejected/`: what was refused, each with its reason beside it.
//!
//! Not the decision (`incoming.rs`, `control.rs`). Invariant: a file of a stranger's is kept as it is, under
//! a name of ours that holds no character of his that a terminal or a shell would take for something else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::drop_claim::HeldClaim;
use super::drop_file::stem;
use super::drop_read::DropRefusal;
use crate::clock;
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::name::{self, DROP_SUFFIX, OF_CONVERSION, REASON_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{FORMAT_VERSION, MAX_REQUEST_BYTES, TaskId, Timestamp, escape_label, to_pretty};

/// Whether a conversion made this: it was closed from the beginning, so what is in it is nobody else's to
/// change.
pub(in crate::spool) fn is_of_conversion(file: &OsStr) -> bool {
    let name = file
        .to_str()
        .and_then(|name| name.strip_suffix(OF_CONVERSION));
    name.and_then(|name| name.strip_suffix('-'))
        .is_some_and(|id| id.parse::<TaskId>().is_ok())
}

/// How deep a folder is searched for another user's.
pub(in crate::spool) const DEEPEST: usize = 50;

/// `rejected/<id>-NAME.reason.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Format version.
    pub v: u32,
    /// The drop's name, escaped.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// When.
    pub rejected_at: Timestamp,
}

/// The name of the reason of what is kept under this name.
pub(in crate::spool) fn reason_file(kept: &str) -> String {
    format!("{kept}{REASON_SUFFIX}")
}

/// The name of the reason that belongs to a file in `rejected/`, which may be the reason itself.
pub(in crate::spool) fn reason_beside(file: &OsStr) -> Option<OsString> {
    let name = file.to_str()?;
    let kept = name
        .strip_suffix(REASON_SUFFIX)
        .or_else(|| name.strip_suffix(DROP_SUFFIX))?;
    Some(reason_file(kept).into())
}

/// A stranger's file name in letters that are safe in ours, and short enough for a suffix. Never
/// one that would make the drop look like the reason of another drop.
pub(in crate::spool) fn plain_file_name(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    let name: String = bytes
        .iter()
        .take(100)
        .map(|b| if plain(b) { char::from(*b) } else { '_' })
        .collect();
    match name.strip_suffix(".reason") {
        Some(rest) => format!("{rest}_reason"),
        None => name,
    }
}

/// The first folder of another user's in a tree: only he and root can remove what is in it.
pub(in crate::spool) fn strange_below(
    folder: &Dir,
    entry: &OsStr,
    levels: usize,
) -> Option<(std::path::PathBuf, u32)> {
    let stat = folder.look(entry).ok()??;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || levels == 0 {
        return None;
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Some((folder.path_of(entry), stat.st_uid));
    }
    let dir = folder.find_dir(entry).ok()??;
    let names = dir.names().ok()?;
    names
        .iter()
        .find_map(|name| strange_below(&dir, name, levels - 1))
}

impl Spool {
    /// What other users made in `rejected/` and its owner cannot remove, with the uid.
    pub fn strange_in_rejected(&self) -> IoResult<Vec<(std::path::PathBuf, u32)>> {
        let rejected = self.folder(name::REJECTED)?;
        let strange = |entry: &OsString| strange_below(&rejected, entry, DEEPEST);
        Ok(rejected.names()?.iter().filter_map(strange).collect())
    }

    /// The newest refusal of a drop of this name, with the id it was refused under.
    pub fn rejected_drop(&self, task_name: &str) -> IoResult<Option<(TaskId, Reason)>> {
        let Some(rejected) = self.folder(name::REJECTED).ok() else {
            return Ok(None);
        };
        let kept = plain_file_name(task_name.as_bytes());
        let ending = format!("-{kept}{REASON_SUFFIX}");
        let mut fitting: Vec<(TaskId, OsString)> = Vec::new();
        rejected.each_name(|name, _| {
            let id = std::str::from_utf8(name).ok();
            let id = id.and_then(|name| name.strip_suffix(&ending)?.parse().ok());
            fitting.extend(id.map(|id| (id, OsString::from_vec(name.to_vec()))));
            true
        })?;
        fitting.sort_unstable_by(|a, b| b.cmp(a));
        // Other names become the same plain one.
        let asked = escape_label(task_name.as_bytes());
        for (id, file) in fitting {
            let bytes = rejected.read(&file, MAX_REQUEST_BYTES)?.unwrap_or_default();
            match serde_json::from_slice::<Reason>(&bytes) {
                Ok(reason) if reason.name == asked => return Ok(Some((id, reason))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether a drop of this id was refused under this id.
    pub(in crate::spool) fn is_refused(&self, id: TaskId) -> IoResult<bool> {
        self.folder(name::REJECTED)?
            .has(reason_file(&format!("{id}-{id}")))
    }

    /// Why the drop of this id was refused under this id; `None` where it was not.
    pub(in crate::spool) fn refusal_of(&self, id: TaskId) -> IoResult<Option<Reason>> {
        let file = reason_file(&format!("{id}-{id}"));
        let bytes = self.folder(name::REJECTED)?.read(file, MAX_REQUEST_BYTES)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Moves a file to `rejected/`, its reason first; `false` where it was not there any more. What cannot be
    /// moved stays where it is, which is an error, and has no reason.
    pub(super) fn reject_file(
        &self,
        folder: &Dir,
        file_name: &OsStr,
        id: TaskId,
        why: &DropRefusal,
    ) -> IoResult<bool> {
        let rejected = self.folder(name::REJECTED)?;
        let kept = kept_name(file_name, id);
        let reason_file = reason_file(&kept);
        rejected.replace(&reason_file, &to_pretty(&reason(file_name, why)))?;
        let file = format!("{kept}{DROP_SUFFIX}");
        let taken = folder.take_file(file_name, &rejected, &file);
        // A reason without its file would be one more at each look. Who was faster has put both there.
        if !matches!(taken, Ok(true)) && !rejected.has_here(&file)? {
            rejected.unlink(&reason_file)?;
        }
        taken
    }

    /// The same of a file that was claimed. It always leaves the claim, because a claim that stays would be taken
    /// up again and again.
    pub(super) fn reject_claimed(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        id: TaskId,
        why: &DropRefusal,
    ) -> IoResult<()> {
        let rejected = self.folder(name::REJECTED)?;
        let reason = reason(file_name, why);
        let reason_file = reason_file(&kept_name(file_name, id));
        rejected.replace(&reason_file, &to_pretty(&reason))?;
        self.keep_refused(claim, file_name, id, reason)
    }

    /// The second half of it: the reason stands.
    pub(super) fn keep_refused(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        id: TaskId,
        mut reason: Reason,
    ) -> IoResult<()> {
        let rejected = self.folder(name::REJECTED)?;
        let kept = kept_name(file_name, id);
        let file = format!("{kept}{DROP_SUFFIX}");
        match claim.dir.take_file(file_name, &rejected, &file) {
            Err(error) if error.is_immovable() => {}
            taken => return taken.map(|_| ()),
        }
        // The box of a private spool may be a mount of its own, from which nothing can be renamed to there.
        let hidden = format!(".{file}");
        let is_beside = match self.is_group() {
            true => false,
            false => match claim
                .dir
                .rename_new(file_name, &claim.place.parent, &hidden)
            {
                Err(error) if error.is_immovable() => false,
                moved => moved.map(|()| true)?,
            },
        };
        let message = match is_beside {
            true => format!("it is kept as incoming/{hidden}"),
            // Its owner gave it to another project (a quota of XFS or ext4) behind the claim's back.
            false => "it could not be moved and was removed".to_owned(),
        };
        reason.hint = format!("{}; {message}", reason.hint);
        rejected.replace(&reason_file(&kept), &to_pretty(&reason))?;
        if !is_beside {
            claim.dir.unlink(file_name)?;
        }
        Ok(())
    }
}

/// The name that a refused file is kept under, without its ending.
fn kept_name(file_name: &OsStr, id: TaskId) -> String {
    format!("{id}-{}", plain_file_name(stem(file_name)))
}

fn reason(file_name: &OsStr, why: &DropRefusal) -> Reason {
    Reason {
        v: FORMAT_VERSION,
        name: escape_label(stem(file_name)),
        reason: why.reason.clone(),
        hint: why.hint.to_owned(),
        rejected_at: clock::wall(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Found by fuzzing: `x.reason.json` was kept under the name of the reason of `x.json`.
    #[test]
    fn a_kept_drop_never_looks_like_a_reason() {
        for (stem, kept) in [
            (&b"report"[..], "report"),
            (b"x.reason", "x_reason"),
            (b"x.reason.reason", "x.reason_reason"),
            (b".reason", "_reason"),
            (b"a/b\nc", "a_b_c"),
        ] {
            assert_eq!(plain_file_name(stem), kept);
        }
        let long = [b"x".repeat(93), b".reason.long".to_vec()].concat();
        assert!(plain_file_name(&long).ends_with("_reason"));
    }
}
