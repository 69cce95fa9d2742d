//! A point in time as files store it: milliseconds, written as RFC 3339 in UTC.
//!
//! Not a clock (see `clock.rs`). Invariant: a written time parses back to the same millisecond.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A wall-clock time in milliseconds since the epoch. In JSON `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub fn from_unix_ms(ms: i64) -> Timestamp {
        Timestamp(ms)
    }

    /// Milliseconds since the epoch.
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to this moment; negative if the clock was set back.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.0 - earlier.0) as f64 / 1000.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only a wrong clock gives a year outside jiff's range (±9999): show the nearest valid time.
        let moment = jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        write!(f, "{moment:.3}")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Timestamp(moment.as_millisecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_the_z_are_always_written() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_769_860_800_000, "2026-01-31T12:00:00.000Z"),
            (1_769_860_800_120, "2026-01-31T12:00:00.120Z"),
        ] {
            assert_eq!(Timestamp::from_unix_ms(ms).to_string(), text);
            let json = serde_json::to_string(&Timestamp::from_unix_ms(ms)).unwrap();
            assert_eq!(
                serde_json::from_str::<Timestamp>(&json).unwrap().unix_ms(),
                ms
            );
        }
    }
}
