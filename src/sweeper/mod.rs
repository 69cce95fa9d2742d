//! The sweeper: removes what is old. It never recovers and never kills.
//!
//! Plans purely (`plan.rs`), then applies; one at a time by a lock. Not `clear`, which a person
//! asks for and to which neither retention nor clocks apply. Invariant: nothing is removed because
//! a clock jumped.

mod plan;

pub use plan::{ClockTrust, Expired, Policy, SweepPlan};

use crate::clock::{self, BootId};
use crate::spool::{Claim, IoError, Spool, SweepClock};
use crate::task::{FORMAT_VERSION, TaskId, Timestamp};

/// What a pass did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Another sweeper is at it; nothing was done.
    pub is_busy: bool,
    /// Why tasks, drops and sessions were left alone this time, if so.
    pub only_recorded: Option<&'static str>,
    /// Tasks removed.
    pub tasks: Vec<TaskId>,
    /// Tasks that were due but held by somebody.
    pub skipped: Vec<TaskId>,
    /// Files removed from `rejected/`.
    pub rejected: usize,
    /// Entries removed from `staging/` and `trash/`, and half-made links.
    pub litter: usize,
    /// Names removed that led nowhere.
    pub names: usize,
    /// Sessions removed.
    pub sessions: usize,
    /// Disk that was freed by removing tasks, in bytes.
    pub freed_bytes: u64,
    /// What could not be removed, and why; the rest was.
    pub errors: Vec<String>,
}

/// One pass. With `dry_run` nothing is changed and the answer is what would be.
pub fn sweep(spool: &Spool, dry_run: bool) -> Result<Swept, IoError> {
    // A dry run writes nothing, so it needs no turn.
    let turn = if dry_run { None } else { spool.sweep_turn()? };
    if turn.is_none() && !dry_run {
        return Ok(Swept {
            is_busy: true,
            ..Swept::default()
        });
    }
    let now = SweepClock {
        v: FORMAT_VERSION,
        wall: clock::wall(),
        boottime_sec: clock::boottime().as_secs_f64(),
        boot: BootId::current(),
        ages_from: None,
    };
    let last = spool.sweep_clock()?;
    let trust = ClockTrust::of(last.as_ref(), &now);
    let ages_from = trust.ages_from(last.as_ref(), now.wall);
    let plan = match trust {
        ClockTrust::Agrees => gather(spool, now.wall, ages_from)?,
        _ => SweepPlan {
            litter: spool.staging_litter(None)?,
            ..SweepPlan::default()
        },
    };
    let mut swept = Swept {
        only_recorded: trust.reason(),
        ..Swept::default()
    };
    if dry_run {
        swept.tasks = plan.tasks.iter().map(|expired| expired.id).collect();
        swept.freed_bytes = plan.tasks.iter().map(|expired| expired.bytes).sum();
        swept.rejected = plan.rejected.len();
        swept.litter = plan.litter.len() + plan.links.len() + spool.trash_count()?;
        swept.names = plan.names.len();
        swept.sessions = plan.sessions.len();
        return Ok(swept);
    }
    apply(spool, plan, &mut swept);
    spool.record_sweep_clock(&SweepClock { ages_from, ..now })?;
    Ok(swept)
}

/// Reads what a plan needs.
fn gather(
    spool: &Spool,
    now: Timestamp,
    ages_from: Option<Timestamp>,
) -> Result<SweepPlan, IoError> {
    let policy = Policy::of(spool.settings());
    let made_before = policy.made_before(now);
    let finished = spool.finished_tasks(made_before, policy.max_finished_bytes.is_some())?;
    let mut plan = SweepPlan {
        litter: spool.staging_litter(Some(now))?,
        links: spool.unplaced_links()?,
        ..SweepPlan::default()
    };
    // The few that are due are read; nobody sweeps what nobody understands.
    for expired in plan::expired_tasks(&finished, &policy, now, ages_from) {
        if spool.has_readable_result(expired.id)? {
            plan.tasks.push(expired);
        }
    }
    for (file, at) in spool.rejected_files()? {
        if plan::is_over(at, policy.rejected_keep, now, ages_from) {
            plan.rejected.push(file);
        }
    }
    for (name, id) in spool.names()? {
        if spool.task(id)?.is_none() {
            plan.names.push((name, id));
        }
    }
    for (session, at) in spool.idle_sessions()? {
        if plan::is_over(at, policy.session_keep, now, ages_from) {
            plan.sessions.push(session);
        }
    }
    Ok(plan)
}

/// Removes what the plan says, piece by piece; what cannot be removed is noted and left.
fn apply(spool: &Spool, plan: SweepPlan, swept: &mut Swept) {
    match spool.empty_trash() {
        Ok(emptied) => swept.litter += emptied,
        Err(error) => swept.errors.push(error.to_string()),
    }
    for expired in plan.tasks {
        match remove_task(spool, expired.id) {
            Ok(Some(bytes)) => {
                swept.tasks.push(expired.id);
                swept.freed_bytes += bytes;
            }
            Ok(None) => swept.skipped.push(expired.id),
            Err(error) => swept.errors.push(error.to_string()),
        }
    }
    let mut count = |counter: fn(&mut Swept) -> &mut usize, done: Result<bool, IoError>| match done
    {
        Ok(true) => *counter(swept) += 1,
        Ok(false) => {}
        Err(error) => swept.errors.push(error.to_string()),
    };
    for file in &plan.rejected {
        count(
            |s| &mut s.rejected,
            spool.remove_rejected(file).map(|()| true),
        );
    }
    for entry in &plan.litter {
        count(|s| &mut s.litter, spool.remove_staged(entry));
    }
    for entry in &plan.links {
        count(|s| &mut s.litter, spool.remove_unplaced_link(entry));
    }
    for (name, id) in &plan.names {
        count(|s| &mut s.names, spool.remove_dangling_name(name, *id));
    }
    for session in &plan.sessions {
        count(|s| &mut s.sessions, spool.remove_session(session));
    }
}

/// Removes one finished task; its freed bytes, or `None` when somebody holds it or it is gone.
pub fn remove_task(spool: &Spool, id: TaskId) -> Result<Option<u64>, IoError> {
    let Some(task) = spool.task(id)? else {
        return Ok(None);
    };
    match task.lock(spool)? {
        Claim::Locked(lock) => Ok(lock.remove(spool)?.map(|removal| removal.freed_bytes)),
        Claim::Busy(_) | Claim::Gone => Ok(None),
    }
}
