//! How long to wait before trying again: exponential with full jitter, bounded.

use std::time::Duration;

/// Delays of successive attempts.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub first: Duration,
    /// Upper bound of any delay.
    pub max: Duration,
}

impl Backoff {
    /// Delay before attempt `attempt + 1`, `attempt` counted from 1; `random` is a number in 0.0..1.0 from the caller.
    /// Lies between half the bound and the bound, so that it never becomes a busy loop.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// A number in 0.0..1.0 for [`Backoff::delay`].
    pub fn random() -> f64 {
        let bytes = crate::id::random_bytes();
        f64::from(u16::from_be_bytes([bytes[0], bytes[1]])) / 65_536.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        for (attempt, random, expected_ms) in [
            (1, 0.0, 50),
            (1, 1.0, 100),
            (2, 1.0, 200),
            (4, 1.0, 800),
            (5, 1.0, 1000),
            (u32::MAX, 1.0, 1000),
        ] {
            assert_eq!(
                backoff.delay(attempt, random),
                Duration::from_millis(expected_ms),
                "attempt {attempt}"
            );
        }
    }
}
