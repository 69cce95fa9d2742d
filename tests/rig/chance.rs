//! Random choices whose seed is printed, so that a run can be repeated: `RIG_SEED=N`.
//!
//! Not a source of secrets. Which process a choice hits still depends on the machine, so a seed repeats the
//! choices and not the outcome.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and good enough to choose victims.
pub struct Chance(u64);

impl Chance {
    /// Seeded from `RIG_SEED`, or from the clock. `what` is printed with the seed.
    pub fn new(what: &str) -> Chance {
        let asked = std::env::var("RIG_SEED").ok();
        let seed = match asked {
            Some(seed) => seed.parse().unwrap(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                now.as_nanos() as u64
            }
        };
        println!("{what}: RIG_SEED={seed}");
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = self.below(all.len().max(1));
        all.get(at).copied()
    }

    /// A random duration up to `most`.
    pub fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}
