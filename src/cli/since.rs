//! Parses a time as people write it: a timestamp, or how long ago it was.

use std::time::Duration;

use agentspool::internals::wall;
use agentspool::task::{Timestamp, parse_duration};

/// A timestamp, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Since {
    At(Timestamp),
    Ago(Duration),
}

/// Parses an RFC 3339 timestamp, else a duration such as `10m`.
pub(crate) fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(moment) = serde_json::from_value(serde_json::Value::from(text)) {
        return Ok(Since::At(moment));
    }
    // A bare number is refused: it could mean seconds ago or a Unix timestamp.
    let duration = text.parse::<f64>().is_err().then(|| parse_duration(text));
    duration
        .and_then(Result::ok)
        .map(Since::Ago)
        .ok_or_else(|| {
            "is neither a time such as 2026-11-27T09:00:00Z nor a duration such as 10m".to_owned()
        })
}

impl Since {
    /// The timestamp, counted back from now.
    pub fn moment(self) -> Timestamp {
        match self {
            Since::At(moment) => moment,
            Since::Ago(time) => {
                let ago = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_unix_ms(wall().unix_ms().saturating_sub(ago))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_durations_are_parsed() {
        let midnight = Since::At(Timestamp::from_unix_ms(0));
        assert_eq!(parse_since("1970-01-01T00:00:00Z"), Ok(midnight));
        assert_eq!(parse_since("90s"), Ok(Since::Ago(Duration::from_secs(90))));
        for text in ["", "yesterday", "10", "1970-13-01"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }
}
