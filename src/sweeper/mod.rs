//! The sweeper: removes what is old.
//!
//! It never recovers a task and never kills a process. It is not `clear`, which a person runs and to
//! which neither retention nor clocks apply. Only one sweeper runs at a time, which a lock ensures. It
//! works in batches: it checks a few tasks, chooses those that are due (`plan.rs`) and removes them, and
//! then leaves the disk to others for a moment. Invariants: nothing is removed because a clock jumped;
//! nothing that is held or not understood is removed.

mod plan;

pub use plan::{ClockTrust, Policy};

use std::time::Instant;

use crate::clock::{self, BootId};
use crate::spool::{Candidate, Cleared, Clearing, FinishedTask, IoError, Spool, SweepClock};
use crate::task::{Event, FORMAT_VERSION, Happened, Name, ResultFile, Status, TaskId, Timestamp};
use plan::{Ages, Leftovers};

/// The number of tasks in a batch.
const BATCH: usize = 256;
/// The pause after a batch is the time of the batch divided by this.
const PAUSE_SHARE: u32 = 20;

/// What a pass did, or would do in a dry run.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Another sweeper is running; nothing was done.
    pub is_busy: bool,
    /// It was asked to stop before everything was done.
    pub is_cut_short: bool,
    /// The reason why this pass removed no tasks, drops and sessions by age, if there is one.
    pub only_recorded: Option<&'static str>,
    /// Tasks removed.
    pub tasks: Vec<TaskId>,
    /// Tasks that were due but are held by another process, which works on them or reads them.
    pub skipped: Vec<TaskId>,
    /// Files removed from `rejected/`.
    pub rejected: usize,
    /// Entries removed from `staging/` and `trash/`, and unfinished links.
    pub litter: usize,
    /// Removed names that led nowhere.
    pub names: usize,
    /// Sessions removed.
    pub sessions: usize,
    /// Disk space freed by removing tasks, in bytes.
    pub freed_bytes: u64,
    /// Paths that were kept because a file system is mounted there. They can be removed after it is
    /// unmounted; the rest was removed.
    pub mounted: Vec<String>,
    /// What could not be removed, and why. The rest was removed.
    pub errors: Vec<String>,
}

/// The state of one pass.
struct Pass<'a> {
    spool: &'a Spool,
    policy: Policy,
    ages: Ages,
    dry_run: bool,
    go_on: &'a dyn Fn() -> bool,
    swept: Swept,
}

/// Makes one pass. With `dry_run` nothing is changed, and the result is what would be done. `go_on` is
/// called between two batches. Once it returns false, the rest is left for the next pass.
///
/// # Errors
/// The spool cannot be read, or the clocks of this pass cannot be recorded. Errors for single entries are
/// in [`Swept::errors`].
pub fn sweep(spool: &Spool, dry_run: bool, go_on: &dyn Fn() -> bool) -> Result<Swept, IoError> {
    // A dry run writes nothing, so it needs no lock.
    let lock = if dry_run { None } else { spool.lock_sweep()? };
    if lock.is_none() && !dry_run {
        return Ok(Swept {
            is_busy: true,
            ..Swept::default()
        });
    }
    let now = clocks();
    let last = spool.sweep_clock()?;
    let trust = ClockTrust::of(last.as_ref(), &now);
    let ages_from = trust.ages_from(last.as_ref(), now.wall);
    let mut pass = Pass {
        spool,
        policy: Policy::of(spool.settings()),
        ages: Ages {
            now: now.wall,
            begin: ages_from,
        },
        dry_run,
        go_on,
        swept: Swept {
            only_recorded: trust.reason(),
            ..Swept::default()
        },
    };
    match trust {
        ClockTrust::Agrees => pass.all()?,
        ClockTrust::FirstPass | ClockTrust::Restarted | ClockTrust::Jumped => {
            let litter = pass.noted(spool.staging_litter(None));
            let trash = pass.noted(spool.trash());
            pass.remove_leftovers(Leftovers {
                litter,
                trash,
                ..Leftovers::default()
            });
        }
    }
    if !dry_run {
        spool.record_sweep_clock(&SweepClock { ages_from, ..now })?;
    }
    Ok(pass.swept)
}

/// The present clocks, as a pass compares and records them.
pub fn clocks() -> SweepClock {
    SweepClock {
        v: FORMAT_VERSION,
        wall: clock::wall(),
        boottime_sec: clock::boottime().as_secs_f64(),
        boot: BootId::current(),
        ages_from: None,
    }
}

/// The existing names, by the tasks to which they lead. They are listed once for all tasks of a pass.
struct Names {
    ids: Vec<TaskId>,
    names: Vec<Name>,
}

impl Names {
    fn of(mut names: Vec<(Name, TaskId)>) -> Names {
        names.sort_unstable_by_key(|(_, id)| *id);
        let (names, ids) = names.into_iter().unzip();
        Names { ids, names }
    }

