//! `rejected/`: the refused files, each with its reason next to it.
//!
//! Not the decision (`incoming.rs`, `control.rs`). Invariant: a refused file is kept unchanged, under a name
//! that has no character that is special for a terminal or a shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::box_entry::is_placeholder;
use super::drop_claim::HeldClaim;
use super::drop_file::stem;
use super::drop_read::DropRefusal;
use crate::clock;
use crate::spool::disk::{Dir, IoResult};
use crate::spool::layout::name::{self, DROP_SUFFIX, OF_CONVERSION, REASON_SUFFIX};
use crate::spool::open::Spool;
use crate::task::{FORMAT_VERSION, MAX_REQUEST_BYTES, TaskId, Timestamp, escape_label, to_pretty};

/// Whether a conversion created this entry. It was private from the start, so no other user could change it.
pub(in crate::spool) fn is_of_conversion(file: &OsStr) -> bool {
    let name = file
        .to_str()
        .and_then(|name| name.strip_suffix(OF_CONVERSION));
    name.and_then(|name| name.strip_suffix('-'))
        .is_some_and(|id| id.parse::<TaskId>().is_ok())
}

/// How many levels deep a folder is searched for folders of other users.
pub(in crate::spool) const DEEPEST: usize = 50;

/// `rejected/<id>-NAME.reason.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Format version.
    pub v: u32,
    /// The drop's name, escaped.
    pub name: String,
    /// The reason, in one line.
    pub reason: String,
    /// What to try.
    pub hint: String,
    /// When it was refused.
    pub rejected_at: Timestamp,
}

/// The name of the reason file for a file that is kept under this name.
pub(in crate::spool) fn reason_file(kept: &str) -> String {
    format!("{kept}{REASON_SUFFIX}")
}

/// The name of the reason file for a file in `rejected/`, which may be the reason file itself.
pub(in crate::spool) fn reason_beside(file: &OsStr) -> Option<OsString> {
    let name = file.to_str()?;
    let kept = name
        .strip_suffix(REASON_SUFFIX)
        .or_else(|| name.strip_suffix(DROP_SUFFIX))?;
    Some(reason_file(kept).into())
}

/// A file name with only safe characters, short enough for a prefix and a suffix. A name that ends in
/// `.reason` is changed, so that the drop does not look like the reason of another drop.
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

/// The first folder in a tree that belongs to another user, with its uid. Only that user and root can remove
/// what is in it.
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
    /// Folders in `rejected/` that belong to other users, with the uid. The spool's owner cannot remove them.
    pub fn strange_in_rejected(&self) -> IoResult<Vec<(std::path::PathBuf, u32)>> {
        let rejected = self.folder(name::REJECTED)?;
        let strange = |entry: &OsString| strange_below(&rejected, entry, DEEPEST);
        Ok(rejected.names()?.iter().filter_map(strange).collect())
    }

    /// The newest refusal of a drop of this name, and the id under which it was refused.
    pub fn rejected_drop(&self, task_name: &str) -> IoResult<Option<(TaskId, Reason)>> {
        let Some(rejected) = self.folder(name::REJECTED).ok() else {
            return Ok(None);
        };
        let kept = plain_file_name(task_name.as_bytes());
        let ending = format!("-{kept}{REASON_SUFFIX}");
        let mut found: Vec<(TaskId, OsString)> = Vec::new();
        rejected.each_name(|name, _| {
            let id = std::str::from_utf8(name).ok();
            let id = id.and_then(|name| name.strip_suffix(&ending)?.parse().ok());
            found.extend(id.map(|id| (id, OsString::from_vec(name.to_vec()))));
            true
        })?;
        found.sort_unstable_by(|a, b| b.cmp(a));
        // Different names may become the same plain name, so the name in the reason is compared.
        let asked = escape_label(task_name.as_bytes());
        for (id, file) in found {
            let bytes = rejected.read(&file, MAX_REQUEST_BYTES)?.unwrap_or_default();
            match serde_json::from_slice::<Reason>(&bytes) {
                Ok(reason) if reason.name == asked => return Ok(Some((id, reason))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Whether a drop with this chosen id was refused under it.
    pub(in crate::spool) fn is_refused(&self, id: TaskId) -> IoResult<bool> {
        self.folder(name::REJECTED)?
            .has(reason_file(&format!("{id}-{id}")))
    }

    /// The reason why a drop with this chosen id was refused under it; `None` if it was not.
    pub(in crate::spool) fn refusal_of(&self, id: TaskId) -> IoResult<Option<Reason>> {
        let file = reason_file(&format!("{id}-{id}"));
        let bytes = self.folder(name::REJECTED)?.read(file, MAX_REQUEST_BYTES)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Whether a file was already refused under this id and kept under the name that this file would get.
    pub(super) fn keeps_another(&self, file_name: &OsStr, id: TaskId) -> IoResult<bool> {
        let kept = format!("{}{DROP_SUFFIX}", kept_name(file_name, id));
        let kept = self.folder(name::REJECTED)?.look(kept)?;
        Ok(kept.is_some_and(|it| !is_placeholder(&it)))
    }

    /// Writes the reason and then moves a file to `rejected/`; `false` if the file is gone.
    ///
    /// # Errors
    /// Fails also if the file cannot be moved. Then it stays where it is, and has no reason.
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
        // Without its file, a reason would be written again at each pass. A faster watcher has put both
        // there.
        if !matches!(taken, Ok(true)) && !rejected.has_here(&file)? {
            rejected.unlink(&reason_file)?;
        }
        taken
    }

    /// Moves a claimed file to `rejected/`. The file always leaves the claim, because otherwise the claim
    /// would be replayed again and again.
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

    /// Moves a claimed file to `rejected/` after its reason was written.
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
        // The box of a private spool may be a mount of its own, so the file cannot be renamed to `rejected/`.
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
            true => format!("the file is kept as incoming/{hidden}"),
            // The file's owner changed its project id (for a quota of XFS or ext4) after the claim.
            false => "the file could not be moved and was removed".to_owned(),
        };
        reason.hint = format!("{}; {message}", reason.hint);
        rejected.replace(&reason_file(&kept), &to_pretty(&reason))?;
        if !is_beside {
            claim.discard(file_name, &self.folder(name::TRASH)?)?;
        }
        Ok(())
    }
}

/// The name under which a refused file is kept, without its suffix.
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

    // Found by fuzzing: `x.reason.json` was kept under the name of the reason file of `x.json`.
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
