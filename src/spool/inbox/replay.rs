//! The replay of claims: the next watcher finishes what a watcher that was killed left half-admitted.
//!
//! Not how a drop is admitted (`incoming.rs`). Invariant: the claim of a running watcher is locked and is
//! left alone; a claim that cannot be finished does not block the others.

use std::ffi::OsStr;

use super::chosen_id::Rules;
use super::drop_claim::{ClaimPlace, HeldClaim};
use super::drop_read::Pickup;
use super::incoming::Admission;
use crate::spool::disk::IoResult;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::spool::tasks::{Claim, ReadError, SubmitError};
use crate::task::{Name, TaskId};

impl Spool {
    /// Finishes the claims of watchers that were killed. Claims of running watchers are locked and skipped.
    pub fn replay_claims(&self, rules: Rules<'_>) -> Result<Vec<Admission>, SubmitError> {
        let mut replayed = Vec::new();
        let mut failed = None;
        for place in self.claim_places()? {
            for id in place.claims()? {
                match self.replay_claim(&place, id, rules) {
                    Ok(admission) => replayed.extend(admission),
                    // A claim that cannot be finished must not block the others.
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
            // The drop was not moved yet, or is already done. In both cases the claim is empty.
            claim.remove()?;
            return Ok(None);
        };
        if !self.is_task_decided(claim.id)? {
            return Ok(None);
        }
        if let Some(task_name) = self.name_of_finished(&claim)? {
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
            Pickup::Gone => self.refuse_covered(claim, &file_name, rules)?,
        }))
    }

    /// Decides whether the task of a claim was accepted, and makes it durable if it was: a claim goes only
    /// after the syncs of its task. A task that was not accepted is removed, and created again from the claim.
    /// `false` if another process holds the task's lock: then the claim stays for the next replay.
    fn is_task_decided(&self, id: TaskId) -> IoResult<bool> {
        Ok(match self.task(id)? {
            Some(task) if task.has_marker()? => !matches!(task.lock(self)?, Claim::Busy(_)),
            Some(_) | None => true,
        })
    }

    /// The name of the task that was created from a claimed drop; the outer `None` if there is no such task
    /// yet. A task of the same id may come from another drop, so its origin is compared.
    fn name_of_finished(&self, claim: &HeldClaim) -> IoResult<Option<Option<Name>>> {
        let Some(task) = self.task(claim.id)? else {
            // No id is chosen in a private spool, so a task of this id in the trash came from this drop.
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

    /// Removes what a watcher that was killed had built under the id of its claim. For a chosen id this is
    /// done only if the claim records that building was started. Otherwise another process with this id may
    /// be building.
    fn clear_half_built(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<()> {
        if self.chosen_id(file_name).is_some() && !claim.is_building()? {
            return Ok(());
        }
        let trash = self.folder(name::TRASH)?;
        self.folder(name::STAGING)?
            .remove_tree_by(claim.id.to_string(), &trash)
            .map(|_| ())
    }
}
