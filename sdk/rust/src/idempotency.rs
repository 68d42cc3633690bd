//! Keys that make a command safe to send twice.

use greenroom_stdx::id::random_token;

/// Names one command: the server carries out at most one command for each key of a person. Reuse a key only to send
/// the same command again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A key nobody used before.
    pub fn fresh() -> Self {
        Self(random_token())
    }

    /// A key of the caller's choice; `None` unless it is 1 to 128 visible ASCII characters.
    pub fn new(text: &str) -> Option<Self> {
        let is_valid = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.to_owned()))
    }

    /// The text that goes into the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::IdempotencyKey;

    #[test]
    fn keys_are_visible_ascii_of_bounded_length() {
        for (text, expected) in [
            ("a", true),
            ("a-b_c.9~", true),
            ("", false),
            ("a b", false),
            ("ä", false),
            ("a\n", false),
        ] {
            assert_eq!(IdempotencyKey::new(text).is_some(), expected, "{text:?}");
        }
        assert!(IdempotencyKey::new(&"k".repeat(128)).is_some());
        assert!(IdempotencyKey::new(&"k".repeat(129)).is_none());
        assert_ne!(IdempotencyKey::fresh(), IdempotencyKey::fresh());
        assert!(IdempotencyKey::new(IdempotencyKey::fresh().as_str()).is_some());
    }
}
