//! Fresh, time-ordered bits for identifiers.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// 48 bits of Unix milliseconds, then 80 bits that start random and count up within a millisecond, like a ULID
/// (<https://github.com/ulid/spec>). Strictly grows within a process, also when the clock steps back.
pub fn fresh_bits() -> u128 {
    static LAST: Mutex<u128> = Mutex::new(0);
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let candidate = ((now_ms & ((1 << 48) - 1)) << 80) | random_80_bits();
    // A poisoned lock only means another thread panicked; the number inside is still whole.
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *last = if candidate > *last { candidate } else { *last + 1 };
    *last
}

/// 32 unpredictable bytes, for tokens and keys.
pub fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap_or_else(|error| panic!("the kernel gives no randomness: {error}"));
    bytes
}

/// 64 lower-case hexadecimal digits of [`random_bytes`].
pub fn random_token() -> String {
    use std::fmt::Write as _;
    random_bytes()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn random_80_bits() -> u128 {
    let bytes = random_bytes();
    // The top bit stays clear so that counting up cannot run into the time.
    bytes[..10]
        .iter()
        .fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte))
        & ((1 << 79) - 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn bits_strictly_grow() {
        let mut previous = 0;
        for _ in 0..10_000 {
            let bits = super::fresh_bits();
            assert!(bits > previous);
            previous = bits;
        }
    }
}
