//! What lies about: litter, refused drops, hints, and tasks that wait for a person.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use crate::clock;
use crate::spool::{ControlFile, DropFile, IoError, Spool};
use crate::task::{Condition, TaskId, Timestamp, escape_label, escape_path, quote_path};

use super::check::{Check, count};
use super::surroundings::Surroundings;

/// With more open tasks than this the oldest are looked at.
const LOOK_AT_MOST: usize = 10_000;
/// So many of the newest tasks are looked at as well, finished or not: a result may be damaged.
const NEWEST: usize = 1000;
/// How many ids are named in a line.
const NAME_AT_MOST: usize = 3;
/// A watcher takes or refuses a file of the drop box within its patience and so many seconds.
const TAKEN_WITHIN_SEC: f64 = 10.0;

/// What a sweep would take, and what waits for a person to read it.
pub(super) fn litter(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let mut checks = Vec::new();
    let staged = spool.staging_litter(Some(clock::wall()))?.len();
    let buried = spool.trash()?.len();
    let hint = "`agentspool sweep` removes it";
    if staged > 0 {
        let message = format!("{} in staging/", count(staged, "half-made submission"));
        checks.push(Check::warn("leftovers", message, hint));
    }
    if buried > 0 {
        let message = format!("{} in trash/", count(buried, "removal") + " cut off");
        checks.push(Check::warn("leftovers", message, hint));
    }
    checks.extend(late_in_box(spool)?);
    checks.extend(refused(spool)?);
    let mut stray = 0;
    for id in spool.open_ids()?.into_iter().take(LOOK_AT_MOST) {
        stray += usize::from(spool.is_stray_entry(id)?);
    }
    if stray > 0 {
        let message = format!("{} without a task in open/", count(stray, "hint"));
        let hint = "a watcher removes them: start one, if none runs";
        checks.push(Check::warn("leftovers", message, hint));
    }
    if checks.is_empty() {
        checks.push(Check::ok("leftovers", "none"));
    }
    Ok(checks)
}

/// What lies in the drop box for too long.
fn late_in_box(spool: &Spool) -> Result<Vec<Check>, IoError> {
    let mut checks = Vec::new();
    let patience = spool.settings().drop_patience_sec;
    let unnamed = spool.unnamed_drops()?.into_iter();
    let unnamed = unnamed.filter(|(_, at)| clock::wall().seconds_since(*at) >= patience);
    let unnamed = unnamed.count();
    if unnamed > 0 {
        let message = format!("{} in incoming/", count(unnamed, "half-written drop"));
        let hint = "`agentspool sweep` removes it once it is older than rejected_keep_sec";
        checks.push(Check::warn("leftovers", message, hint));
    }
    checks.extend(strange_in_box(spool)?);
    let waiting = spool.in_box()?;
    let files = waiting.drops.iter().filter(|drop| !drop.is_folder());
    let arrivals = files.map(DropFile::arrived);
    let arrivals = arrivals.chain(waiting.controls.iter().map(ControlFile::arrived));
    let is_late = |(seconds, _): &(i64, u64)| {
        clock::wall().seconds_since(Timestamp::from_unix_ms(seconds.saturating_mul(1000)))
            >= patience + TAKEN_WITHIN_SEC
    };
    let late = arrivals.filter(is_late).count() + waiting.unseen.len();
    if late > 0 {
        let message = format!(
            "{} in incoming/ that no watcher has taken",
            count(late, "file")
        );
        let hint = "the watcher's log says why; a file that cannot be moved stays until somebody removes it";
        checks.push(Check::warn("leftovers", message, hint));
    }
    Ok(checks)
}

/// What lies in the drop box and will never be taken.
fn strange_in_box(spool: &Spool) -> Result<Option<Check>, IoError> {
    let strange = spool.strange_in_box()?;
    if strange.is_empty() {
        return Ok(None);
    }
    let names = strange.iter().take(NAME_AT_MOST);
    let names: Vec<String> = names.map(|name| escape_label(name.as_bytes())).collect();
    let more = if strange.len() > NAME_AT_MOST {
        ", …"
    } else {
        ""
    };
    let many = if strange.len() == 1 { "y" } else { "ies" };
    let found = format!(
        "{} entr{many} in incoming/ that no watcher takes ({}{more})",
        strange.len(),
        names.join(", ")
    );
    let hint = "a drop is one JSON object in a file NAME.json, in small letters; `agentspool submit --batch FILE` takes a file of many lines";
    Ok(Some(Check::warn("leftovers", found, hint)))
}

