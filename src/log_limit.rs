//! Limits warnings that other users can cause any number of times: a few of each kind are logged, and the
//! rest are counted.
//!
//! This file does not decide what is logged, or where to. Invariant: within `PERIOD`, one kind logs at most
//! `MOST` lines and one line with the count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many lines of one kind are logged before the others are only counted.
const MOST: u32 = 20;
/// How long one count lasts.
const PERIOD: Duration = Duration::from_secs(10);

/// What was logged in the current period, by kind.
#[derive(Debug, Default)]
pub struct LogLimit {
    kinds: HashMap<&'static str, Period>,
}

#[derive(Debug)]
struct Period {
    started: Instant,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether the caller may log one more line of this kind. If not, the line is counted. The kind is a few
    /// words; the log shows them with the count.
    pub fn allows(&mut self, kind: &'static str) -> bool {
        self.allows_at(kind, Instant::now())
    }

    /// Logs the counts of periods that are over. The caller calls it from time to time.
    pub fn flush(&mut self) {
        self.flush_at(Instant::now(), PERIOD);
    }

    /// Logs all counts. The caller calls it before it exits.
    pub fn close(&mut self) {
        self.flush_at(Instant::now(), Duration::ZERO);
    }

    fn allows_at(&mut self, kind: &'static str, now: Instant) -> bool {
        if self
            .kinds
            .get(kind)
            .is_some_and(|period| period.is_over(now, PERIOD))
        {
            self.flush_at(now, PERIOD);
        }
        let period = self.kinds.entry(kind).or_insert(Period {
            started: now,
            logged: 0,
            left_out: 0,
        });
        if period.logged < MOST {
            period.logged += 1;
            return true;
        }
        period.left_out += 1;
        false
    }

    fn flush_at(&mut self, now: Instant, after: Duration) {
        self.kinds.retain(|kind, period| {
            let is_over = period.is_over(now, after);
            if is_over && period.left_out > 0 {
                let (more, seconds) = (period.left_out, (now - period.started).as_secs());
                tracing::warn!(
                    "{kind}: {more} more in the last {seconds} s, not logged one by one"
                );
            }
            !is_over
        });
    }
}

impl Period {
    fn is_over(&self, now: Instant, after: Duration) -> bool {
        now.saturating_duration_since(self.started) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_a_few_times_in_a_period() {
        let mut limit = LogLimit::default();
        let started = Instant::now();
        let logged = |limit: &mut LogLimit, kind, at| {
            (0..1000).filter(|_| limit.allows_at(kind, at)).count()
        };
        assert_eq!(logged(&mut limit, "a", started), MOST as usize);
        assert_eq!(logged(&mut limit, "b", started), MOST as usize);
        assert_eq!(logged(&mut limit, "a", started + PERIOD / 2), 0);
        assert_eq!(logged(&mut limit, "a", started + PERIOD), MOST as usize);
        limit.flush_at(started + PERIOD * 3, PERIOD);
        assert!(limit.kinds.is_empty());
    }
}
