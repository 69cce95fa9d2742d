//! Decides what is old enough to remove: pure functions over plain values.
//!
//! Does not use the disk or a clock: both are passed in. Invariant: an age counts only as far as the
//! clocks agree about it; otherwise it starts now.

use std::ffi::OsString;
use std::time::Duration;

use crate::config::Settings;
use crate::spool::{FinishedTask, SweepClock};
use crate::task::{BootMoment, Name, Status, TaskId, Timestamp};

/// How far the wall clock and the boot clock may differ between two passes: a tenth of the time that
/// passed (docs/hazards.md, 56), and a few seconds for short intervals.
const DRIFT_SHARE: f64 = 0.1;
const DRIFT_SECONDS: f64 = 5.0;
/// If a machine was off for longer than this, its clock may be wrong: ages start again.
const OFF_AT_MOST: f64 = 7.0 * 86_400.0;

/// The retention settings.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long completed tasks are kept.
    pub completed_keep: Duration,
    /// How long cancelled tasks are kept.
    pub cancelled_keep: Duration,
    /// How long failed tasks are kept.
    pub failed_keep: Duration,
    /// How long refused drops are kept.
    pub rejected_keep: Duration,
    /// How long unused sessions are kept.
    pub session_keep: Duration,
    /// The highest number of finished tasks.
    pub max_finished_tasks: Option<u64>,
    /// The highest number of bytes of finished tasks.
    pub max_finished_bytes: Option<u64>,
}

impl Policy {
    /// The policy of a spool's settings.
    pub fn of(settings: &Settings) -> Policy {
        let cancelled = settings.cancelled_cleanup_delay_sec;
        Policy {
            completed_keep: Duration::from_secs_f64(settings.cleanup_delay_sec),
            cancelled_keep: Duration::from_secs_f64(
                cancelled.unwrap_or(settings.cleanup_delay_sec),
            ),
            failed_keep: Duration::from_secs_f64(settings.failed_cleanup_delay_sec),
            rejected_keep: Duration::from_secs_f64(settings.rejected_keep_sec),
            session_keep: Duration::from_secs_f64(settings.session_keep_sec),
            max_finished_tasks: settings.max_finished_tasks,
            max_finished_bytes: settings.max_finished_bytes,
        }
    }

    /// Whether a cap may require removing tasks before they are over their age.
    pub fn has_caps(&self) -> bool {
        self.max_finished_tasks.is_some() || self.max_finished_bytes.is_some()
    }

    /// Tasks created at or after this moment need not be read: none of them can be due by age. With a cap
    /// every task counts.
    pub fn made_before(&self, now: Timestamp) -> Timestamp {
        if self.has_caps() {
            return Timestamp::from_unix_ms(i64::MAX);
        }
        let least = self
            .completed_keep
            .min(self.cancelled_keep)
            .min(self.failed_keep);
        let least = i64::try_from(least.as_millis()).unwrap_or(i64::MAX);
        // A task created in exactly that millisecond counts too.
        Timestamp::from_unix_ms(now.unix_ms().saturating_sub(least).saturating_add(1))
    }

    pub(super) fn keep(&self, status: Status) -> Duration {
        match status {
            Status::Failed => self.failed_keep,
            Status::Cancelled => self.cancelled_keep,
            // Never called for the last two, which are not finished.
            Status::Completed | Status::Pending | Status::Running => self.completed_keep,
        }
    }
}

/// Whether the clocks can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// Wall clock and boot clock agree.
    Agrees,
    /// There was no earlier pass.
    FirstPass,
    /// The machine was restarted, and the wall clock is plausible.
    Restarted,
    /// The wall clock jumped.
    Jumped,
}

impl ClockTrust {
    /// Compares the clocks of the last pass with those of this one.
    pub fn of(last: Option<&SweepClock>, now: &SweepClock) -> ClockTrust {
        let Some(last) = last else {
            return ClockTrust::FirstPass;
        };
        let wall = now.wall.seconds_since(last.wall);
        if last.boot.kernel() != now.boot.kernel() {
            let plausible = (0.0..=OFF_AT_MOST).contains(&wall);
            return if plausible {
                ClockTrust::Restarted
            } else {
                ClockTrust::Jumped
            };
        }
        let boottime = now.boottime_sec - last.boottime_sec;
        if (wall - boottime).abs() <= boottime * DRIFT_SHARE + DRIFT_SECONDS {
            ClockTrust::Agrees
        } else {
            ClockTrust::Jumped
        }
    }

    /// Why nothing is removed by age in this pass. `None` if something is.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            ClockTrust::Agrees => None,
            ClockTrust::FirstPass => Some("there is no earlier pass to compare the clock with"),
            ClockTrust::Restarted => Some("the machine was restarted since the last pass"),
            ClockTrust::Jumped => Some("the clock jumped since the last pass"),
        }
    }

    /// The moment before which no age starts, from this pass on. After a jump, and in the first pass, the
    /// real ages are unknown: everything that exists counts as new.
    pub fn ages_from(self, last: Option<&SweepClock>, now: Timestamp) -> Option<Timestamp> {
        match self {
            ClockTrust::Jumped | ClockTrust::FirstPass => Some(now),
            ClockTrust::Agrees | ClockTrust::Restarted => last.and_then(|last| last.ages_from),
        }
    }
}

