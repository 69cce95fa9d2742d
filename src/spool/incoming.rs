//! The drop box: how a file in `incoming/` becomes a task, exactly once, or a refusal with a reason.
//!
//! Not how often to look (`watcher/admit.rs`). Invariants: from the moment a drop is claimed it
//! exists in at least one of `staging/<id>.claim/` and `tasks/<id>/` (I3); what is stored is what
//! was parsed; nothing a stranger put here is followed, waited for, deleted or repeated in a
//! reason.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::drop_claim::{ClaimPlace, HeldClaim};
use super::drop_read::{DropRefusal, Fingerprint, Pickup, refusal};
use super::io_error::IoResult;
use super::layout::{Spool, name, pretty};
use super::publish::{Submission, SubmitError};
use crate::clock;
use crate::task::{
    FORMAT_VERSION, MAX_REQUEST_BYTES, Name, Request, TaskId, Timestamp, escape_label,
};

const REASON_SUFFIX: &str = ".reason.json";
const DROP_SUFFIX: &str = ".json";

/// A drop that is there and was looked at.
#[derive(Debug)]
pub struct DropFile {
    file_name: OsString,
    seen: Fingerprint,
}

/// What else a request must be, besides well formed: that its recipe is there.
pub type Check<'a> = &'a dyn Fn(&Request) -> Result<(), DropRefusal>;

/// What became of a claimed drop.
#[derive(Debug)]
pub enum Admission {
    /// It is this task now.
    Task(TaskId),
    /// Another watcher was faster, or it was taken away.
    Gone,
    /// It changed while it was being claimed and was put back.
    Changed,
    /// It lies in `rejected/` now.
    Rejected(DropRefusal),
}

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

impl DropFile {
    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
    }

    /// What it was when it was listed.
    pub fn seen(&self) -> Fingerprint {
        self.seen
    }

    /// Its name without `.json`, escaped: for messages.
    pub fn label(&self) -> String {
        escape_label(stem(&self.file_name))
    }
}

fn stem(file_name: &OsStr) -> &[u8] {
    let bytes = file_name.as_bytes();
    bytes.strip_suffix(DROP_SUFFIX.as_bytes()).unwrap_or(bytes)
}

/// `*.json` without a leading dot: everything else belongs to somebody's editor or copy program.
fn is_drop_name(name: &[u8]) -> bool {
    name.ends_with(DROP_SUFFIX.as_bytes()) && !name.starts_with(b".") && name.len() > 5
}

