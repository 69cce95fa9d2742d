//! The ids that users of the group choose for their tasks by naming their drops.
//!
//! Not the refusal itself (`refusing.rs`). Invariants: in a private spool no id is chosen; the time in a
//! chosen id is near the last change of its file, and no other task has or had that id.

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

/// The largest difference between the time in a chosen id and the last change of its file. Otherwise a user
/// could choose an id in the future, which would be `last` for all users, or one in the past, which would be
/// first.
pub(super) const ID_TOLERANCE_MS: u64 = 120_000;

/// The age up to which a new drop could use an id: [`ID_TOLERANCE_MS`], and a margin for clock differences.
const YOUNG_MS: i64 = 300_000;

/// Whether the time in an id is near enough to the last change of its file.
pub(super) fn is_near(id: TaskId, changed_ms: i64) -> bool {
    id.unix_ms().abs_diff(changed_ms) <= ID_TOLERANCE_MS
}

/// Whether a new drop could still use an id. This uses the same clock as new ids. If the clock jumped, more
/// ids may count as young, but none is missing that a drop could use now.
pub(in crate::spool) fn is_young(id: TaskId) -> bool {
    clock::wall().unix_ms() - id.unix_ms() < YOUNG_MS
}

/// Whether an id is young, and not of the far future either.
pub(super) fn is_of_now(id: TaskId) -> bool {
    (clock::wall().unix_ms() - id.unix_ms()).abs() < YOUNG_MS
}

/// The rules for a drop, apart from its syntax.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Checks whether a request can be run, as that its recipe exists. The outer error means that this cannot
    /// be determined now.
    pub check: &'a dyn Fn(&Request) -> IoResult<Result<(), DropRefusal>>,
    /// The ids that a user of the group cannot choose any more, from [`Spool::spent_ids`].
    pub spent: &'a HashSet<TaskId>,
}

/// Why an id cannot be chosen.
pub(super) enum ProblemOfId {
    /// Another task or a refused drop has or had it.
    Taken,
    /// Its time is this many milliseconds from the last change of the file.
    OfAnotherMoment(u64),
}

impl ProblemOfId {
    pub fn refusal(&self) -> DropRefusal {
        let reason = match self {
            ProblemOfId::Taken => "another task has or had this id".to_owned(),
            ProblemOfId::OfAnotherMoment(apart) => format!(
                "the time in its id and the last change of the file are {} s apart; the limit is {} s",
                apart / 1000,
                ID_TOLERANCE_MS / 1000
            ),
        };
        refusal(
            reason,
            "submit it again with `agentspool submit`, which creates a new id",
        )
    }
}

/// Refuses a task that is older than the first task of its session, whether that task exists or not: the order
/// would change. A task of a drop then waits only for older ones, so no two of them wait for each other.
pub(super) fn problem_of_session(id: TaskId, session: Option<&Name>) -> Option<DropRefusal> {
    let first = session.and_then(task_of_session)?;
    (id < first).then(|| {
        refusal(
            format!("its id is older than {first}, the first task of its session"),
            "submit it again with `agentspool submit`, which creates a new id",
        )
    })
}

impl Spool {
    /// The ids in `rejected/` and `trash/`. Call this after the drops were listed, because the id of a drop
    /// may be copied from there. Empty in a private spool, where no id is chosen.
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

    /// The id that a user of the group chose by the name of the drop; `None` in a private spool.
    pub(in crate::spool) fn chosen_id(&self, file_name: &OsStr) -> Option<TaskId> {
        let text = std::str::from_utf8(stem(file_name)).ok()?;
        self.is_group().then(|| text.parse().ok()).flatten()
    }

    /// Whether a claim of a chosen id holds another file than the one that was listed. The last change of
    /// that file is not known, so its id cannot be checked.
    pub(super) fn is_another(&self, claim: &HeldClaim, file_name: &OsStr) -> IoResult<bool> {
        if self.chosen_id(file_name).is_none() {
            return Ok(false);
        }
        let inode = claim.dir.look(file_name)?.map(|stat| stat.st_ino);
        Ok(inode != claim.file.map(|file| file.inode))
    }

    /// Checks a chosen id. Call this when the drop is claimed: there is only one claim of an id, so no other
    /// drop can take the id after that.
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
        // In the order in which a task moves: from `staging/` to `tasks/` to the trash. `spent` may be as old
        // as the pass, so later removals and refusals are checked by name.
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