/// What a pass finds other than tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct Leftovers {
    /// Entries of `trash/`.
    pub trash: Vec<OsString>,
    /// Files in `rejected/`.
    pub rejected: Vec<OsString>,
    /// Entries of `staging/`.
    pub litter: Vec<OsString>,
    /// Files in the drop box whose writer was killed before they had a name.
    pub unnamed: Vec<OsString>,
    /// Unfinished links in `names/`.
    pub links: Vec<OsString>,
    /// Names that lead nowhere.
    pub names: Vec<(Name, TaskId)>,
    /// Sessions.
    pub sessions: Vec<Name>,
}

/// The moment to which ages are measured, and the moment before which no age starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    pub now: Timestamp,
    pub begin: Option<Timestamp>,
}

impl Ages {
    /// Whether something that started at `at` is older than `keep`.
    pub fn is_over(self, at: Timestamp, keep: Duration) -> bool {
        let begins = match self.begin {
            // Created before a clock jump, or dated in the future by one.
            Some(floor) if at < floor || at > self.now => floor,
            _ => at,
        };
        self.now.seconds_since(begins) >= keep.as_secs_f64()
    }

    /// Whether a task with this status and end is over its age.
    pub fn is_due(self, policy: &Policy, status: Status, completed_at: Timestamp) -> bool {
        self.is_over(completed_at, policy.keep(status))
    }
}

/// Whether a task has been finished for `keep` by the boot clock, which does not jump. True if that is
/// unknown, because the task ended in another boot. If the wall clock jumps forth and back between two
/// passes, neither pass notices it, and a task that ended during that time has a wrong date.
pub(super) fn is_over_in_this_boot(
    ended_in: Option<&BootMoment>,
    now: &BootMoment,
    keep: Duration,
) -> bool {
    ended_in.is_none_or(|ended| {
        ended.boot != now.boot || now.boottime_sec - ended.boottime_sec >= keep.as_secs_f64()
    })
}

