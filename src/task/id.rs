//! Task ids: `task_` and 26 characters of lower-case Crockford base32.
//!
//! An id has 48 bits of milliseconds since the epoch, then 80 random bits (the ULID layout). Ids sort by time
//! of creation, and two machines do not create the same id. Not a secret and not a clock: the order of ids
//! is the order of creation only if the wall clock was right. Invariant: the correctness of a result never
//! depends on that order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 26 characters of 5 bits hold the 128 bits; the first one is therefore at most `7`.
const DIGITS: usize = 26;
const RANDOM_BITS: u32 = 80;
/// The value of each byte in an id, or [`NO_DIGIT`] for a byte that is not in the alphabet. It is a table
/// because a listing of 100,000 tasks reads 2.6 million of these bytes.
const VALUES: [u8; 256] = values();
const NO_DIGIT: u8 = 0xff;

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < ALPHABET.len() {
        values[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
}

/// The permanent name of one task. It takes 16 bytes, so that a queue of 100,000 tasks is small in memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

impl TaskId {
    /// The prefix of every id.
    pub const PREFIX: &'static str = "task_";
    /// The length of every id in bytes.
    pub const LEN: usize = Self::PREFIX.len() + DIGITS;

    /// An id from its parts: milliseconds since the epoch (the low 48 bits) and randomness (the low 80 bits).
    pub fn from_parts(unix_ms: u64, random: u128) -> TaskId {
        let time = u128::from(unix_ms) & 0xffff_ffff_ffff;
        TaskId((time << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
    }

    /// When the id was created, in milliseconds since the epoch.
    pub fn unix_ms(self) -> i64 {
        i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX)
    }

    /// The 26 characters after the prefix.
    pub fn digits(self) -> String {
        let mut text = [0u8; DIGITS];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether a text has only characters of ids, so that it may be a part of an id.
    pub fn has_its_characters(text: &str) -> bool {
        text.bytes()
            .all(|byte| VALUES[usize::from(byte)] != NO_DIGIT)
    }

    /// The last eight characters, as lists for people show them.
    pub fn short(self) -> String {
        self.digits()[DIGITS - 8..].to_owned()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.digits())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a task id.
#[derive(Debug, thiserror::Error)]
#[error("not a task id: expected `task_` and 26 characters of 0-9 a-z without i, l, o, u")]
pub struct InvalidId;

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<TaskId, InvalidId> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(InvalidId)?;
        if digits.len() != DIGITS || digits.as_bytes()[0] > b'7' {
            return Err(InvalidId);
        }
        let mut value = 0u128;
        for byte in digits.bytes() {
            let digit = VALUES[usize::from(byte)];
            if digit == NO_DIGIT {
                return Err(InvalidId);
            }
            value = (value << 5) | u128::from(digit);
        }
        Ok(TaskId(value))
    }
}

impl Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TaskId, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Creates increasing ids within one process, even within one millisecond or if the clock is set back. The
/// lines of a batch keep their order because of it.
#[derive(Debug, Default)]
pub struct IdSequence {
    last: Option<TaskId>,
}

impl IdSequence {
    /// The next id for this time (milliseconds since the epoch) and this randomness.
    pub fn next(&mut self, unix_ms: i64, random: u128) -> TaskId {
        let mut id = TaskId::from_parts(unix_ms.max(0).unsigned_abs(), random);
        if let Some(last) = self.last
            && id <= last
        {
            // A random step, so that another process does not create the same id.
            id = TaskId(last.0 + 1 + (random & 0xffff_ffff));
        }
        self.last = Some(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_id_parses_to_the_value_that_was_written() {
        let id = TaskId::from_parts(0, 0);
        assert_eq!(id.to_string(), "task_00000000000000000000000000");
        let last = TaskId::from_parts(0xffff_ffff_ffff, u128::MAX);
        assert_eq!(last.to_string(), "task_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(last.short(), "zzzzzzzz");
    }

    #[test]
    fn a_text_that_is_not_an_id_is_refused() {
        for text in [
            "",
            "task_",
            "task_abc",
            "TASK_00000000000000000000000000",
            "task_0000000000000000000000000",
            "task_000000000000000000000000000",
            "task_0000000000000000000000000i",
            "task_0000000000000000000000000A",
            "task_80000000000000000000000000",
            "task_../../../../etc/passwd0000",
        ] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sequence_increases_even_if_the_clock_does_not() {
        let mut ids = IdSequence::default();
        let mut last = ids.next(1000, 7);
        for (ms, random) in [(1000, 7), (1000, 0), (10, u128::MAX), (1000, 3), (2000, 0)] {
            let next = ids.next(ms, random);
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }

    proptest! {
        #[test]
        fn an_id_parses_from_its_own_text(ms in 0u64..0xffff_ffff_ffff, random: u128) {
            let id = TaskId::from_parts(ms, random);
            prop_assert_eq!(id.to_string().len(), TaskId::LEN);
            prop_assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
            prop_assert_eq!(id.unix_ms(), ms as i64);
        }

        #[test]
        fn texts_sort_like_values(a: u128, b: u128) {
            let (a, b) = (TaskId(a), TaskId(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
