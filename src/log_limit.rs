//! Warnings that somebody else can cause as often as he likes: of each kind a few are logged, and the rest is
//! counted.
//!
//! Not what is logged, nor where to. Invariant: whatever others do, a kind makes at most `MOST` lines and
//! one with the count in `SPELL`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lines of one kind before the others are counted.
const MOST: u32 = 20;
/// For so long.
const SPELL: Duration = Duration::from_secs(10);

/// What was logged lately, by kind.
#[derive(Debug, Default)]
pub struct LogLimit {
    kinds: HashMap<&'static str, Spell>,
}

#[derive(Debug)]
struct Spell {
    begun: Instant,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether one more line of this kind is to be logged; else it is counted. The kind is a few words that
    /// the log shows with the count.
    pub fn allows(&mut self, kind: &'static str) -> bool {
        self.allows_at(kind, Instant::now())
    }

    /// Logs the counts of what is over. To be called now and then.
    pub fn flush(&mut self) {
        self.flush_at(Instant::now(), SPELL);
    }

    /// Logs all counts: nobody will log again.
    pub fn close(&mut self) {
        self.flush_at(Instant::now(), Duration::ZERO);
    }

    fn allows_at(&mut self, kind: &'static str, now: Instant) -> bool {
        if self
            .kinds
            .get(kind)
            .is_some_and(|spell| spell.is_over(now, SPELL))
        {
            self.flush_at(now, SPELL);
        }
        let spell = self.kinds.entry(kind).or_insert(Spell {
            begun: now,
            logged: 0,
            left_out: 0,
        });
        if spell.logged < MOST {
            spell.logged += 1;
            return true;
        }
        spell.left_out += 1;
        false
    }

    fn flush_at(&mut self, now: Instant, after: Duration) {
        self.kinds.retain(|kind, spell| {
            let is_over = spell.is_over(now, after);
            if is_over && spell.left_out > 0 {
                let (more, seconds) = (spell.left_out, (now - spell.begun).as_secs());
                tracing::warn!(
                    "{kind}: {more} more in the last {seconds} s, not logged one by one"
                );
            }
            !is_over
        });
    }
}

impl Spell {
    fn is_over(&self, now: Instant, after: Duration) -> bool {
        now.saturating_duration_since(self.begun) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_a_few_times_in_a_spell() {
        let mut limit = LogLimit::default();
        let begun = Instant::now();
        let logged = |limit: &mut LogLimit, kind, at| {
            (0..1000).filter(|_| limit.allows_at(kind, at)).count()
        };
        assert_eq!(logged(&mut limit, "a", begun), MOST as usize);
        assert_eq!(logged(&mut limit, "b", begun), MOST as usize);
        assert_eq!(logged(&mut limit, "a", begun + SPELL / 2), 0);
        assert_eq!(logged(&mut limit, "a", begun + SPELL), MOST as usize);
        limit.flush_at(begun + SPELL * 3, SPELL);
        assert!(limit.kinds.is_empty());
    }
}
