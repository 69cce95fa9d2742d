//! The drop box: how a file in `incoming/` becomes a task, exactly once, or a refusal with a reason.
//!
//! Not how often to look (`intake/admit.rs`), how a user of the group puts one in (`submit_drop.rs`), nor what a
//! dead watcher left (`replay.rs`). Invariants: from the moment a drop is claimed it exists in at least one of its
//! claim folder and `tasks/<id>/` (I3); what is stored is what was parsed; nothing a stranger put here is followed,
//! waited for, deleted or repeated in a reason.

use std::ffi::OsStr;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde_json::Map;

use super::chosen_id::{ID_TOLERANCE_MS, ProblemOfId, Rules, problem_of_session};
use super::drop_claim::{HeldClaim, ms_of};
use super::drop_file::{DropFile, is_folder, name_of_drop, stem};
use super::drop_read::{DropRefusal, Pickup, refusal};
use crate::proc;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, DROP_SUFFIX};
use crate::spool::open::Spool;
use crate::spool::tasks::{Submission, SubmitError};
use crate::task::{MAX_REQUEST_BYTES, Name, Origin, Request, TaskId, escape_label};

/// What became of a claimed drop.
#[derive(Debug)]
pub enum Admission {
    /// It is this task now.
    Task(TaskId),
    /// Another watcher was faster, or it was taken away.
    Gone,
    /// It changed while it was being claimed and was put back.
    Changed,
    /// It lies in `rejected/` now, under this id.
    Rejected(TaskId, DropRefusal),
}

/// The file's name is what people look the task up by: it is the name, or where it is not a name the label. What it
/// replaces becomes the label, by which the task is found as well; nothing is dropped without a word.
fn name_by_file(request: &mut Request, file_name: &OsStr, id: TaskId) {
    let Some(task_name) = name_of_drop(file_name) else {
        // `last` and a part of an id mean other tasks: with its suffix such a file name means this one alone.
        let file = escape_label(match is_a_name(stem(file_name)) {
            true => file_name.as_encoded_bytes(),
            false => stem(file_name),
        });
        tracing::info!(task = %id, file, "not a name, so it is the task's label: {NOT_A_NAME}");
        if let Some(label) = request.label.replace(file) {
            tracing::info!(task = %id, label, "the label in the file is replaced by the file's name");
        }
        return;
    };
    let inside = request.name.replace(task_name);
    let Some(inside) = inside.filter(|inside| Some(inside) != request.name.as_ref()) else {
        return;
    };
    let inside = inside.to_string();
    let becomes = match request.label.is_none() {
        true => "it is the task's label",
        false => "it is left out",
    };
    tracing::info!(task = %id, name = inside, "the file's name is the task's name, not the one in the file; {becomes}");
    request.label.get_or_insert(inside);
}

fn is_a_name(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Name>().is_ok())
}

/// What makes a text a name.
const NOT_A_NAME: &str = "a name has 1 to 100 of A-Z a-z 0-9 . _ - and begins with a letter or a digit; `last` and what looks like an id are none";

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
}

/// A ctime in milliseconds since the epoch.
fn changed_ms((seconds, nanoseconds): (i64, u64)) -> i64 {
    ms_of(seconds, nanoseconds)
}

impl Spool {
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
        let claimed = claim.dir.read_here(&drop.file_name, MAX_REQUEST_BYTES);
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
            Pickup::Gone => self.refuse_covered(claim, file_name, rules),
        }
    }

    /// Nobody else takes a drop out of its claim: one that stands there and cannot be looked at is under a mount.
    pub(super) fn refuse_covered(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        if claim.drop_name()?.is_none() {
            return Ok(Admission::Gone);
        }
        let why = refusal(
            "something was mounted on it while it was being taken",
            "unmount it and submit it again",
        );
        Ok(self.reject_claim(claim, file_name, why, rules)?)
    }

    pub(super) fn admit_checked(
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
            Err(error) if error.is_mounted() => self.refuse_covered(claim, file_name, rules),
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
            if let Some(why) = problem_of_session(id, request.session_id.as_ref()) {
                return Ok(self.reject_claim(claim, file_name, why, rules)?);
            }
            claim.begin_building()?;
        }
        // What is to be shown is made safe to be shown, also by `cat`.
        request.label = request.label.map(|label| escape_label(label.as_bytes()));
        if self.chosen_id(file_name).is_none() {
            name_by_file(&mut request, file_name, id);
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
                Ok(self.reject_as(self.id_of_ours(&claim)?, claim, file_name, why)?)
            }
            // The claim stays and is taken up again: nothing is lost.
            Err(error) => Err(error),
        }
    }

    /// Whose drop it is, as far as the file proves it: what others may write, or what has another name
    /// somewhere, may be another user's work, and so may what a user owns whom this user namespace does not have.
    fn origin_of(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<Option<Origin>> {
        if !self.is_group() {
            return Ok(None);
        }
        let stat = claim.dir.look(file_name)?;
        let is_proof = |stat: &rustix::fs::Stat| stat.st_nlink == 1 && stat.st_mode & 0o022 == 0;
        Ok(Some(Origin::new(
            stat.filter(is_proof)
                .map(|stat| stat.st_uid)
                .filter(|uid| !proc::is_nobody(*uid)),
            claim.file.map(|file| (file.inode, file.changed_ms)),
        )))
    }

    /// The steps after the task stands; each may be done again.
    pub(super) fn finish_claim(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        task_name: Option<Name>,
    ) -> IoResult<()> {
        if let Some(task_name) = task_name.or_else(|| name_of_drop(file_name)) {
            self.link_name(&task_name, claim.id)?;
        }
        match claim.dir.unlink(file_name) {
            // It goes with the task, or once that is unmounted.
            Err(error) if error.is_mounted() => Ok(()),
            removed => {
                removed?;
                claim.remove()
            }
        }
    }
}
