//! The drop box: how a file in `incoming/` becomes a task, exactly once, or a refusal with a reason.
//!
//! Not how often to look (`watcher/admit.rs`), nor how a user of the group puts one in (`submit_drop.rs`).
//! Invariants: from the moment a drop is claimed it exists in at least one of its claim folder and
//! `tasks/<id>/` (I3); what is stored is what was parsed; nothing a stranger put here is followed, waited
//! for, deleted or repeated in a reason.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde_json::Map;

use super::disk::IoResult;
use super::drop_claim::{ClaimPlace, HeldClaim, LookedAt, ms_of};
use super::drop_read::{DropRefusal, Fingerprint, Pickup, refusal};
use super::layout::{Spool, name};
use super::publish::{Submission, SubmitError};
use super::rejected::DROP_SUFFIX;
use super::store::ReadError;
use crate::task::{MAX_REQUEST_BYTES, Name, Origin, Request, TaskId, escape_label};

/// An id that a user of the group chose must have been made so near to the last change of his file.
/// One of the future would be `last` for everybody, and one of the past come before all others.
const ID_TOLERANCE_MS: u64 = 120_000;

/// Whether an id was made near enough to the moment of the last change of its file.
pub(super) fn is_near(id: TaskId, changed_ms: i64) -> bool {
    id.unix_ms().abs_diff(changed_ms) <= ID_TOLERANCE_MS
}

/// A drop that is there and was looked at.
#[derive(Debug)]
pub struct DropFile {
    pub(super) file_name: OsString,
    pub(super) seen: Fingerprint,
    /// When the file came here or was last changed: seconds and nanoseconds of its ctime, which nobody
    /// can set.
    pub(super) arrived: (i64, u64),
    /// Whether it is a folder, which is left where it is.
    pub(super) is_folder: bool,
}

/// What a drop must be, besides well formed.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Says why a request cannot be run, if so: that its recipe is there. An error where that cannot be
    /// seen now.
    pub check: &'a dyn Fn(&Request) -> IoResult<Result<(), DropRefusal>>,
    /// The ids that a user of the group cannot choose any more, from [`Spool::spent_ids`].
    pub spent: &'a HashSet<TaskId>,
}

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

impl DropFile {
    pub(super) fn of(file_name: OsString, stat: &Stat) -> DropFile {
        DropFile {
            file_name,
            seen: Fingerprint::of(stat),
            arrived: (stat.st_ctime, stat.st_ctime_nsec),
            is_folder: is_folder(stat),
        }
    }

