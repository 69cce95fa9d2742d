//! How long something takes, as people write it: `300`, `90s`, `5m`, `1h30m`.
//!
//! Not the limits of any one field (`request.rs`, `config.rs`). Invariant: wherever seconds are read, from the command
//! line, from JSON or from a `recipe.toml`, a number and a text mean the same.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};

/// What is said where something else stands.
const EXPECTED: &str = "seconds or a duration such as 90s, 5m or 1h30m";

/// A thousand years: a moment so far from now can still be counted.
const LONGEST: Duration = Duration::from_secs(1000 * 31_557_600);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Neither a number nor numbers with units.
    #[error("must be {EXPECTED}")]
    Unreadable,
    /// Less than nothing.
    #[error("must not be less than 0 seconds")]
    Negative,
    /// More than any clock needs.
    #[error("must be at most 1000 years")]
    TooLong,
}

/// Reads a duration; a bare number is seconds.
///
/// # Errors
/// [`DurationError`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let text = text.trim();
    let Ok(seconds) = text.parse::<f64>() else {
        let read = humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => DurationError::TooLong,
            _ => DurationError::Unreadable,
        });
        return read.and_then(limited);
    };
    if seconds.is_nan() || text.contains(['n', 'N']) {
        return Err(DurationError::Unreadable);
    }
    if seconds < 0.0 {
        return Err(DurationError::Negative);
    }
    let read = Duration::try_from_secs_f64(seconds);
    read.map_err(|_| DurationError::TooLong).and_then(limited)
}

fn limited(duration: Duration) -> Result<Duration, DurationError> {
    (duration <= LONGEST)
        .then_some(duration)
        .ok_or(DurationError::TooLong)
}

/// Seconds in a file: a number, or a text as [`parse_duration`] reads it.
struct Seconds;

impl Visitor<'_> for Seconds {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_f64<E>(self, seconds: f64) -> Result<f64, E> {
        Ok(seconds)
    }

    fn visit_u64<E>(self, seconds: u64) -> Result<f64, E> {
        Ok(seconds as f64)
    }

    fn visit_i64<E>(self, seconds: i64) -> Result<f64, E> {
        Ok(seconds as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        // What was written is not repeated: see `describe_json_error`.
        let duration =
            parse_duration(text).map_err(|error| E::custom(format_args!("it {error}")))?;
        Ok(duration.as_secs_f64())
    }
}

/// For `#[serde(deserialize_with)]`.
///
/// # Errors
/// Something else stands there.
pub fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Seconds)
}

/// The same where `null` says that there are none.
///
/// # Errors
/// Something else stands there.
pub fn seconds_or_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    struct OrNull;
    impl<'de> Visitor<'de> for OrNull {
        type Value = Option<f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_none<E>(self) -> Result<Option<f64>, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Option<f64>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Option<f64>, D::Error> {
            seconds(inner).map(Some)
        }
    }
    deserializer.deserialize_option(OrNull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, seconds) in [
            ("300", 300.0),
            ("0.5", 0.5),
            ("90s", 90.0),
            (" 5m ", 300.0),
            ("1h30m", 5400.0),
        ] {
            let read = parse_duration(text).map(|duration| duration.as_secs_f64());
            assert_eq!(read, Ok(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_said_in_words() {
        for (text, error) in [
            ("", DurationError::Unreadable),
            ("soon", DurationError::Unreadable),
            ("5 parsecs", DurationError::Unreadable),
            ("nan", DurationError::Unreadable),
            ("inf", DurationError::Unreadable),
            ("-1", DurationError::Negative),
            ("1e300", DurationError::TooLong),
            ("500000000000y", DurationError::TooLong),
            ("99999999999999999999y", DurationError::TooLong),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }
}