/// A stranger's file name in letters that are safe in ours, and short enough for a suffix. Never
/// one that would make the drop look like the reason of another drop.
fn plain_file_name(bytes: &[u8]) -> String {
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

impl Spool {
    /// The drops that are there, oldest first, at most `limit` of them.
    pub fn drops(&self, limit: usize) -> IoResult<Vec<DropFile>> {
        let incoming = self.folder(name::INCOMING)?;
        let mut found = Vec::new();
        let mut names = Vec::new();
        incoming.each_name(|name, _| {
            if is_drop_name(name) {
                names.push(OsString::from_vec(name.to_vec()));
            }
            true
        })?;
        for file_name in names {
            if let Some(stat) = incoming.stat(&file_name)? {
                found.push(DropFile {
                    seen: Fingerprint::of(&stat),
                    file_name,
                });
            }
        }
        found.sort_by(|a, b| (a.seen.modified, &a.file_name).cmp(&(b.seen.modified, &b.file_name)));
        found.truncate(limit);
        Ok(found)
    }

    /// Whether a drop of this name waits in the box, or is being admitted. A member of a group
    /// spool may not list the box but may ask for a name.
    pub fn drop_waits(&self, task_name: &str) -> IoResult<bool> {
        let file_name = format!("{task_name}{DROP_SUFFIX}");
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        if incoming.has(&file_name)? {
            return Ok(true);
        }
        for place in self.claim_places()? {
            for id in place.claims()? {
                let claimed = place.parent.find_dir(place.folder(id));
                if let Ok(Some(claimed)) = claimed
                    && claimed.has(&file_name)?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The newest refusal of a drop of this name, with the id it was refused under.
    pub fn rejected_drop(&self, task_name: &str) -> IoResult<Option<(TaskId, Reason)>> {
        let Some(rejected) = self.folder(name::REJECTED).ok() else {
            return Ok(None);
        };
        let kept = plain_file_name(task_name.as_bytes());
        let ending = format!("-{kept}{REASON_SUFFIX}");
        let mut newest: Option<(TaskId, OsString)> = None;
        rejected.each_name(|name, _| {
            if let Some(id) = std::str::from_utf8(name)
                .ok()
                .and_then(|name| name.strip_suffix(&ending)?.parse::<TaskId>().ok())
                && newest.as_ref().is_none_or(|(there, _)| *there < id)
            {
                newest = Some((id, OsString::from_vec(name.to_vec())));
            }
            true
        })?;
        let Some((id, file)) = newest else {
            return Ok(None);
        };
        let bytes = rejected.read(&file, MAX_REQUEST_BYTES)?.unwrap_or_default();
        Ok(serde_json::from_slice(&bytes)
            .ok()
            .map(|reason| (id, reason)))
    }

    /// Looks at a drop without touching it.
    pub fn look_at(&self, drop: &DropFile) -> IoResult<Pickup> {
        let incoming = self.folder(name::INCOMING)?;
        self.read_drop(&incoming, &drop.file_name)
    }

    /// Takes a valid drop and makes it a task. `bytes` are the ones that were parsed; where another
    /// file has taken the name since, that one is judged, by `check` as well.
    pub fn admit(
        &self,
        drop: &DropFile,
        request: Request,
        bytes: &[u8],
        check: Check<'_>,
    ) -> Result<Admission, SubmitError> {
        // Before anything is moved: with no room the drop stays where it is.
        self.check_room()?;
        let id = self.new_id();
        let Some(claim) = self.claim_drop(drop, id)? else {
            return Ok(Admission::Gone);
        };
        let claimed = claim.dir.read(&drop.file_name, MAX_REQUEST_BYTES)?;
        if claimed.as_deref() == Some(bytes) {
            return self.finish_admission(claim, &drop.file_name, request);
        }
        self.judge(claim, &drop.file_name, check)
    }

    /// Moves a drop that can never become a task to `rejected/`, with its reason. Where another
    /// file has taken the name since, that one is judged instead.
    pub fn reject(
        &self,
        drop: &DropFile,
        why: DropRefusal,
        check: Check<'_>,
    ) -> Result<Admission, SubmitError> {
        let id = self.new_id();
        let Some(claim) = self.claim_drop(drop, id)? else {
            return Ok(Admission::Gone);
        };
        let claimed = claim.dir.stat(&drop.file_name)?;
        if claimed.is_some_and(|stat| Fingerprint::of(&stat) == drop.seen) {
            return Ok(self.reject_claim(claim, &drop.file_name, why)?);
        }
        self.judge(claim, &drop.file_name, check)
    }

    /// Decides on what was claimed, which is another file than the one that was looked at. It has
    /// left the box, and its producer may count on that: the same name may be in use again.
    fn judge(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        check: Check<'_>,
    ) -> Result<Admission, SubmitError> {
        match self.read_drop(&claim.dir, file_name)? {
            Pickup::Ready(request, _) => self.admit_checked(claim, file_name, *request, check),
            // Its writer is still at it.
            Pickup::NotYet(_) => self.put_back(claim, file_name),
            Pickup::Refused(why) => Ok(self.reject_claim(claim, file_name, why)?),
            Pickup::Gone => Ok(Admission::Gone),
        }
    }

    fn admit_checked(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        request: Request,
        check: Check<'_>,
    ) -> Result<Admission, SubmitError> {
        match check(&request) {
            Ok(()) => self.finish_admission(claim, file_name, request),
            Err(why) => Ok(self.reject_claim(claim, file_name, why)?),
        }
    }

    /// Finishes what a watcher that died left half admitted. Claims of living watchers are held.
    pub fn replay_claims(&self, check: Check<'_>) -> Result<Vec<Admission>, SubmitError> {
        let mut replayed = Vec::new();
        let mut failed = None;
        for place in self.claim_places()? {
            for id in place.claims()? {
                match self.replay_claim(&place, id, check) {
                    Ok(admission) => replayed.extend(admission),
                    // One that cannot be finished must not keep the others.
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(replayed), Err)
    }

    fn replay_claim(
        &self,
        place: &ClaimPlace,
        id: TaskId,
        check: Check<'_>,
    ) -> Result<Option<Admission>, SubmitError> {
        let Some(dir) = place.parent.find_dir(place.folder(id))? else {
            return Ok(None);
        };
        let Some(claim) = place.hold(dir, id)? else {
            return Ok(None);
        };
        let Some(file_name) = claim.dir.names()?.into_iter().next() else {
            // Claimed but not moved yet, or already done: nothing is in it either way.
            claim.remove()?;
            return Ok(None);
        };
        if self.task(id)?.is_some() || self.is_in_trash(id)? {
            self.finish_claim(&claim, &file_name, None)?;
            return Ok(None);
        }
        // A submitter that died half way left its build under the same id.
        let trash = self.folder(name::TRASH)?;
        self.folder(name::STAGING)?
            .remove_tree_by(id.to_string(), &trash)?;
        Ok(Some(match self.read_drop(&claim.dir, &file_name)? {
            Pickup::Ready(request, _) => self.admit_checked(claim, &file_name, *request, check)?,
            Pickup::NotYet(why) | Pickup::Refused(why) => {
                self.reject_claim(claim, &file_name, why)?
            }
            Pickup::Gone => return Ok(None),
        }))
    }

    fn claim_drop(&self, drop: &DropFile, id: TaskId) -> IoResult<Option<HeldClaim>> {
        let incoming = self.folder(name::INCOMING)?;
        let mut refused = None;
        for place in self.claim_places()? {
            match place.claim(&incoming, &drop.file_name, id) {
                Err(error) if error.errno() == Some(Errno::XDEV) => refused = Some(error),
                claimed => return claimed,
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn put_back(&self, claim: HeldClaim, file_name: &OsStr) -> Result<Admission, SubmitError> {
        let incoming = self.folder(name::INCOMING)?;
        match claim.dir.rename_new(file_name, &incoming, file_name) {
            Ok(()) => {
                claim.remove()?;
                Ok(Admission::Changed)
            }
            // Its place was taken, so nobody can finish it under its name: it is kept where a person
            // finds it.
            Err(error) if error.errno() == Some(Errno::EXIST) => {
                let why = refusal(
                    "another file of the same name replaced it while it was being taken",
                    "drop it again under a name of its own",
                );
                Ok(self.reject_claim(claim, file_name, why)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish_admission(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        mut request: Request,
    ) -> Result<Admission, SubmitError> {
        let id = claim.id;
        // The file's name is what people look it up by; a name inside counts only without one.
        match name_of_drop(file_name) {
            Some(task_name) => request.name = Some(task_name),
            None => request.label = Some(escape_label(stem(file_name))),
        }
        let task_name = request.name.clone();
        let submitted = self.submit(vec![Submission {
            id,
            request,
            environment: Map::new(),
        }]);
        match submitted {
            Ok(_) => {
                self.finish_claim(&claim, file_name, task_name)?;
                Ok(Admission::Task(id))
            }
            // It fits as it was dropped and not as it would be stored, with name and session.
            Err(SubmitError::Request(error)) => Ok(self.reject_claim(
                claim,
                file_name,
                refusal(
                    format!("as it would be stored, {error}"),
                    "put the data into a file of its own and name its path in the input",
                ),
            )?),
            // The claim stays and is taken up again: nothing is lost.
            Err(error) => Err(error),
        }
    }

    /// The steps after the task stands; each may be done again.
    fn finish_claim(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        task_name: Option<Name>,
    ) -> IoResult<()> {
        if let Some(task_name) = task_name.or_else(|| name_of_drop(file_name)) {
            self.link_name(&task_name, claim.id)?;
        }
        claim.dir.unlink(file_name)?;
        claim.remove()
    }

    fn reject_claim(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        why: DropRefusal,
    ) -> IoResult<Admission> {
        let rejected = self.folder(name::REJECTED)?;
        let kept = format!("{}-{}", claim.id, plain_file_name(stem(file_name)));
        let mut reason = Reason {
            v: FORMAT_VERSION,
            name: escape_label(stem(file_name)),
            reason: why.reason.clone(),
            hint: why.hint.to_owned(),
            rejected_at: clock::wall(),
        };
        let reason_file = format!("{kept}{REASON_SUFFIX}");
        rejected.replace(&reason_file, &pretty(&reason))?;
        let file = format!("{kept}{DROP_SUFFIX}");
        match claim.dir.rename_new(file_name, &rejected, &file) {
            Err(error) if error.errno() == Some(Errno::XDEV) => {
                // The box is a mount of its own: what is in it stays in it, out of sight.
                let hidden = format!(".{file}");
                reason.hint = format!("{}; it is kept as incoming/{hidden}", reason.hint);
                rejected.replace(&reason_file, &pretty(&reason))?;
                claim.dir.rename_new(file_name, &claim.parent, &hidden)?;
            }
            moved => moved?,
        }
        claim.remove()?;
        Ok(Admission::Rejected(why))
    }
}

/// The name a drop gives its task, if its file name is one.
fn name_of_drop(file_name: &OsStr) -> Option<Name> {
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
        ] {
            assert_eq!(is_drop_name(name.as_bytes()), is_drop, "{name}");
        }
    }

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
