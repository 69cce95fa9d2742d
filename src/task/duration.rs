//! Parses durations and sizes as people write them: `300`, `90s`, `5m`, `1h30m`; `1000`, `16M`, `2G`.
//!
//! Not the limits of single fields (`request.rs`, `config.rs`). Invariant: everywhere a duration is read (the
//! command line, JSON, a `recipe.toml`), a number of seconds and a text such as `90s` are both accepted.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};

/// The rest of the message for any other value.
const EXPECTED: &str = "seconds or a duration such as 90s, 5m or 1h30m";

/// A thousand years. A point in time that far from now still fits the types for times.
const LONGEST: Duration = Duration::from_secs(1000 * 31_557_600);

/// The longest timeout of a task in seconds: ten years, so that a deadline is always a valid time.
const MAX_TIMEOUT_SEC: f64 = 10.0 * 365.25 * 86_400.0;

/// The range of a timeout, as the rest of a sentence.
pub const TIMEOUT_RANGE: &str = "must be more than 0 and at most ten years";

/// Whether a task may have this timeout, in seconds: the same range in a setting, a recipe and a request.
pub fn is_timeout(seconds: f64) -> bool {
    seconds > 0.0 && seconds <= MAX_TIMEOUT_SEC
}

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number, and not numbers with units.
    #[error("must be {EXPECTED}")]
    Unreadable,
    /// Less than 0.
    #[error("must not be less than 0 seconds")]
    Negative,
    /// More than 1000 years.
    #[error("must be at most 1000 years")]
    TooLong,
    /// A duration, but not one that a task may have as its timeout.
    #[error("{TIMEOUT_RANGE}")]
    NotATimeout,
}

/// Parses a duration. A number without a unit is seconds.
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

/// Parses the timeout of a task.
///
/// # Errors
/// [`DurationError`].
pub fn parse_timeout(text: &str) -> Result<Duration, DurationError> {
    let duration = parse_duration(text)?;
    is_timeout(duration.as_secs_f64())
        .then_some(duration)
        .ok_or(DurationError::NotATimeout)
}

/// Parses a size in bytes: a number, or a number with K, M, G or T. They are powers of 1024, as in systemd.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (0.0..1e18)
        .contains(&number)
        .then_some((number * unit as f64) as u64)
}

/// A duration for a person: `1h 30m`, `7 days`. [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let text = humantime::format_duration(duration).to_string();
    let words = text.split(' ').map(|word| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        match unit.len() > "ms".len() {
            true => word.replace(unit, &format!(" {unit}")),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn limited(duration: Duration) -> Result<Duration, DurationError> {
    (duration <= LONGEST)
        .then_some(duration)
        .ok_or(DurationError::TooLong)
}

/// Reads seconds from a file: a number, or a text that [`parse_duration`] parses.
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
        // The error does not repeat the text: see `describe_json_error`.
        let duration =
            parse_duration(text).map_err(|error| E::custom(format_args!("it {error}")))?;
        Ok(duration.as_secs_f64())
    }
}

/// Reads a duration in seconds, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The value is not a duration.
pub fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Seconds)
}

/// Reads a duration in seconds or `null`, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// The value is not a duration.
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
    fn durations_with_and_without_units_are_parsed() {
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
    fn a_formatted_duration_is_parsed_to_the_same_value() {
        for (seconds, text) in [
            (90, "1m 30s"),
            (7 * 86_400, "7 days"),
            (40 * 86_400 + 7200, "1 month 9 days 15h 26m 24s"),
        ] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn a_text_that_is_not_a_duration_is_refused() {
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
