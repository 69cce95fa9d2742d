//! When the next pass of a loop is due: by a period, or by a cron line in local time.
//!
//! Pure but for the time zone. Not the waiting (`sweep.rs`). Invariant: moments come from the
//! schedule alone and never from when a pass began or ended, so nothing drifts; moments that went
//! by during a pass are left out, not made up for.

use std::time::{Duration, Instant};

use croner::Cron;
use croner::errors::CronError;
use jiff::Zoned;
use jiff::tz::TimeZone;

/// The wall clock may be set while we wait: it is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A schedule, and its next moment.
pub(super) enum Schedule {
    Every { period: Duration, next: Instant },
    Cron { line: Box<Cron>, next: Zoned },
}

/// No moment will come.
#[derive(Debug, thiserror::Error)]
#[error("the cron line `{0}` never comes")]
pub(super) struct Never(String);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    /// Not before this has passed; then ask again.
    In(Duration),
}

impl Schedule {
    /// Passes each `period`, the first one at once.
    pub fn every(period: Duration, now: Instant) -> Schedule {
        Schedule::Every { period, next: now }
    }

    /// Passes when the line says so, the first one at its next moment.
    pub fn cron(line: Cron, now: &Zoned) -> Result<Schedule, Never> {
        let next = next_of(&line, now)?;
        Ok(Schedule::Cron {
            line: Box::new(line),
            next,
        })
    }

    /// Whether a pass is due; if so the schedule goes on to the moment after.
    pub fn ask(&mut self, now: Instant, wall: &Zoned) -> Result<Due, Never> {
        match self {
            Schedule::Every { period, next } => {
                if now < *next {
                    return Ok(Due::In(*next - now));
                }
                let periods = (now - *next).as_nanos() / period.as_nanos() + 1;
                *next += period.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX));
                Ok(Due::Now)
            }
            Schedule::Cron { line, next } => {
                if *wall >= *next {
                    *next = next_of(line, wall)?;
                    return Ok(Due::Now);
                }
                // Set back, the wall clock has an earlier moment to come.
                *next = next_of(line, wall)?.min(next.clone());
                let left = Duration::try_from(wall.duration_until(next)).unwrap_or_default();
                Ok(Due::In(left.min(LOOK_AGAIN)))
            }
        }
    }
}

/// The wall clock in local time.
pub(super) fn wall() -> Zoned {
    jiff::Timestamp::now().to_zoned(TimeZone::system())
}

fn next_of(line: &Cron, after: &Zoned) -> Result<Zoned, Never> {
    let next = line.find_next_occurrence(after, false);
    next.map_err(|_| Never(line.as_str().to_owned()))
}

/// A cron line, as a flag takes it.
pub(super) fn parse_cron(text: &str) -> Result<Cron, String> {
    let message = |error: CronError| {
        format!("{error} (five fields: minute hour day month weekday, as '*/5 * * * *')")
    };
    text.parse::<Cron>().map_err(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zoned(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn cron(line: &str, wall: &str) -> Schedule {
        Schedule::cron(parse_cron(line).unwrap(), &zoned(wall)).unwrap()
    }

    #[test]
    fn a_period_counts_from_its_beginning_and_leaves_out_what_went_by() {
        let start = Instant::now();
        let wall = wall();
        let mut schedule = Schedule::every(Duration::from_secs(60), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let wait = |seconds| Due::In(Duration::from_secs(seconds));
        for (now, expected) in [
            (0, Due::Now),
            (7, wait(53)),
            (60, Due::Now),
            (61, wait(59)),
            // Noticed late: the next one is not late for that.
            (125, Due::Now),
            (125, wait(55)),
            // A pass of three minutes.
            (305, Due::Now),
            (306, wait(54)),
        ] {
            assert_eq!(schedule.ask(at(now), &wall).unwrap(), expected, "at {now}");
        }
    }

    #[test]
    fn a_cron_line_goes_by_the_wall_clock() {
        let now = Instant::now();
        let mut schedule = cron("*/5 * * * *", "2026-03-01T10:02:00[UTC]");
        let mut ask = |wall: &str| schedule.ask(now, &zoned(wall)).unwrap();
        assert_eq!(ask("2026-03-01T10:02:00[UTC]"), Due::In(LOOK_AGAIN));
        let left = Due::In(Duration::from_secs(10));
        assert_eq!(ask("2026-03-01T10:04:50[UTC]"), left);
        assert_eq!(ask("2026-03-01T10:05:00.5[UTC]"), Due::Now);
        assert_eq!(ask("2026-03-01T10:05:00.6[UTC]"), Due::In(LOOK_AGAIN));
        // A pass that took a quarter of an hour: one, not three.
        assert_eq!(ask("2026-03-01T10:21:00[UTC]"), Due::Now);
        assert_eq!(
            ask("2026-03-01T10:24:55[UTC]"),
            Due::In(Duration::from_secs(5))
        );
        // The clock is set back by an hour: no hour without a pass.
        assert_eq!(
            ask("2026-03-01T09:24:55[UTC]"),
            Due::In(Duration::from_secs(5))
        );
        assert_eq!(ask("2026-03-01T09:25:00[UTC]"), Due::Now);
    }

    #[test]
    fn a_cron_line_is_in_local_time() {
        let schedule = cron("30 4 * * *", "2026-07-01T00:00:00[Europe/Berlin]");
        let Schedule::Cron { next, .. } = schedule else {
            panic!("not by a cron line")
        };
        assert_eq!(
            next.timestamp(),
            zoned("2026-07-01T02:30:00[UTC]").timestamp()
        );
    }

    #[test]
    fn what_is_no_cron_line_is_said_at_once() {
        for text in [
            "",
            "*/5",
            "* * * *",
            "61 * * * *",
            "a b c d e",
            "*/0 * * * *",
        ] {
            assert!(parse_cron(text).is_err(), "{text}");
        }
        let never = Schedule::cron(parse_cron("0 0 30 2 *").unwrap(), &wall());
        assert!(never.is_err());
    }
}