/// The oldest finished tasks that must be removed until the caps hold.
pub(super) fn over_caps(mut kept: Vec<FinishedTask>, policy: &Policy) -> Vec<FinishedTask> {
    kept.sort_by_key(|task| task.completed_at);
    let mut count = kept.len() as u64;
    let mut bytes: u64 = kept.iter().map(|task| task.bytes).sum();
    let is_kept = |task: &FinishedTask| {
        let over_count = policy.max_finished_tasks.is_some_and(|most| count > most);
        let over_bytes = policy.max_finished_bytes.is_some_and(|most| bytes > most);
        if over_count || over_bytes {
            count -= 1;
            bytes -= task.bytes;
        }
        !over_count && !over_bytes
    };
    let first_kept = kept.iter().position(is_kept);
    kept.truncate(first_kept.unwrap_or(kept.len()));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootId;

    const NOW: i64 = 1_000_000_000_000;

    fn at(seconds_ago: i64) -> Timestamp {
        Timestamp::from_unix_ms(NOW - seconds_ago * 1000)
    }

    fn task(n: u64, status: Status, seconds_ago: i64, bytes: u64) -> FinishedTask {
        let id = TaskId::from_parts(n, 0);
        FinishedTask {
            id,
            status,
            completed_at: at(seconds_ago),
            bytes,
        }
    }

    fn policy() -> Policy {
        Policy::of(&Settings::default())
    }

    fn ids(expired: &[FinishedTask]) -> Vec<i64> {
        expired.iter().map(|expired| expired.id.unix_ms()).collect()
    }

    fn by_age(tasks: &[FinishedTask], policy: &Policy, begin: Option<Timestamp>) -> Vec<i64> {
        let ages = Ages { now: at(0), begin };
        let mut due = tasks.to_vec();
        due.retain(|task| ages.is_due(policy, task.status, task.completed_at));
        ids(&due)
    }

    #[test]
    fn in_the_same_boot_the_boot_clock_must_confirm_the_age() {
        let moment = |boot: &str, boottime_sec| BootMoment {
            boot: boot.into(),
            boottime_sec,
        };
        let hour = Duration::from_secs(3600);
        let now = moment("this", 10_000.0);
        for (ended_in, is_over) in [
            (None, true),
            (Some(moment("earlier", 9_999.0)), true),
            (Some(moment("this", 6_400.0)), true),
            (Some(moment("this", 6_401.0)), false),
            (Some(moment("this", 11_000.0)), false),
        ] {
            let actual = is_over_in_this_boot(ended_in.as_ref(), &now, hour);
            assert_eq!(actual, is_over, "{ended_in:?}");
        }
    }

    #[test]
    fn each_status_has_its_age() {
        let hour = 3600;
        let tasks = [
            task(1, Status::Completed, hour, 0),
            task(2, Status::Completed, hour - 1, 0),
            task(3, Status::Cancelled, hour + 1, 0),
            task(4, Status::Failed, 24 * hour, 0),
            task(5, Status::Failed, 7 * 24 * hour, 0),
        ];
        assert_eq!(by_age(&tasks, &policy(), None), [1, 3, 5]);
        let cancelled = Policy::of(&Settings {
            cancelled_cleanup_delay_sec: Some(2.0 * 3600.0),
            ..Settings::default()
        });
        assert_eq!(by_age(&tasks, &cancelled, None), [1, 5]);
        let all_but_cancelled = Policy::of(&Settings {
            cancelled_cleanup_delay_sec: Some(1e9),
            cleanup_delay_sec: 0.0,
            failed_cleanup_delay_sec: 0.0,
            ..Settings::default()
        });
        assert_eq!(by_age(&tasks, &all_but_cancelled, None), [1, 2, 4, 5]);
    }

    #[test]
    fn caps_remove_the_oldest_tasks() {
        let tasks: Vec<_> = (1..=5)
            .map(|n| task(n, Status::Completed, 100 - n as i64, 10))
            .collect();
        let count = Policy {
            max_finished_tasks: Some(3),
            ..policy()
        };
        assert_eq!(ids(&over_caps(tasks.clone(), &count)), [1, 2]);
        let bytes = Policy {
            max_finished_bytes: Some(15),
            ..policy()
        };
        assert_eq!(ids(&over_caps(tasks.clone(), &bytes)), [1, 2, 3, 4]);
        let both = Policy {
            max_finished_tasks: Some(1),
            max_finished_bytes: Some(35),
            ..policy()
        };
        assert_eq!(ids(&over_caps(tasks.clone(), &both)), [1, 2, 3, 4]);
        let none = Policy {
            max_finished_tasks: Some(0),
            ..policy()
        };
        assert_eq!(ids(&over_caps(tasks.clone(), &none)), [1, 2, 3, 4, 5]);
        assert!(over_caps(tasks, &policy()).is_empty());
        assert!(over_caps(Vec::new(), &none).is_empty());
    }

    #[test]
    fn caps_use_the_end_time_of_a_task() {
        let tasks = vec![
            task(1, Status::Completed, 10, 0),
            task(2, Status::Failed, 30, 0),
            task(3, Status::Cancelled, 20, 0),
        ];
        let count = Policy {
            max_finished_tasks: Some(1),
            ..policy()
        };
        assert_eq!(ids(&over_caps(tasks, &count)), [2, 3]);
    }

    #[test]
    fn after_a_clock_jump_ages_start_at_the_jump() {
        let year = 365 * 86_400;
        let tasks = [
            task(1, Status::Completed, year, 0),
            task(2, Status::Completed, -year, 0),
        ];
        let jumped_just_now = Some(at(60));
        assert!(by_age(&tasks, &policy(), jumped_just_now).is_empty());
        let jumped_long_ago = Some(at(4000));
        assert_eq!(by_age(&tasks, &policy(), jumped_long_ago), [1, 2]);
    }

    #[test]
    fn tasks_with_too_young_ids_are_not_read() {
        let limit = policy().made_before(at(0));
        assert!(at(3600) < limit && at(3599) >= limit);
        let capped = Policy {
            max_finished_tasks: Some(1),
            ..policy()
        };
        assert!(at(-1) < capped.made_before(at(0)));
    }

    #[test]
    fn clocks_are_trusted_only_if_they_agree() {
        let clock = |wall: i64, boottime_sec: f64, boot: &str| SweepClock {
            v: 1,
            wall: Timestamp::from_unix_ms(NOW + wall * 1000),
            boottime_sec,
            boot: serde_json::from_value(boot.into()).unwrap(),
            ages_from: None,
        };
        let day = 86_400;
        for (wall, boottime, boot, expected) in [
            (60, 60.0, "a", ClockTrust::Agrees),
            (63, 60.0, "a", ClockTrust::Agrees),
            (86_000, 86_400.0, "a", ClockTrust::Agrees),
            (365 * day, 60.0, "a", ClockTrust::Jumped),
            (-365 * day, 60.0, "a", ClockTrust::Jumped),
            (-1, 60.0, "a", ClockTrust::Jumped),
            (600, 5.0, "b", ClockTrust::Restarted),
            (-600, 5.0, "b", ClockTrust::Jumped),
            (365 * day, 5.0, "b", ClockTrust::Jumped),
        ] {
            let last = clock(0, 0.0, "a");
            let now = clock(wall, boottime, boot);
            assert_eq!(
                ClockTrust::of(Some(&last), &now),
                expected,
                "{wall} {boottime} {boot}"
            );
        }
        assert_eq!(
            ClockTrust::of(None, &clock(0, 0.0, "a")),
            ClockTrust::FirstPass
        );
        let _ = BootId::current();
    }
}