    fn of_task(&self, id: TaskId) -> &[Name] {
        let first = self.ids.partition_point(|other| *other < id);
        let behind = self.ids.partition_point(|other| *other <= id);
        &self.names[first..behind]
    }

    fn all(self) -> impl Iterator<Item = (TaskId, Name)> {
        self.ids.into_iter().zip(self.names)
    }
}

impl Pass<'_> {
    fn all(&mut self) -> Result<(), IoError> {
        let trash = self.noted(self.spool.trash());
        self.remove_leftovers(Leftovers {
            trash,
            ..Leftovers::default()
        });
        let names = Names::of(self.spool.names()?);
        let mut ids = self.spool.task_ids()?;
        ids.reverse();
        if let Err(error) = self.tasks(&ids, &names) {
            self.note(&error);
        }
        let leftovers = self.leftovers(&ids, names);
        self.remove_leftovers(leftovers);
        self.events();
        Ok(())
    }

    /// Removes events that are too old, and the oldest beyond the cap.
    fn events(&mut self) {
        if self.dry_run {
            return;
        }
        let settings = self.spool.settings();
        let keep_ms = settings.events_keep_sec * 1000.0;
        let before = Timestamp::from_unix_ms(self.ages.now.unix_ms() - keep_ms as i64);
        match self.spool.sweep_events(before, settings.events_max_bytes) {
            Ok(freed) => self.swept.freed_bytes += freed,
            Err(error) => self.note(&error),
        }
    }

    /// Removes finished tasks, oldest first: those over their age, and then the oldest of the rest until
    /// the caps hold. Only with caps are tasks that stay kept in memory.
    fn tasks(&mut self, ids: &[TaskId], names: &Names) -> Result<(), IoError> {
        let made_before = self.policy.made_before(self.ages.now);
        // Ids rise with time: no later task was created earlier.
        let ids = &ids[..ids.partition_point(|id| id.unix_ms() < made_before.unix_ms())];
        if ids.is_empty() {
            return Ok(());
        }
        let clearing = self.spool.clearing()?;
        let open = self.spool.open_ids()?;
        let with_bytes = self.policy.max_finished_bytes.is_some();
        let (ages, policy) = (self.ages, self.policy.clone());
        let is_due = |status: Status, at: Timestamp| ages.is_due(&policy, status, at);
        let moment = clock::boot_moment();
        let is_over = |result: &ResultFile| {
            let keep = policy.keep(result.status);
            is_due(result.status, result.completed_at)
                && plan::is_over_in_this_boot(result.ended_in.as_ref(), &moment, keep)
        };
        let mut kept = Vec::new();
        for batch in ids.chunks(BATCH) {
            if self.is_cut_short() {
                return Ok(());
            }
            let batch = batch.iter().filter(|id| open.binary_search(id).is_err());
            self.batch(batch, |pass, id| {
                let Some(candidate) = clearing.look(*id, with_bytes)? else {
                    return pass.remove_empty_folder(&clearing, *id);
                };
                let task = candidate.task.clone();
                if is_due(task.status, task.completed_at) {
                    return pass.remove(&clearing, candidate, names.of_task(*id), is_over);
                }
                if policy.has_caps() {
                    kept.push(task);
                }
                Ok(false)
            })?;
        }
        for batch in plan::over_caps(kept, &self.policy.clone()).chunks(BATCH) {
            if self.is_cut_short() {
                return Ok(());
            }
            self.batch(batch.iter(), |pass, task| {
                let Some(mut candidate) = clearing.look(task.id, false)? else {
                    return Ok(false);
                };
                candidate.task.bytes = task.bytes;
                pass.remove(&clearing, candidate, names.of_task(task.id), |_| true)
            })?;
        }
        Ok(())
    }

    /// Processes one batch of tasks, one after another. If any was removed, the disk is left to others
    /// for a moment afterwards.
    fn batch<T>(
        &mut self,
        tasks: impl Iterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Result<bool, IoError>,
    ) -> Result<(), IoError> {
        let begun = Instant::now();
        let mut has_removed = false;
        for task in tasks {
            has_removed |= each(self, task)?;
        }
        if has_removed {
            std::thread::sleep(begun.elapsed() / PAUSE_SHARE);
        }
        Ok(())
    }

    /// Removes one task if its result confirms that it is due. Returns whether it was removed.
    fn remove(
        &mut self,
        clearing: &Clearing<'_>,
        mut candidate: Candidate,
        names: &[Name],
        is_due: impl Fn(&ResultFile) -> bool,
    ) -> Result<bool, IoError> {
        let FinishedTask { id, bytes, .. } = candidate.task;
        if self.dry_run {
            if candidate.result()?.is_some_and(is_due) {
                self.swept.tasks.push(id);
                self.swept.freed_bytes += bytes;
            }
            return Ok(false);
        }
        match clearing.remove_if(candidate, names, is_due) {
            Ok(Cleared::Removed(removal)) => {
                let (recipe, session) = (removal.recipe.as_ref(), removal.session.as_ref());
                self.spool
                    .emit(Event::of(Happened::Swept, id, recipe, session));
                self.swept.tasks.push(id);
                self.swept.freed_bytes += removal.freed_bytes;
                if let Some(left) = &removal.left {
                    self.note(left);
                }
                return Ok(true);
            }
            Ok(Cleared::Held) => self.swept.skipped.push(id),
            Ok(Cleared::Kept | Cleared::Gone) => {}
            Err(error) => self.note(&error),
        }
        Ok(false)
    }

    /// Removes an empty task folder that an interrupted removal left. Returns whether it was removed.
    fn remove_empty_folder(
        &mut self,
        clearing: &Clearing<'_>,
        id: TaskId,
    ) -> Result<bool, IoError> {
        if self.dry_run {
            return Ok(false);
        }
        let is_removed = match clearing.remove_empty_folder(id) {
            // The content is not understood: it is left, as a task would be.
            Err(error) if error.is_unusable() => false,
            Err(error) => {
                self.note(&error);
                false
            }
            Ok(is_removed) => is_removed,
        };
        self.swept.litter += usize::from(is_removed);
        Ok(is_removed)
    }

    fn is_cut_short(&mut self) -> bool {
        self.swept.is_cut_short |= !(self.go_on)();
        self.swept.is_cut_short
    }

    /// Finds everything other than tasks that is due. `ids` is every task of the last listing, oldest
    /// first.
    fn leftovers(&mut self, ids: &[TaskId], names: Names) -> Leftovers {
        let (spool, ages) = (self.spool, self.ages);
        let (rejected_keep, session_keep) = (self.policy.rejected_keep, self.policy.session_keep);
        let mut leftovers = Leftovers {
            litter: self.noted(spool.staging_litter(Some(ages.now))),
            ..Leftovers::default()
        };
        for (file, at) in self.noted(spool.rejected_files()) {
            if ages.is_over(at, rejected_keep) {
                leftovers.rejected.push(file);
            }
        }
        // A writer may be stopped for long, so these are kept as long as refused drops.
        for (file, at) in self.noted(spool.unnamed_drops()) {
            if ages.is_over(at, rejected_keep) {
                leftovers.unnamed.push(file);
            }
        }
        // Both are in the same folder.
        match spool.unplaced_links() {
            Ok(links) => {
                leftovers.links = links;
                let is_gone = |id| matches!(spool.task(id), Ok(None));
                let dangling = names
                    .all()
                    .filter(|(id, _)| ids.binary_search(id).is_err() && is_gone(*id));
                leftovers.names = dangling.map(|(id, name)| (name, id)).collect();
            }
            Err(error) => self.note(&error),
        }
        for (session, at) in self.noted(spool.idle_sessions()) {
            if ages.is_over(at, session_keep) {
                leftovers.sessions.push(session);
            }
        }
        leftovers
    }

    /// Records what stays, and why.
    fn note(&mut self, error: &IoError) {
        let notes = match error.is_mounted() {
            true => &mut self.swept.mounted,
            false => &mut self.swept.errors,
        };
        notes.push(error.to_string());
    }

    /// Returns what was found. After an error, records the error and returns nothing.
    fn noted<T: Default>(&mut self, found: Result<T, IoError>) -> T {
        found.unwrap_or_else(|error| {
            self.note(&error);
            T::default()
        })
    }

    /// Removes the entries one by one. An entry that cannot be removed is recorded and left.
    fn remove_leftovers(&mut self, leftovers: Leftovers) {
        if self.dry_run {
            let swept = &mut self.swept;
            swept.litter += leftovers.trash.len() + leftovers.litter.len() + leftovers.links.len();
            swept.litter += leftovers.unnamed.len();
            swept.rejected += leftovers.rejected.len();
            swept.names += leftovers.names.len();
            swept.sessions += leftovers.sessions.len();
            return;
        }
        let spool = self.spool;
        let mut litter = 0;
        for entry in &leftovers.trash {
            if self.is_cut_short() {
                break;
            }
            litter += self.count(spool.remove_trash(entry).map(|()| true));
        }
        for entry in &leftovers.litter {
            litter += self.count(spool.remove_staged(entry));
        }
        for entry in &leftovers.links {
            litter += self.count(spool.remove_unplaced_link(entry));
        }
        for entry in &leftovers.unnamed {
            litter += self.count(spool.remove_unnamed_drop(entry));
        }
        self.swept.litter += litter;
        for file in &leftovers.rejected {
            self.swept.rejected += self.count(spool.remove_rejected(file));
        }
        for (name, id) in &leftovers.names {
            self.swept.names += self.count(spool.remove_dangling_name(name, *id));
        }
        for session in &leftovers.sessions {
            self.swept.sessions += self.count(spool.remove_session(session));
        }
    }

    fn count(&mut self, removed: Result<bool, IoError>) -> usize {
        match removed {
            Ok(removed) => usize::from(removed),
            Err(error) => {
                self.note(&error);
                0
            }
        }
    }
}
