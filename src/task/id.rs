//! Task ids: `task_` and 26 characters of lower-case Crockford base32.
//!
//! 48 bits of milliseconds since the epoch, then 80 random bits (the ULID layout), so that names
//! sort by creation and two machines never meet. Not a secret and not a clock: order by id is the
//! order of creation as far as the wall clock was honest, and no decision about truth uses it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 26 characters of 5 bits hold the 128 bits; the first one is therefore at most `7`.
const DIGITS: usize = 26;
const RANDOM_BITS: u32 = 80;
/// What a byte counts in an id; [`NO_DIGIT`] for all that stand in none. A listing of 100,000 tasks
/// reads 2.6 million of them.
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

/// The name of one task, for ever. 16 bytes in memory: a queue of 100,000 is small.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u128);

impl TaskId {
    /// What every id begins with.
    pub const PREFIX: &'static str = "task_";
    /// The length of every id in bytes.
    pub const LEN: usize = Self::PREFIX.len() + DIGITS;

    /// An id from its parts: milliseconds since the epoch (48 bits count) and randomness (80 count).
    pub fn from_parts(unix_ms: u64, random: u128) -> TaskId {
        let time = u128::from(unix_ms) & 0xffff_ffff_ffff;
        TaskId((time << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
    }

    /// When the id was made, in milliseconds since the epoch.
    pub fn unix_ms(self) -> i64 {
        i64::try_from(self.0 >> RANDOM_BITS).unwrap_or(i64::MAX)
    }

    /// The 26 characters behind the prefix.
    pub fn digits(self) -> String {
        let mut text = [0u8; DIGITS];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether a text has only characters that stand in ids, so that it may be a part of one.
    pub fn has_its_characters(text: &str) -> bool {
        text.bytes()
            .all(|byte| VALUES[usize::from(byte)] != NO_DIGIT)
    }

    /// The last eight characters: what people's lists show.
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

/// The text is no task id.
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

/// Hands out ids that rise within one process, also within one millisecond and when the clock is
/// set back, so that the lines of a batch keep their order.
#[derive(Debug, Default)]
pub struct IdSequence {
    last: Option<TaskId>,
}

impl IdSequence {
    /// The next id for this moment and this randomness.
    pub fn next(&mut self, unix_ms: i64, random: u128) -> TaskId {
        let mut id = TaskId::from_parts(unix_ms.max(0).unsigned_abs(), random);
        if let Some(last) = self.last
            && id <= last
        {
            // A small random step keeps the tail unguessable enough to never meet another process.
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
    fn a_known_id_reads_as_written() {
        let id = TaskId::from_parts(0, 0);
        assert_eq!(id.to_string(), "task_00000000000000000000000000");
        let last = TaskId::from_parts(0xffff_ffff_ffff, u128::MAX);
        assert_eq!(last.to_string(), "task_7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(last.short(), "zzzzzzzz");
    }

    #[test]
    fn what_is_no_id_is_refused() {
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
    fn a_sequence_rises_even_when_the_clock_does_not() {
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
        fn text_and_value_are_one(ms in 0u64..0xffff_ffff_ffff, random: u128) {
            let id = TaskId::from_parts(ms, random);
            prop_assert_eq!(id.to_string().len(), TaskId::LEN);
            prop_assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
            prop_assert_eq!(id.unix_ms(), ms as i64);
        }

        #[test]
        fn text_sorts_as_the_value_does(a: u128, b: u128) {
            let (a, b) = (TaskId(a), TaskId(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }
}
