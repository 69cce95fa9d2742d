//! The ids that users of a group choose for their tasks, by the names of their drops.
//!
//! Not the refusal itself (`refusing.rs`). Invariants: in a private spool nobody chooses one; a chosen id is of the
//! moment of its file, and never one that another task has or had.

use std::collections::HashSet;
use std::ffi::OsStr;

use super::drop_claim::HeldClaim;
use super::drop_file::stem;
use super::drop_read::{DropRefusal, refusal};
use crate::clock;
use crate::spool::disk::IoResult;
use crate::spool::layout::name;
use crate::spool::open::Spool;
use crate::task::{Name, Request, TaskId, task_of_session};

/// An id that a user of the group chose must have been made so near to the last change of his file.
/// One of the future would be `last` for everybody, and one of the past come before all others.
pub(super) const ID_TOLERANCE_MS: u64 = 120_000;

/// A chosen id must be at most 120 s older than its file; the rest is for clocks.
const YOUNG_MS: i64 = 300_000;

/// Whether an id was made near enough to the moment of the last change of its file.
pub(super) fn is_near(id: TaskId, changed_ms: i64) -> bool {
    id.unix_ms().abs_diff(changed_ms) <= ID_TOLERANCE_MS
}

/// Whether a new drop could still bring an id. By the clock that the ids are made by: one that jumped shows more ids as young, never fewer that a
/// drop of now could bring.
pub(in crate::spool) fn is_young(id: TaskId) -> bool {
    clock::wall().unix_ms() - id.unix_ms() < YOUNG_MS
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

/// Why a chosen id cannot have a place in a session, if so: it would come before tasks that were there first.
pub(super) fn problem_of_session(id: TaskId, session: Option<&Name>) -> Option<DropRefusal> {
    let began = session.and_then(task_of_session)?;
    (id < began).then(|| {
        refusal(
            format!("its id is older than {began}, with which its session began"),
            "submit it again with `agentspool submit`, which makes a new id",
        )
    })
}

impl Spool {
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

    /// The id that a user of the group chose for his task, by the name of his drop.
    pub(in crate::spool) fn chosen_id(&self, file_name: &OsStr) -> Option<TaskId> {
        let text = std::str::from_utf8(stem(file_name)).ok()?;
        self.is_group().then(|| text.parse().ok()).flatten()
    }

    /// Whether a claim of a chosen id holds another file than the one that was listed: then its moment is
    /// not known, and the id hangs on that.
    pub(super) fn is_another(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<bool> {
        if self.chosen_id(file_name).is_none() {
            return Ok(false);
        }
        let inode = claim.dir.look(file_name)?.map(|stat| stat.st_ino);
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
}
