//! Numbers that a failed run can be repeated with.

use std::time::{SystemTime, UNIX_EPOCH};

/// The same numbers for the same seed, which `GREENROOM_TEST_SEED` sets.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// Prints its seed.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("GREENROOM_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(fresh) | 1;
        eprintln!("GREENROOM_TEST_SEED={seed}");
        Self(seed)
    }

    /// Other numbers, for one of several that go on at once.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How often a test does what it would do `usual` times; `GREENROOM_TEST_CYCLES` has them do it longer, by hand.
pub fn cycles(usual: usize) -> usize {
    let asked = std::env::var("GREENROOM_TEST_CYCLES").ok();
    asked.and_then(|cycles| cycles.parse().ok()).unwrap_or(usual)
}
