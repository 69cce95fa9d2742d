//! How a file of the drop box is refused: its reason is written and the file is kept in `rejected/`.
//!
//! Not why (`incoming.rs`, `control.rs`), nor the files there (`rejected.rs`). Invariants: a refusal that was cut
//! off goes on under the same id, so one file has one reason; a refusal under the id that a drop brought says
//! nothing of a task that had this id before.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use super::chosen_id::{ProblemOfId, Rules, is_young};
use super::control::ControlFile;
use super::drop_claim::{HeldClaim, LookedAt};
use super::drop_file::DropFile;
use super::drop_read::{DropRefusal, Fingerprint, refusal};
use super::incoming::Admission;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, DROP_SUFFIX};
use crate::spool::open::Spool;
use crate::spool::tasks::SubmitError;
use crate::task::TaskId;

impl Spool {
    /// Moves a drop that can never become a task to `rejected/`, with its reason. Where another
    /// file has taken the name since, that one is judged instead.
    pub fn reject(
        &self,
        drop: &DropFile,
        why: DropRefusal,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        let Some(claim) = self.claim_drop(drop)? else {
            return Ok(Admission::Gone);
        };
        if self.is_another(&claim, &drop.file_name)? {
            return self.put_back(claim, &drop.file_name, rules);
        }
        let claimed = claim.dir.look(&drop.file_name)?;
        if claimed.is_some_and(|stat| Fingerprint::of(&stat) == drop.seen) {
            return Ok(self.reject_claim(claim, &drop.file_name, why, rules)?);
        }
        self.judge(claim, &drop.file_name, rules)
    }

    /// As the owner, refuses the drop that waits under an id which a user of the group chose; `false` where
    /// none does, or a watcher is at it.
    pub fn refuse_waiting(&self, id: TaskId) -> IoResult<bool> {
        let file_name = OsString::from(format!("{id}{DROP_SUFFIX}"));
        let incoming = self.folder(name::INCOMING)?;
        let Some(stat) = incoming.look(&file_name)? else {
            return Ok(false);
        };
        let drop = DropFile::of(file_name, &stat);
        if drop.is_folder {
            return Ok(false);
        }
        let claimed = match self.claim_drop(&drop) {
            // It can neither become a task nor be kept.
            Err(error) if error.is_immovable() => return incoming.unlink(&drop.file_name),
            claimed => claimed?,
        };
        let Some(claim) = claimed else {
            return Ok(false);
        };
        let why = refusal(
            "the spool's owner cancelled it before it was admitted",
            "ask the owner, or submit it again",
        );
        let nothing = HashSet::new();
        let rules = Rules {
            check: &|_| Ok(Ok(())),
            spent: &nothing,
        };
        self.reject_claim(claim, &drop.file_name, why, rules)?;
        Ok(true)
    }

    /// Refuses a control file, straight from the box; `false` where another watcher has done something with it.
    pub(super) fn refuse_control(&self, file: &ControlFile, why: &DropRefusal) -> IoResult<bool> {
        let incoming = self.folder(name::INCOMING)?;
        let seen = LookedAt::of(file.seen, file.arrived);
        let id = self.id_of_refusal(Some(seen), file.control.task)?;
        match self.reject_file(&incoming, &file.file_name, id, why) {
            // Two watchers wrote the same reason at once.
            Err(error) if error.is_absent() && incoming.look(&file.file_name)?.is_none() => {
                Ok(false)
            }
            refused => refused,
        }
    }

    /// Refuses a drop that brings the id of a task which is about to be removed: nobody can have chosen
    /// it but by having seen that task. Once the task is gone the drop could become one of this id, so a
    /// drop that cannot be kept is removed. No drop keeps a task from being removed.
    pub(in crate::spool) fn refuse_drop_of(&self, id: TaskId) -> IoResult<()> {
        if !self.is_group() {
            return Ok(());
        }
        let incoming = self.folder(name::INCOMING)?;
        let file_name = OsString::from(format!("{id}{DROP_SUFFIX}"));
        let Some(stat) = incoming.look(&file_name)? else {
            return Ok(());
        };
        let drop = DropFile::of(file_name, &stat);
        if drop.is_folder {
            // It cannot be moved and never becomes a task.
            return Ok(());
        }
        let (file_name, why) = (&drop.file_name, ProblemOfId::Taken.refusal());
        let id = self.id_of_refusal(Some(drop.looked_at()), id)?;
        if self.reject_file(&incoming, file_name, id, &why).is_ok() {
            return Ok(());
        }
        match incoming.unlink(file_name) {
            Err(error) if error.is_unusable() => Ok(()),
            removed => removed.map(|_| ()),
        }
    }

    /// Goes on with a refusal under the id that a drop brought, whose reason stands; `false` where there is none.
    /// A refusal under an id of ours is decided on once more, with the same id.
    pub(super) fn finish_refusal(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<bool> {
        if !claim.is_refusing()? {
            return Ok(false);
        }
        let Some(reason) = self.refusal_of(claim.id)? else {
            return Ok(false);
        };
        self.keep_refused(claim, file_name, claim.id, reason)?;
        claim.remove()?;
        Ok(true)
    }

    pub(super) fn reject_claim(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        why: DropRefusal,
        rules: Rules<'_>,
    ) -> IoResult<Admission> {
        let id = match self.problem_of_id(&claim, file_name, rules)? {
            // An id that is taken names something else. So may an old one: which ids were removed is known
            // only of young ones.
            Some(ProblemOfId::Taken) => self.id_of_ours(&claim)?,
            Some(ProblemOfId::OfAnotherMoment(_)) if !is_young(claim.id) => {
                self.id_of_ours(&claim)?
            }
            Some(ProblemOfId::OfAnotherMoment(_)) | None => claim.id,
        };
        self.reject_as(id, claim, file_name, why)
    }

    pub(super) fn reject_as(
        &self,
        id: TaskId,
        claim: HeldClaim,
        file_name: &OsStr,
        why: DropRefusal,
    ) -> IoResult<Admission> {
        if self.chosen_id(file_name) == Some(id) {
            claim.begin_refusing()?;
        }
        self.reject_claimed(&claim, file_name, id, &why)?;
        claim.remove()?;
        Ok(Admission::Rejected(id, why))
    }

    /// An id for the refusal of a claimed drop that is not to have the one that it brought.
    pub(super) fn id_of_ours(&self, claim: &HeldClaim) -> IoResult<TaskId> {
        self.id_of_refusal(claim.file, claim.id)
    }

    /// An id for the refusal of a file that `named` an id. A user who knows the file's inode can choose the id of
    /// ours for a task, so it is neither the one that the file names nor that of a task which stands.
    fn id_of_refusal(&self, file: Option<LookedAt>, named: TaskId) -> IoResult<TaskId> {
        let tasks = self.folder(name::TASKS)?;
        for id in file.into_iter().flat_map(LookedAt::ids_of_refusal) {
            if id != named && !tasks.has(id.to_string())? {
                return Ok(id);
            }
        }
        Ok(self.new_id())
    }
}
