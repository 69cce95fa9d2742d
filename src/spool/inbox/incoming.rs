//! How a file in `incoming/` becomes a task, exactly once, or is refused with a reason.
//!
//! Not how often the box is read (`intake/admit.rs`), how a user of the group puts a file there
//! (`submit_drop.rs`), nor what is done after a watcher was killed (`replay.rs`). Invariants: once a drop is
//! claimed, it exists in its claim folder or in `tasks/<id>/`, or in both (I3); what is stored is what was
//! parsed; nothing that another user put here is followed, waited for, deleted or repeated in a reason.

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

/// The outcome of admitting a drop.
#[derive(Debug)]
pub enum Admission {
    /// It became this task.
    Task(TaskId),
    /// It is gone: another watcher was faster, or the file was removed.
    Gone,
    /// It changed while it was claimed, and was put back.
    Changed,
    /// It was refused and is in `rejected/` now, under this id.
    Rejected(TaskId, DropRefusal),
}

/// Makes the file's name the task's name, so that people find the task by it. If it is not a valid name, it
/// becomes the label. A name in the request that it replaces becomes the label. Each replacement is logged.
fn name_by_file(request: &mut Request, file_name: &OsStr, id: TaskId) {
    let Some(task_name) = name_of_drop(file_name) else {
        // `last` or a part of an id would refer to another task. With `.json` such a file name is
        // unambiguous.
        let file = escape_label(match is_a_name(stem(file_name)) {
            true => file_name.as_encoded_bytes(),
            false => stem(file_name),
        });
        tracing::info!(task = %id, file, "the file's name is not a valid task name, so it becomes the label: {NOT_A_NAME}");
        if let Some(label) = request.label.replace(file) {
            tracing::info!(task = %id, label, "the file's name replaces the label in the file");
        }
        return;
    };
    let inside = request.name.replace(task_name);
    let Some(inside) = inside.filter(|inside| Some(inside) != request.name.as_ref()) else {
        return;
    };
    let inside = inside.to_string();
    let becomes = match request.label.is_none() {
        true => "that one becomes the label",
        false => "that one is ignored",
    };
    tracing::info!(task = %id, name = inside, "the task gets the name of the file, not the one in the file; {becomes}");
    request.label.get_or_insert(inside);
}

fn is_a_name(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Name>().is_ok())
}

/// The rule for names, as part of a message.
const NOT_A_NAME: &str = "a name has 1 to 100 characters of A-Z a-z 0-9 . _ - and starts with a letter or a digit; it is not `last` and does not look like an id";

impl Spool {
    /// Whether a drop of this name waits in the box or is being admitted. This works also for a user of the
    /// group, who cannot list the box but can check a name.
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

    /// Whether an entry of the box may become a task, judged without reading it.
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
    /// Reads a drop without changing it.
    pub fn look_at(&self, drop: &DropFile) -> IoResult<Pickup> {
        let incoming = self.folder(name::INCOMING)?;
        self.read_drop(&incoming, &drop.file_name)
    }

    /// Claims a valid drop and creates a task from it. `bytes` are the bytes that were parsed. If another
    /// file has the name now, that file is read and checked instead.
    pub fn admit(
        &self,
        drop: &DropFile,
        request: Request,
        bytes: &[u8],
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        // Checked first: without free space the drop stays where it is.
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

    /// Decides on a claimed file that is not the one that was read before. The file cannot simply be put
    /// back: its producer may already use the name again.
    pub(super) fn judge(
        &self,
        claim: HeldClaim,
        file_name: &OsStr,
        rules: Rules<'_>,
    ) -> Result<Admission, SubmitError> {
        match self.read_drop(&claim.dir, file_name)? {
            Pickup::Ready(request, _) => self.admit_checked(claim, file_name, *request, rules),
            // It may still be incomplete.
            Pickup::NotYet(_) => self.put_back(claim, file_name, rules),
            Pickup::Refused(why) => Ok(self.reject_claim(claim, file_name, why, rules)?),
            Pickup::Gone => self.refuse_covered(claim, file_name, rules),
        }
    }

    /// Refuses a drop that cannot be accessed in its claim. No other process takes drops out of a claim, so
    /// something is mounted on it.
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
            "something was mounted on it while it was claimed",
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
            // The spool was moved or removed, so its recipes are not found. The next watcher replays the
            // claim.
            Err(_) if !self.is_at_its_path() => Ok(Admission::Gone),
            Err(why) => Ok(self.reject_claim(claim, file_name, why, rules)?),
        }
    }

    pub(super) fn claim_drop(&self, drop: &DropFile) -> IoResult<Option<HeldClaim>> {
        let id = self
            .chosen_id(&drop.file_name)
            .unwrap_or_else(|| self.new_id());
        let seen = self.is_group().then(|| drop.seen_file());
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
            // Another file has its name, or it cannot be moved back. It is kept in `rejected/` for a person.
            Err(error) if error.errno() == Some(Errno::EXIST) || error.is_immovable() => {
                let why = refusal(
                    "another file of the same name replaced it while it was claimed",
                    "drop it again under another name",
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
        if self.is_group()
            && let Some(why) = problem_of_session(id, request.session_id.as_ref())
        {
            return Ok(self.reject_claim(claim, file_name, why, rules)?);
        }
        if self.chosen_id(file_name).is_some() {
            claim.start_building()?;
        }
        // Escaped, so that the label is safe on a terminal, also with `cat`.
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
            // The request became too large by the name and session that are added.
            Err(SubmitError::Request(error)) => Ok(self.reject_claim(
                claim,
                file_name,
                refusal(
                    format!("after the name and the session were added, {error}"),
                    "put the data into a separate file and give its path in the input",
                ),
                rules,
            )?),
            // Another process used the id before this drop was claimed.
            Err(SubmitError::Io(error)) if error.errno() == Some(Errno::EXIST) => {
                let why = ProblemOfId::Taken.refusal();
                Ok(self.reject_as(self.id_of_ours(&claim, file_name)?, claim, file_name, why)?)
            }
            // The claim stays and will be replayed.
            Err(error) => Err(error),
        }
    }

    /// The origin of a drop. The owner of the file is recorded as its submitter only if that is certain:
    /// other users cannot write the file, it has no second link, and its owner exists in this user namespace.
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

    /// The steps after the task is published. Each of them may be repeated.
    pub(super) fn finish_claim(
        &self,
        claim: &HeldClaim,
        file_name: &OsStr,
        task_name: Option<Name>,
    ) -> IoResult<()> {
        if let Some(task_name) = task_name.or_else(|| name_of_drop(file_name)) {
            self.link_name(&task_name, claim.id)?;
        }
        match claim.discard(file_name, &self.folder(name::TRASH)?) {
            // A mount is on the drop. It is removed with the task, or after it is unmounted.
            Err(error) if error.is_mounted() => Ok(()),
            removed => removed,
        }
    }
}
