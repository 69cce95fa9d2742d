//! How a file of the drop box is refused: the reason is written, and the file is kept in `rejected/`.
//!
//! Not why (`incoming.rs`, `control.rs`), nor the files there (`rejected.rs`). Invariants: an interrupted
//! refusal continues under the same id, so a file has one reason; a drop is not refused under its chosen id
//! if another task had this id before.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use super::chosen_id::{ProblemOfId, Rules, is_of_now};
use super::control::ControlFile;
use super::drop_claim::{HeldClaim, SeenFile};
use super::drop_file::DropFile;
use super::drop_read::{DropRefusal, Fingerprint, refusal};
use super::incoming::Admission;
use crate::spool::disk::IoResult;
use crate::spool::layout::name::{self, DROP_SUFFIX};
use crate::spool::open::Spool;
use crate::spool::tasks::SubmitError;
use crate::task::TaskId;

impl Spool {
    /// Moves a drop that can never become a task to `rejected/`, with its reason. If another file has the
    /// name now, that file is read and checked instead.
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

    /// Refuses a waiting drop by its chosen id, for the spool's owner. `false` if there is no such drop, or
    /// if a watcher is admitting it.
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
            // It cannot be moved, so it can neither become a task nor be kept.
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

    /// Moves a control file from the box to `rejected/`; `false` if another watcher was faster.
    pub(super) fn refuse_control(&self, file: &ControlFile, why: &DropRefusal) -> IoResult<bool> {
        let incoming = self.folder(name::INCOMING)?;
        let seen = SeenFile::of(file.seen, file.arrived);
        let id = self.id_of_refusal(Some(seen), &file.file_name, file.control.task)?;
        match self.reject_file(&incoming, &file.file_name, id, why) {
            // Another watcher refused the file at the same time.
            Err(error) if error.is_absent() && incoming.look(&file.file_name)?.is_none() => {
                Ok(false)
            }
            refused => refused,
        }
    }

    /// Refuses a drop whose id is that of a task that is about to be removed: its user copied the id. After
    /// the removal the drop could become a task of this id, so a drop that cannot be kept is removed. A drop
    /// never prevents the removal of the task.
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
            // A folder never becomes a task.
            return Ok(());
        }
        let (file_name, why) = (&drop.file_name, ProblemOfId::Taken.refusal());
        let id = self.id_of_refusal(Some(drop.seen_file()), file_name, id)?;
        if self.reject_file(&incoming, file_name, id, &why).is_ok() {
            return Ok(());
        }
        match incoming.unlink(file_name) {
            Err(error) if error.is_unusable() => Ok(()),
            removed => removed.map(|_| ()),
        }
    }

    /// Continues a refusal under a drop's chosen id if its reason was written; `false` if there is none. Any
    /// other refusal is decided again and gets the same id.
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
            // An id that is taken belongs to another task. So may an old id, because removed ids are recorded
            // only for some minutes. An id of the far future would be recorded until its moment.
            Some(ProblemOfId::Taken) => self.id_of_ours(&claim, file_name)?,
            Some(ProblemOfId::OfAnotherMoment(_)) if !is_of_now(claim.id) => {
                self.id_of_ours(&claim, file_name)?
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
            claim.start_refusing()?;
        }
        self.reject_claimed(&claim, file_name, id, &why)?;
        claim.remove()?;
        Ok(Admission::Rejected(id, why))
    }

    /// An id for the refusal of a claimed drop that must not use its chosen id.
    pub(super) fn id_of_ours(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<TaskId> {
        self.id_of_refusal(claim.file, file_name, claim.id)
    }

    /// An id for the refusal of a file whose name has the id `named`. A user who knows the file's inode can
    /// predict the derived ids and choose one for a task. So the id of the file and ids of existing tasks are
    /// skipped. So are ids under which another file is kept: a claim may record the inode of a file that was
    /// replaced before it was claimed.
    fn id_of_refusal(
        &self,
        file: Option<SeenFile>,
        file_name: &OsStr,
        named: TaskId,
    ) -> IoResult<TaskId> {
        let tasks = self.folder(name::TASKS)?;
        for id in file.into_iter().flat_map(SeenFile::ids_of_refusal) {
            if id != named && !tasks.has(id.to_string())? && !self.keeps_another(file_name, id)? {
                return Ok(id);
            }
        }
        Ok(self.new_id())
    }
}
