//! The time of the next pass of a loop: by a period, or by a cron line in local time.
//!
//! Not the waiting (`sweep.rs`). No input besides the arguments and the time zone. Invariant: the times
//! depend only on the schedule, not on when a pass started or ended, so they do not drift. Times that passed
//! during a pass are skipped.

use std::time::{Duration, Instant};

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Year};
use jiff::Zoned;
use jiff::tz::TimeZone;

/// How often the wall clock is read again while waiting, since it may be set.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A schedule, and its next time.
pub(super) enum Schedule {
    Every { period: Duration, next: Instant },
    Cron { line: Box<Cron>, next: Zoned },
}

/// The cron line has no time in the future.
#[derive(Debug, thiserror::Error)]
#[error("the cron line `{0}` never matches a time")]
pub(super) struct Never(String);

/// Whether a pass is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    /// Not before this time has passed. Then ask again.
    In(Duration),
}

impl Schedule {
    /// A pass every `period`, the first one at once.
    pub fn every(period: Duration, now: Instant) -> Schedule {
        Schedule::Every { period, next: now }
    }

    /// A pass at each time of the cron line, the first one at its next time.
    pub fn cron(line: Cron, now: &Zoned) -> Result<Schedule, Never> {
        let next = next_of(&line, now)?;
        Ok(Schedule::Cron {
            line: Box::new(line),
            next,
        })
    }

    /// Whether a pass is due. If it is, the schedule advances to the next time after it.
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
                // If the wall clock was set back, the next time may be earlier.
                *next = next_of(line, wall)?.min(next.clone());
                let left = Duration::try_from(wall.duration_until(next)).unwrap_or_default();
                Ok(Due::In(left.min(RECHECK_INTERVAL)))
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

/// Parses the cron line of a flag.
pub(super) fn parse_cron(text: &str) -> Result<Cron, String> {
    // Seconds may be given as a field before the five.
    let parser = CronParser::builder().year(Year::Disallowed).build();
    let message = |error: CronError| {
        let what = match error {
            CronError::ComponentError(what) => format!(" ({})", what.trim_end_matches('.')),
            _ => String::new(),
        };
        format!(
            "not a cron line{what}: write five fields, minute hour day month weekday, as in '*/5 * * * *'"
        )
    };
    parser.parse(text).map_err(message)
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
    fn a_period_counts_from_its_start_and_skips_missed_times() {
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
            // This pass is late. The next pass is still on time.
            (125, Due::Now),
            (125, wait(55)),
            // After a pass of three minutes.
            (305, Due::Now),
            (306, wait(54)),
        ] {
            assert_eq!(schedule.ask(at(now), &wall).unwrap(), expected, "at {now}");
        }
    }

    #[test]
    fn a_cron_line_follows_the_wall_clock() {
        let now = Instant::now();
        let mut schedule = cron("*/5 * * * *", "2026-03-01T10:02:00[UTC]");
        let mut ask = |wall: &str| schedule.ask(now, &zoned(wall)).unwrap();
        assert_eq!(ask("2026-03-01T10:02:00[UTC]"), Due::In(RECHECK_INTERVAL));
        let left = Due::In(Duration::from_secs(10));
        assert_eq!(ask("2026-03-01T10:04:50[UTC]"), left);
        assert_eq!(ask("2026-03-01T10:05:00.5[UTC]"), Due::Now);
        assert_eq!(ask("2026-03-01T10:05:00.6[UTC]"), Due::In(RECHECK_INTERVAL));
        // After a pass of fifteen minutes, one pass is due, not three.
        assert_eq!(ask("2026-03-01T10:21:00[UTC]"), Due::Now);
        assert_eq!(
            ask("2026-03-01T10:24:55[UTC]"),
            Due::In(Duration::from_secs(5))
        );
        // The clock was set back by an hour. Passes continue during this hour.
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
    fn an_invalid_cron_line_is_refused_at_once() {
        for text in [
            "",
            "*/5",
            "* * * *",
            "* * * * * * 2030",
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