/// What was refused, and what of it no sweep can remove.
fn refused(spool: &Spool) -> Result<Vec<Check>, IoError> {
    let mut checks = Vec::new();
    let rejected = spool.rejected_files()?;
    let reasons = |name: &[u8]| name.ends_with(b".reason.json");
    let drops = rejected
        .iter()
        .filter(|(file, _)| !reasons(file.as_encoded_bytes()))
        .count();
    if drops > 0 {
        let message = format!("{} in rejected/", count(drops, "refused drop"));
        let hint = "read the *.reason.json beside each, then drop it again or remove both";
        checks.push(Check::warn("leftovers", message, hint));
    }
    for (path, uid) in spool.strange_in_rejected()? {
        let shown = escape_path(&path);
        let message = format!("{shown} belongs to user {uid}, so no sweep can remove it");
        let hint = format!("remove it as root: `rm -r {}`", quote_path(&path));
        checks.push(Check::warn("leftovers", message, hint));
    }
    Ok(checks)
}

/// Tasks that go on only once a person has seen to them.
pub(super) fn tasks(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let (mut damaged, mut newer, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
    let open = spool.open_ids()?;
    let known: BTreeSet<TaskId> = open.iter().copied().take(LOOK_AT_MOST).collect();
    let newest = spool.task_ids()?.into_iter().take(NEWEST);
    for id in known
        .iter()
        .copied()
        .chain(newest.filter(|id| !known.contains(id)))
    {
        match spool.condition_of(id)? {
            Some(Condition::Damaged) => damaged.push(id),
            Some(Condition::Newer) => newer.push(id),
            Some(Condition::Stuck) => stuck.push(id),
            Some(Condition::Retrying | Condition::Interrupted) | None => {}
        }
    }
    let mut checks = locks(spool, &open);
    let mut unindexed = Vec::new();
    for id in spool.unindexed_ids()? {
        if spool.lacks_entry(id).unwrap_or(false) {
            unindexed.push(id);
        }
    }
    if !unindexed.is_empty() {
        let message = format!("{} without an entry in open/", named(&unindexed));
        let hint =
            "a watcher finds such tasks when it starts: start one, or restart the one that runs";
        checks.push(Check::problem("tasks", message, hint));
    }
    if !damaged.is_empty() {
        let message = format!("{} cannot be read", named(&damaged));
        let hint = "mend the files that `agentspool status` names, or remove the folder";
        checks.push(Check::problem("tasks", message, hint));
    }
    if !newer.is_empty() {
        let message = format!("{} written by a newer agentspool", named(&newer));
        checks.push(Check::problem("tasks", message, "upgrade this one"));
    }
    if !stuck.is_empty() {
        let message = format!("{} with a process that does not die", named(&stuck));
        let hint = "look for it with `ps` (state D waits for a disk or a network)";
        checks.push(Check::problem("tasks", message, hint));
    }
    if checks.is_empty() {
        checks.push(Check::ok("tasks", format!("{} open", open.len())));
    }
    Ok(checks)
}

/// Open tasks without a lock, or with one that others can hold.
fn locks(spool: &Spool, open: &[TaskId]) -> Vec<Check> {
    let mut checks = Vec::new();
    let (mut lockless, mut open_locks) = (Vec::new(), Vec::new());
    for id in open.iter().copied().take(LOOK_AT_MOST) {
        // One that cannot be opened is named below.
        let found = spool.task(id);
        if let Ok(Some(task)) = &found
            && !task.has_lock().unwrap_or(true)
        {
            lockless.push(id);
        } else if let Ok(Some(task)) = &found
            && spool.is_group()
            && task.is_lock_open().unwrap_or(false)
        {
            open_locks.push(id);
        }
    }
    if !open_locks.is_empty() {
        let message = format!(
            "{} with a file `lock` that others can open, and so hold",
            named(&open_locks)
        );
        let hint = format!(
            "`agentspool init {}` makes them anew",
            quote_path(spool.path())
        );
        checks.push(Check::problem("tasks", message, hint));
    }
    if !lockless.is_empty() {
        let message = format!("{} without its file `lock`", named(&lockless));
        let hint = "the watcher makes it anew when it starts the task: start one, if none runs";
        checks.push(Check::warn("tasks", message, hint));
    }
    checks
}

fn named(ids: &[TaskId]) -> String {
    let shown: Vec<String> = ids
        .iter()
        .take(NAME_AT_MOST)
        .map(TaskId::to_string)
        .collect();
    let more = if ids.len() > NAME_AT_MOST {
        ", …"
    } else {
        ""
    };
    format!("{} ({}{more})", count(ids.len(), "task"), shown.join(", "))
}