    /// The file's name.
    pub fn file_name(&self) -> &OsStr {
        &self.file_name
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

/// A ctime in milliseconds since the epoch.
fn changed_ms((seconds, nanoseconds): (i64, u64)) -> i64 {
    ms_of(seconds, nanoseconds)
}

pub(super) fn is_folder(stat: &Stat) -> bool {
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

impl Spool {
    /// Whether a drop of this name waits in the box, or is being admitted. A user of the group may not
    /// list the box but may ask for a name.
    pub fn drop_waits(&self, task_name: &str) -> IoResult<bool> {
        let file_name = format!("{task_name}{DROP_SUFFIX}");
        let chosen = self.chosen_id(OsStr::new(&file_name));
        let incoming = self.root()?.open_dir_to_ask(name::INCOMING)?;
        if let Some(stat) = incoming.look(&file_name)?
            && self.may_become_one(&stat, chosen)
        {
            return Ok(true);
        }
        for place in self.claim_places()? {
            if let Some(id) = chosen {
                if place.has(id)? {
                    return Ok(true);
                }
                continue;
            }
            for claimed in place.claims()? {
                let folder = place.parent.open_dir_to_ask(place.folder(claimed));
                if let Ok(folder) = folder
                    && folder.look(&file_name)?.is_some()
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether what stands in the box may become a task, as far as that is seen without reading it.
    fn may_become_one(&self, stat: &Stat, chosen: Option<TaskId>) -> bool {
        if !self.is_group() {
            return !is_folder(stat);
        }
        let changed_ms = changed_ms((stat.st_ctime, stat.st_ctime_nsec));
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && chosen.is_none_or(|id| id.unix_ms().abs_diff(changed_ms) <= ID_TOLERANCE_MS)
    }

    /// The ids that stand in `rejected/` and `trash/`. Asked for after the drops were listed: who puts in
    /// a drop of such an id has seen it before. Empty in a private spool, where nobody chooses an id.
    pub fn spent_ids(&self) -> IoResult<HashSet<TaskId>> {
        let mut spent = HashSet::new();
        if !self.is_group() {
            return Ok(spent);
        }
        for folder in [name::REJECTED, name::TRASH] {
            self.folder(folder)?.each_name(|name, _| {
                let id = name.get(..TaskId::LEN);
                let id = id.and_then(|id| std::str::from_utf8(id).ok()?.parse::<TaskId>().ok());
                spent.extend(id);
                true
            })?;
        }
        Ok(spent)
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
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        // Before anything is moved: with no room the drop stays where it is.
        self.check_room()?;
        let Some(claim) = self.claim_drop(drop)? else {
            return Ok(Admission::Gone);
        };
        if self.is_another(&claim, &drop.file_name)? {
            return self.put_back(claim, &drop.file_name, rules);
        }
        let claimed = claim.dir.read(&drop.file_name, MAX_REQUEST_BYTES);
        if matches!(&claimed, Ok(Some(claimed)) if claimed == bytes) {
            return self.finish_admission(claim, &drop.file_name, request, rules);
        }
        self.judge(claim, &drop.file_name, rules)
    }

    /// Decides on what was claimed, which is another file than the one that was looked at. It has
    /// left the box, and its producer may count on that: the same name may be in use again.
    pub(super) fn judge(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        match self.read_drop(&claim.dir, file_name)? {
            Pickup::Ready(request, _) => self.admit_checked(claim, file_name, *request, rules),
            // Its writer is still at it.
            Pickup::NotYet(_) => self.put_back(claim, file_name, rules),
            Pickup::Refused(why) => Ok(self.reject_claim(claim, file_name, why, rules)?),
            Pickup::Gone => Ok(Admission::Gone),
        }
    }

    fn admit_checked(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        request: Request,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        match (rules.check)(&request)? {
            Ok(()) => self.finish_admission(claim, file_name, request, rules),
            // Moved or removed, the spool has no recipes where it was: the claim waits for its next watcher.
            Err(_) if !self.is_at_its_path() => Ok(Admission::Gone),
            Err(why) => Ok(self.reject_claim(claim, file_name, why, rules)?),
        }
    }

    /// Finishes what a watcher that died left half admitted. Claims of living watchers are held.
    pub fn replay_claims(&self, rules: Rules<'_>) -> Result<Vec<Admission>, SubmitError> {
        let mut replayed = Vec::new();
        let mut failed = None;
        for place in self.claim_places()? {
            for id in place.claims()? {
                match self.replay_claim(&place, id, rules) {
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
        rules: Rules<'_>,
    ) -> Result<Option<Admission>, SubmitError> {
        let Some(dir) = place.parent.find_dir(place.folder(id))? else {
            return Ok(None);
        };
        let Some(claim) = place.hold(dir, id)? else {
            return Ok(None);
        };
        let Some(file_name) = claim.drop_name()? else {
            // Claimed but not moved yet, or already done: nothing is in it either way.
            claim.remove()?;
            return Ok(None);
        };
        if let Some(task_name) = self.name_of_done(&claim)? {
            self.finish_claim(&claim, &file_name, task_name)?;
            return Ok(None);
        }
        if self.finish_refusal(&claim, &file_name)? {
            return Ok(None);
        }
        if self.is_another(&claim, &file_name)? {
            return self.put_back(claim, &file_name, rules).map(Some);
        }
        self.clear_half_built(&claim, &file_name)?;
        Ok(Some(match self.read_drop(&claim.dir, &file_name)? {
            Pickup::Ready(request, _) => self.admit_checked(claim, &file_name, *request, rules)?,
            Pickup::NotYet(why) | Pickup::Refused(why) => {
                self.reject_claim(claim, &file_name, why, rules)?
            }
            Pickup::Gone => return Ok(None),
        }))
    }

    /// The name of the task that was made of a claimed drop; `None` where there is none yet. A task of the
    /// same id may be another drop's, which its origin tells.
    fn name_of_done(&self, claim: &HeldClaim) -> IoResult<Option<Option<Name>>> {
        let Some(task) = self.task(claim.id)? else {
            // Nobody chooses an id in a private spool: a task in the trash was this one.
            let is_removed = !self.is_group() && self.is_in_trash(claim.id)?;
            return Ok(is_removed.then_some(None));
        };
        if self.is_group() {
            let origin = match task.origin() {
                Ok(origin) => origin,
                Err(ReadError::Io(error)) => return Err(error),
                Err(ReadError::Damaged { .. } | ReadError::Newer { .. }) => None,
            };
            let file = origin.and_then(|origin| origin.file);
            if file.is_none() || file != claim.file.map(|it| (it.inode, it.changed_ms)) {
                return Ok(None);
            }
        }
        Ok(Some(task.request().ok().and_then(|it| it.name)))
    }

    /// Removes what a watcher that died half way built under the id of its claim. Of a chosen id only where
    /// the claim says that it was built: else it may be what somebody builds who had that id first.
    fn clear_half_built(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<()> {
        if self.chosen_id(file_name).is_some() && !claim.is_building()? {
            return Ok(());
        }
        let trash = self.folder(name::TRASH)?;
        self.folder(name::STAGING)?
            .remove_tree_by(claim.id.to_string(), &trash)
            .map(|_| ())
    }

    pub(super) fn claim_drop(&self, drop: &DropFile) -> IoResult<Option<HeldClaim>> {
        let id = self
            .chosen_id(&drop.file_name)
            .unwrap_or_else(|| self.new_id());
        let seen = self.is_group().then(|| drop.looked_at());
        let incoming = self.folder(name::INCOMING)?;
        let mut refused = None;
        for place in self.claim_places()? {
            match place.claim(&incoming, &drop.file_name, id, seen) {
                Err(error) if error.errno() == Some(Errno::XDEV) => refused = Some(error),
                claimed => return claimed,
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// The id that a user of the group chose for his task, by the name of his drop.
    pub(super) fn chosen_id(&self, file_name: &OsStr) -> Option<TaskId> {
        let text = std::str::from_utf8(stem(file_name)).ok()?;
        self.is_group().then(|| text.parse().ok()).flatten()
    }

    /// Whether a claim of a chosen id holds another file than the one that was listed: then its moment is
    /// not known, and the id hangs on that.
    pub(super) fn is_another(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<bool> {
        if self.chosen_id(file_name).is_none() {
            return Ok(false);
        }
        let inode = claim.dir.stat(file_name)?.map(|stat| stat.st_ino);
        Ok(inode != claim.file.map(|file| file.inode))
    }

    /// Why a chosen id cannot be had, if so. Asked once the drop is claimed: there is one claim of an id, so
    /// from then on nobody else takes it.
    pub(super) fn problem_of_id(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        rules: Rules<'_>,
    ) -> IoResult<Option<ProblemOfId>> {
        let Some(id) = self.chosen_id(file_name) else {
            return Ok(None);
        };
        let text = id.to_string();
        // In the order in which a task goes: it is made in staging/, then stands in tasks/, then is removed.
        // `spent` may be as old as the pass: what was removed or refused since is looked for by name.
        let is_in_the_making = !claim.is_building()?
            && (self.folder(name::STAGING)?.has(&text)? || self.folder(name::OPEN)?.has(&text)?);
        if is_in_the_making
            || self.folder(name::TASKS)?.has(&text)?
            || rules.spent.contains(&id)
            || self.is_removed(id)?
            || self.is_refused(id)?
        {
            return Ok(Some(ProblemOfId::Taken));
        }
        let changed_ms = claim.file.map_or(i64::MAX, |file| file.changed_ms);
        let apart = id.unix_ms().abs_diff(changed_ms);
        Ok((!is_near(id, changed_ms)).then_some(ProblemOfId::OfAnotherMoment(apart)))
    }

    pub(super) fn put_back(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        let incoming = self.folder(name::INCOMING)?;
        match claim.dir.rename_new(file_name, &incoming, file_name) {
            Ok(()) => {
                claim.remove()?;
                Ok(Admission::Changed)
            }
            // Its place was taken, or it cannot go back, so nobody can finish it under its name: it is kept where
            // a person finds it.
            Err(error) if error.errno() == Some(Errno::EXIST) || error.is_immovable() => {
                let why = refusal(
                    "another file of the same name replaced it while it was being taken",
                    "drop it again under a name of its own",
                );
                Ok(self.reject_claim(claim, file_name, why, rules)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn finish_admission(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        mut request: Request,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        if let Some(why) = self.problem_of_id(&claim, file_name, rules)? {
            return Ok(self.reject_claim(claim, file_name, why.refusal(), rules)?);
        }
        let id = claim.id;
        if self.chosen_id(file_name).is_some() {
            claim.begin_building()?;
        }
        // What is to be shown is made safe to be shown, also by `cat`.
        request.label = request.label.map(|label| escape_label(label.as_bytes()));
        // The file's name is what people look it up by; a name inside counts only without one.
        match name_of_drop(file_name) {
            Some(task_name) => request.name = Some(task_name),
            None if self.chosen_id(file_name).is_some() => {}
            None => request.label = Some(escape_label(stem(file_name))),
        }
        let task_name = request.name.clone();
        let submitted = self.accept(vec![Submission {
            id,
            request,
            environment: Map::new(),
            attachment: None,
            origin: self.origin_of(&claim, file_name)?,
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
                rules,
            )?),
            // Somebody was faster who had the id before this drop came.
            Err(SubmitError::Io(error)) if error.errno() == Some(Errno::EXIST) => {
                let why = ProblemOfId::Taken.refusal();
                Ok(self.reject_as(self.id_of_ours(&claim), claim, file_name, why)?)
            }
            // The claim stays and is taken up again: nothing is lost.
            Err(error) => Err(error),
        }
    }

    /// Whose drop it is, as far as the file proves it: what others may write, or what has another name
    /// somewhere, may be another user's work.
    fn origin_of(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<Option<Origin>> {
        if !self.is_group() {
            return Ok(None);
        }
        let stat = claim.dir.stat(file_name)?;
        let is_proof = |stat: &rustix::fs::Stat| stat.st_nlink == 1 && stat.st_mode & 0o022 == 0;
        Ok(Some(Origin::new(
            stat.filter(is_proof).map(|stat| stat.st_uid),
            claim.file.map(|file| (file.inode, file.changed_ms)),
        )))
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
}

/// Why an id that a user of the group chose cannot be had.
pub(super) enum ProblemOfId {
    /// It is, or was, another task's, or that of a drop that was refused.
    Taken,
    /// Its moment is so many milliseconds from the last change of the file.
    OfAnotherMoment(u64),
}

impl ProblemOfId {
    pub fn refusal(&self) -> DropRefusal {
        let reason = match self {
            ProblemOfId::Taken => "its id is that of another task".to_owned(),
            ProblemOfId::OfAnotherMoment(apart) => format!(
                "the moment in its id and the last change of the file are {} s apart, and may be {} s apart at most",
                apart / 1000,
                ID_TOLERANCE_MS / 1000
            ),
        };
        refusal(
            reason,
            "submit it again with `agentspool submit`, which makes a new id",
        )
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
            ("task_01m85x906pb06zhxqqsktssv9k.json", true),
            ("task_01m85x906pb06zhxqqsktssv9k.cancel", false),
        ] {
            assert_eq!(is_drop_name(name.as_bytes()), is_drop, "{name}");
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
