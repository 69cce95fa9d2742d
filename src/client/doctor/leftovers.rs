//! Checks for leftover files, refused drops, wrong index entries, and tasks that need a user.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use crate::clock;
use crate::spool::{ControlFile, DropFile, IoError, Spool};
use crate::task::{Condition, TaskId, Timestamp, escape_label, escape_path, quote_path};

use super::check::{Check, count};
use super::surroundings::Surroundings;

/// The most open tasks that are checked, oldest first.
const MAX_CHECKED: usize = 10_000;
/// The number of newest tasks that are checked too, also finished ones: a result may be damaged.
const NEWEST: usize = 1000;
/// The most ids that are named in a line.
const MAX_NAMED: usize = 3;
/// A watcher takes or refuses a file of the drop box within `drop_patience_sec` plus this many seconds.
const TAKEN_WITHIN_SEC: f64 = 10.0;

/// Checks for files that a sweep would remove, and for refused drops that a user should read.
pub(super) fn litter(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let mut checks = Vec::new();
    let staged = spool.staging_litter(Some(clock::wall()))?.len();
    let removals = spool.trash()?.len();
    let hint = "remove them with `agentspool sweep`";
    if staged > 0 {
        let message = format!("{} in staging/", count(staged, "incomplete submission"));
        checks.push(Check::warn("leftovers", message, hint));
    }
    if removals > 0 {
        let message = format!("{} in trash/", count(removals, "incomplete removal"));
        checks.push(Check::warn("leftovers", message, hint));
    }
    checks.extend(late_in_box(spool)?);
    checks.extend(refused(spool)?);
    let mut stray = 0;
    for id in spool.open_ids()?.into_iter().take(MAX_CHECKED) {
        stray += usize::from(spool.is_stray_entry(id)?);
    }
    if stray > 0 {
        let entries = if stray == 1 { "entry" } else { "entries" };
        let message = format!("{stray} index {entries} in open/ without a task");
        let hint = "a watcher removes them; start one if none is running";
        checks.push(Check::warn("leftovers", message, hint));
    }
    if checks.is_empty() {
        checks.push(Check::ok("leftovers", "none"));
    }
    Ok(checks)
}

/// Checks for files that have been in the drop box for too long.
fn late_in_box(spool: &Spool) -> Result<Vec<Check>, IoError> {
    let mut checks = Vec::new();
    let patience = spool.settings().drop_patience_sec;
    let unnamed = spool.unnamed_drops()?.into_iter();
    let unnamed = unnamed.filter(|(_, at)| clock::wall().seconds_since(*at) >= patience);
    let unnamed = unnamed.count();
    if unnamed > 0 {
        let message = format!("{} in incoming/", count(unnamed, "incomplete drop"));
        let hint = "remove it with `agentspool sweep` once it is older than rejected_keep_sec";
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
        let hint = "see the watcher's log for the reason; a file that cannot be moved stays until you remove it";
        checks.push(Check::warn("leftovers", message, hint));
    }
    Ok(checks)
}

/// Checks for entries of the drop box that no watcher will take.
fn strange_in_box(spool: &Spool) -> Result<Option<Check>, IoError> {
    let strange = spool.strange_in_box()?;
    if strange.is_empty() {
        return Ok(None);
    }
    let names = strange.iter().take(MAX_NAMED);
    let names: Vec<String> = names.map(|name| escape_label(name.as_bytes())).collect();
    let more = if strange.len() > MAX_NAMED {
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
    let hint = "a drop is one JSON object in a file NAME.json, in lower case; use `agentspool submit --batch FILE` for a file of many lines";
    Ok(Some(Check::warn("leftovers", found, hint)))
}

/// Checks for refused drops, and for refused drops that no sweep can remove.
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
        let hint = "read the *.reason.json file next to each drop, then drop the file again or remove both files";
        checks.push(Check::warn("leftovers", message, hint));
    }
    for (path, uid) in spool.strange_in_rejected()? {
        let shown = escape_path(&path);
        let message = format!("{shown} belongs to user {uid}, so a sweep cannot remove it");
        let hint = format!("remove it as root: `rm -r {}`", quote_path(&path));
        checks.push(Check::warn("leftovers", message, hint));
    }
    Ok(checks)
}

/// Checks for tasks that need a user's action.
pub(super) fn tasks(_: &Surroundings<'_>, spool: &Spool) -> Result<Vec<Check>, IoError> {
    let (mut damaged, mut newer, mut stuck) = (Vec::new(), Vec::new(), Vec::new());
    let open = spool.open_ids()?;
    let known: BTreeSet<TaskId> = open.iter().copied().take(MAX_CHECKED).collect();
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
        let message = format!("{} without an index entry in open/", named(&unindexed));
        let hint = "a watcher finds such tasks when it starts; start a watcher, or restart the one that is running";
        checks.push(Check::problem("tasks", message, hint));
    }
    if !damaged.is_empty() {
        let message = format!("{} cannot be read", named(&damaged));
        let hint = "fix the files that `agentspool status` names, or remove the folder";
        checks.push(Check::problem("tasks", message, hint));
    }
    if !newer.is_empty() {
        let message = format!("{} written by a newer agentspool", named(&newer));
        checks.push(Check::problem("tasks", message, "upgrade this agentspool"));
    }
    if !stuck.is_empty() {
        let message = format!("{} with a process that cannot be killed", named(&stuck));
        let hint = "find it with `ps` (state D means that it waits for a disk or a network)";
        checks.push(Check::problem("tasks", message, hint));
    }
    if checks.is_empty() {
        checks.push(Check::ok("tasks", format!("{} open", open.len())));
    }
    Ok(checks)
}

/// Checks for open tasks without a lock file, or with a lock file that other users can open.
fn locks(spool: &Spool, open: &[TaskId]) -> Vec<Check> {
    let mut checks = Vec::new();
    let (mut lockless, mut open_locks) = (Vec::new(), Vec::new());
    for id in open.iter().copied().take(MAX_CHECKED) {
        // A task that cannot be opened is reported with the damaged tasks.
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
            "{} with a file `lock` that other users can open and lock",
            named(&open_locks)
        );
        let hint = "set the mode of these files to 0600 (`chmod 600`); a process that has locked one keeps the lock until it ends";
        checks.push(Check::problem("tasks", message, hint));
    }
    if !lockless.is_empty() {
        let message = format!("{} without its file `lock`", named(&lockless));
        let hint = "the watcher creates it when it starts the task; start one if none is running";
        checks.push(Check::warn("tasks", message, hint));
    }
    checks
}

fn named(ids: &[TaskId]) -> String {
    let shown: Vec<String> = ids.iter().take(MAX_NAMED).map(TaskId::to_string).collect();
    let more = if ids.len() > MAX_NAMED { ", …" } else { "" };
    format!("{} ({}{more})", count(ids.len(), "task"), shown.join(", "))
}
