//! Cases of `chat::decode`.
