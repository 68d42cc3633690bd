//! Cases of `chat::encode`.
